"""A mailbox that was seen before and is missing is never told to be empty: by a login, `deliver` or `check`."""

import errno
import os
import poplib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pop3d.auth import Account
from pop3d.commands.check import findings
from pop3d.stores import StoreError
from pop3d.stores.maildir import seen_mailboxes
from pop3d.stores.maildir.mailbox_records import MailboxRecords
from pop3d.stores.maildir.seen_mailboxes import SeenMailboxes, is_there, mailboxes_root
from pop3d.stores.maildir.store import MaildirMaildrop, MaildirStore
from tests.site import Daemon, Site

ALICE, BOB = Account("alice"), Account("bob")


def make_maildir(path: Path, messages: int = 3) -> Path:
    for folder in ("tmp", "new", "cur"):
        (path / folder).mkdir(parents=True, exist_ok=True)
    for number in range(messages):
        (path / "new" / f"{number}.host").write_bytes(b"x\n")
    return path


@pytest.fixture
def mail(tmp_path: Path) -> Path:
    """The folder of all mailboxes, which may be a volume of its own."""
    make_maildir(tmp_path / "mail" / "alice")
    return tmp_path / "mail"


def store_of(mail: Path, template: str = "{user}") -> MaildirStore:
    """As a daemon that has just begun has it."""
    return MaildirStore(str(mail / template), mail.parent / "state")


@asynccontextmanager
async def opened(store: MaildirStore, account: Account = ALICE) -> AsyncIterator[MaildirMaildrop]:
    drop = await store.open(account, utf8=False)
    try:
        yield drop
    finally:
        await drop.close()


async def messages(store: MaildirStore, account: Account = ALICE) -> int:
    async with opened(store, account) as drop:
        return len(drop.messages)


async def refused(store: MaildirStore, account: Account = ALICE) -> str:
    """Why a login is refused, as the log says it."""
    with pytest.raises(StoreError) as raised:
        await messages(store, account)
    assert raised.value.code == "SYS/TEMP"
    return raised.value.detail


# --- what is missing ---


@pytest.mark.parametrize("again", [False, True], ids=["same process", "after a restart"])
async def test_the_folder_of_all_mailboxes_is_gone(mail: Path, again: bool) -> None:
    store = store_of(mail)
    assert await messages(store) == 3
    mail.rename(mail.parent / "unplugged")
    if again:
        store = store_of(mail)
    for account in (ALICE, BOB):  # bob's was never seen, and nobody can know whether it is there
        assert str(mail) in await refused(store, account)
        assert not mail.exists()
    (mail.parent / "unplugged").rename(mail)
    assert await messages(store) == 3
    assert await messages(store, BOB) == 0


@pytest.mark.parametrize("left", [(), ("lost+found",), (".snapshots",), ("NOT-MOUNTED",)], ids=repr)
async def test_an_empty_mount_point(mail: Path, left: tuple[str, ...]) -> None:
    assert await messages(store_of(mail)) == 3
    mail.rename(mail.parent / "unplugged")
    mail.mkdir()
    for name in left:
        if name.isupper():
            (mail / name).write_text("this marks a mount point")
        else:
            (mail / name).mkdir()
    store = store_of(mail)
    for account in (ALICE, BOB):
        detail = await refused(store, account)
        assert f"{mail}: it had mailboxes, and is missing or empty; mount its volume" in detail
        assert "pop3d mailbox USER --forget" in detail
    assert sorted(path.name for path in mail.iterdir()) == sorted(left)


async def test_a_link_to_a_volume_that_comes_later(mail: Path) -> None:
    volume = mail.parent / "volume"
    mail.rename(volume)
    mail.symlink_to(volume)
    assert await messages(store_of(mail)) == 3
    volume.rename(mail.parent / "elsewhere")
    await refused(store_of(mail))
    await refused(store_of(mail), BOB)


async def test_one_mailbox_is_gone(mail: Path) -> None:
    make_maildir(mail / "bob", 1)
    store = store_of(mail)
    assert (await messages(store), await messages(store, BOB)) == (3, 1)
    shutil.rmtree(mail / "alice")
    for daemon in (store, store_of(mail)):
        detail = await refused(daemon)
        assert f"{mail / 'alice'}: it was there before and is missing; mount its volume" in detail
        assert await messages(daemon, BOB) == 1
        assert await messages(daemon, Account("carol")) == 0
    assert not (mail / "alice").exists()


async def test_a_mailbox_whose_folder_is_a_mount_point_of_its_own(mail: Path) -> None:
    """The folder is there, and neither new/ nor cur/ is in it."""
    make_maildir(mail / "bob")
    store = store_of(mail)
    assert await messages(store) == 3
    (mail / "alice").rename(mail.parent / "unplugged")
    (mail / "alice").mkdir()
    for daemon in (store, store_of(mail)):
        assert str(mail / "alice") in await refused(daemon)
    (mail / "alice" / "cur").mkdir()
    assert await messages(store) == 0  # a missing new/ is an empty one


async def test_a_volume_for_each_domain(mail: Path) -> None:
    carol = Account("carol@example.org")
    make_maildir(mail / "example.org" / "carol")
    template = "{domain}/{local}"
    assert await messages(store_of(mail, template), carol) == 3
    shutil.rmtree(mail / "example.org")
    await refused(store_of(mail, template), carol)


async def test_homes_have_no_folder_in_common(mail: Path) -> None:
    store = MaildirStore("{home}/Maildir", mail.parent / "state")
    make_maildir(mail / "alice" / "Maildir")
    alice, bob = (Account(name, home=str(mail / name)) for name in ("alice", "bob"))
    assert await messages(store, alice) == 3
    shutil.rmtree(mail)
    assert await messages(store, bob) == 0
    await refused(store, alice)


# --- what was never there ---


async def test_a_new_site_has_empty_mailboxes(tmp_path: Path) -> None:
    store = store_of(tmp_path / "mail")
    assert await messages(store) == 0
    (tmp_path / "mail").mkdir()
    assert await messages(store) == 0
    (tmp_path / "mail" / "alice").mkdir()  # a folder that is no Maildir yet
    assert await messages(store) == 0
    shutil.rmtree(tmp_path / "mail")
    assert await messages(store) == 0
    assert not (tmp_path / "state").exists()


async def test_a_mailbox_that_begins_is_seen_from_then_on(mail: Path) -> None:
    store = store_of(mail)
    assert await messages(store, BOB) == 0
    make_maildir(mail / "bob", 1)
    assert await messages(store, BOB) == 1
    shutil.rmtree(mail / "bob")
    await refused(store, BOB)


async def test_without_a_state_folder_nothing_is_remembered(mail: Path) -> None:
    store = MaildirStore(str(mail / "{user}"))
    assert await messages(store) == 3
    shutil.rmtree(mail)
    assert await messages(store) == 0


async def test_what_is_forgotten_is_empty_until_it_is_back(mail: Path) -> None:
    make_maildir(mail / "bob")
    store = store_of(mail)
    assert await messages(store) == 3
    shutil.rmtree(mail / "alice")
    await refused(store)
    assert SeenMailboxes(mail.parent / "state", str(mail / "{user}")).records.forget(str(mail / "alice"))
    assert await messages(store) == 0
    make_maildir(mail / "alice", 1)
    assert await messages(store) == 1
    shutil.rmtree(mail / "alice")
    await refused(store)


# --- what it costs ---


def test_the_disk_is_asked_once_for_each_mailbox(mail: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for name in ("load", "save", "root_seen", "save_root"):
        real = getattr(MailboxRecords, name)
        monkeypatch.setattr(
            MailboxRecords, name, lambda self, of, name=name, real=real: asked.append(name) or real(self, of)
        )
    state, template, path = mail.parent / "state", str(mail / "{user}"), str(mail / "alice")
    seen = SeenMailboxes(state, template)
    seen.check(path, there=True)
    assert asked == ["load", "save", "root_seen", "save_root"]
    for _ in range(3):
        seen.check(path, there=True)
    assert len(asked) == 4
    SeenMailboxes(state, template).check(path, there=True)
    assert asked[4:] == ["load", "root_seen"]


# --- trouble with the state folder ---


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
async def test_a_login_works_where_nothing_can_be_written(
    mail: Path, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_maildir(mail / "bob", 1)
    store = store_of(mail)
    with monkeypatch.context() as patch:
        patch.setattr(seen_mailboxes.MailboxRecords, "save", lambda *_: _fail(number))
        for _ in range(3):
            assert await messages(store) == 3
            assert await messages(store, BOB) == 1
    assert caplog.text.count("is not told from an empty one after a restart") == 1
    # this process remembers it all the same
    shutil.rmtree(mail / "alice")
    assert str(mail / "alice") in await refused(store)
    # once there is room again, what is seen is written
    monkeypatch.setattr(seen_mailboxes, "_PAUSE", 0.0)
    store._seen._paused_until = 0.0  # type: ignore[union-attr]
    (mail / "bob" / "new" / "another").write_bytes(b"x\n")
    assert await messages(store, BOB) == 2
    shutil.rmtree(mail / "bob")
    make_maildir(mail / "carol")
    await refused(store_of(mail), BOB)


def _fail(number: int) -> Any:
    raise OSError(number, os.strerror(number), "/the/state/folder")


async def test_a_record_that_cannot_be_read(mail: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mailbox that is there works; one that is not might have been there, and an error is no empty mailbox."""
    make_maildir(mail / "bob")
    monkeypatch.setattr(seen_mailboxes.MailboxRecords, "load", lambda *_: _fail(errno.EIO))
    store = store_of(mail)
    assert await messages(store) == 3
    shutil.rmtree(mail / "alice")
    detail = await refused(store_of(mail))
    assert f"{mail / 'alice'} is missing; whether it was there before is not known: /the/state/folder: " in detail


async def test_a_folder_of_all_mailboxes_that_can_be_searched_but_not_listed(
    mail: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(mail)
    assert await messages(store) == 3
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: _fail(errno.EACCES) if path == str(mail) else scandir(path))
    assert await messages(store, BOB) == 0
    monkeypatch.setattr(os, "scandir", lambda path: _fail(errno.EIO) if path == str(mail) else scandir(path))
    await refused(store, BOB)


# --- its parts ---


@pytest.mark.parametrize(
    ("template", "root"),
    [
        ("/srv/mail/{user}", "/srv/mail"),
        ("/srv/mail/{domain}/{local}/Maildir", "/srv/mail"),
        ("/srv/mail/of-{user}", "/srv/mail"),
        ("/srv/{{mail}}/{user}", "/srv/{mail}"),
        ("/{user}", "/"),
        ("mail/{user}", "mail"),
        ("{user}", None),
        ("{home}/Maildir", None),
    ],
)
def test_the_folder_of_all_mailboxes_by_the_template(template: str, root: str | None) -> None:
    assert mailboxes_root(template) == root


def test_a_maildir_is_a_folder_with_new_or_cur(tmp_path: Path) -> None:
    assert not is_there(str(tmp_path / "alice"))
    (tmp_path / "alice").mkdir()
    assert not is_there(str(tmp_path / "alice"))
    (tmp_path / "alice" / "cur").mkdir()
    assert is_there(str(tmp_path / "alice"))
    (tmp_path / "file").write_text("")
    assert not is_there(str(tmp_path / "file"))


# --- as users and administrators see it ---


def login(site: Site) -> str:
    client = poplib.POP3_SSL("localhost", site.port, context=site.context(), timeout=30)
    try:
        client.user("alice")
        return client.pass_("secret").decode()
    except poplib.error_proto as refusal:
        return refusal.args[0].decode()
    finally:
        client.close()


def faults(site: Site) -> list[str]:
    return [one.text for one in findings(site.config) if one.fault]


def test_serve_check_and_deliver_while_the_volume_is_away(site: Site, run_pop3d) -> None:
    box = site.maildir("alice", {"new/1.host": b"x\n", "cur/2.host:2,S": b"x\n"})
    mail, unplugged = site.root / "mail", site.root / "unplugged"
    daemon = Daemon(site)
    try:
        assert login(site).startswith("+OK 2 messages")
        assert faults(site) == []
        mail.rename(unplugged)
        for _ in range(2):
            assert login(site).startswith("-ERR [SYS/TEMP] ")
            (fault,) = faults(site)
            assert fault.startswith(f"{mail}: it had mailboxes, and is missing or empty; mount its volume, or, ")
            done = run_pop3d("deliver", "alice", "--config", str(site.config), stdin="Subject: x\n\nx\n")
            assert (done.returncode, done.stdout) == (75, "")
            assert done.stderr.startswith(f"pop3d: this mailbox cannot be used now: {mail}: ")
            assert done.stderr.count("\n") == 1
            assert not mail.exists() or list(mail.iterdir()) == []
            mail.mkdir(exist_ok=True)  # and once more with an empty mount point
        mail.rmdir()
        unplugged.rename(mail)
        assert login(site).startswith("+OK 2 messages")
        assert faults(site) == []
        # one mailbox alone
        (mail / "bob").mkdir()
        box.rename(unplugged)
        (fault,) = faults(site)
        assert fault.startswith(f"{box}: it was there before and is missing; ")
        done = run_pop3d("deliver", "alice", "--config", str(site.config), stdin="Subject: x\n\nx\n")
        assert done.returncode == 75
        assert not box.exists()
        source = site.root / "source"
        source.write_text("From x\nSubject: x\n\nx\n")
        assert run_pop3d("import", "alice", str(source), "--config", str(site.config)).returncode == 75
        assert not box.exists()
    finally:
        assert daemon.end() == 0
    assert f"{mail}: it had mailboxes, and is missing or empty; mount its volume" in daemon.log


def test_delivery_into_a_new_site_makes_the_mailbox(site: Site, run_pop3d) -> None:
    done = run_pop3d("deliver", "alice", "--config", str(site.config), stdin="Subject: x\n\nx\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list((site.root / "mail" / "alice" / "new").iterdir())) == 1
    assert not (site.root / "state").exists()
