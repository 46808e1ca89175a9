"""Delivery: `pop3d deliver`, `import` and `undelete` as processes; and every file operation failing in turn."""

import errno
import fcntl
import functools
import io
import itertools
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3core.framing import CrlfNormalizer
from pop3d.auth import Account
from pop3d.commands import deliver as commands
from pop3d.errors import CommandError
from pop3d.store_contract import MESSAGES, content
from pop3d.stores import mbox
from pop3d.stores.maildir.delivery import deliver
from pop3d.stores.maildir.store import MaildirOptions, MaildirStore
from pop3d.stores.quota import OverQuota, Quota
from tests.packed import PACKERS


def sent(stored: bytes) -> bytes:
    text = CrlfNormalizer()
    return text.feed(stored) + text.finish()


def files(box: Path) -> list[str]:
    return sorted(path.relative_to(box).as_posix() for path in box.glob("*/*"))


# --- one message ---


@pytest.mark.parametrize("stored", [stored for stored, _ in MESSAGES], ids=lambda stored: repr(stored[:20]))
async def test_what_is_delivered_is_served_with_the_size_its_name_says(tmp_path: Path, stored: bytes) -> None:
    name = deliver(str(tmp_path / "alice"), [stored[:5], stored[5:]])
    assert name.startswith(b"new/")
    assert name.endswith(b",S=%d,W=%d" % (len(stored), len(sent(stored))))
    assert files(tmp_path / "alice") == [name.decode()]
    for believe in (False, True):
        store = MaildirStore(str(tmp_path / "{user}"), None, MaildirOptions(sizes_in_names=believe))
        drop = await store.open(Account("alice"), utf8=False)
        assert list(drop.messages.sizes) == [len(sent(stored))]
        assert await content(drop, 1) == sent(stored)
        await drop.close()


def test_names_never_come_again_and_flags_go_to_cur(tmp_path: Path) -> None:
    names = {deliver(str(tmp_path), [b"x\n"]) for _ in range(20)}
    assert len(names) == 20
    assert deliver(str(tmp_path), [b"x\n"], flags="SR").endswith(b",S=2,W=3:2,RS")
    assert len(files(tmp_path)) == 21
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()} == {0o600}


def test_quota(tmp_path: Path) -> None:
    for quota in (Quota(octets=10), Quota(messages=2)):
        box = tmp_path / str(quota.messages)
        deliver(str(box), [b"12345"], quota)
        deliver(str(box), [b"12345"], quota)
        before = files(box)
        with pytest.raises(OverQuota, match="full"):
            deliver(str(box), [b"1"], quota)
        assert files(box) == before


def test_what_died_long_ago_is_removed_from_tmp(tmp_path: Path) -> None:
    deliver(str(tmp_path), [b"x"])
    for name, hours in (("old", 37), ("fresh", 35)):
        (tmp_path / "tmp" / name).write_bytes(b"")
        os.utime(tmp_path / "tmp" / name, (time.time() - hours * 3600,) * 2)
    deliver(str(tmp_path), [b"x"])
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == ["fresh"]


@pytest.mark.parametrize("folder", ["tmp", "new", "cur"])
@pytest.mark.parametrize("flags", [None, "S"])
@pytest.mark.parametrize("instead", ["relative link", "absolute link", "dangling link", "file"])
def test_no_link_in_place_of_a_folder_is_followed(tmp_path: Path, folder: str, flags: str | None, instead: str) -> None:
    """It could lead into another's mailbox: mail would go there, and what is old there would be removed."""
    bob = tmp_path / "bob"
    for name in ("tmp", "new", "cur"):
        (bob / name).mkdir(parents=True)
        (bob / name / "1.old").write_bytes(b"old mail of bob\n")
        os.utime(bob / name / "1.old", (time.time() - 40 * 3600,) * 2)
    mallory = tmp_path / "mallory"
    deliver(str(mallory), [b"x\n"], flags="S")
    (mallory / "cur" / "dead").write_bytes(b"")
    place = mallory / folder
    for path in place.iterdir():
        path.unlink()
    place.rmdir()
    if instead == "file":
        place.write_bytes(b"")
    else:
        target = "none" if instead == "dangling link" else f"bob/{folder}"
        place.symlink_to(tmp_path / target if instead == "absolute link" else f"../{target}")
    before = files(bob), files(mallory)
    with pytest.raises(NotADirectoryError, match="/ is not a folder of its own") as caught:
        deliver(str(mallory), [b"Subject: innocent\n\nx\n"], Quota(messages=100), flags=flags)
    assert caught.value.filename == str(mallory)
    assert (files(bob), files(mallory)) == before


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_a_new_mailbox_is_its_owners_alone_and_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    synced = set()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        synced.add(os.path.realpath(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(os, "fsync", fsync)
    box = tmp_path / "example.org" / "alice"
    before = os.umask(umask)
    try:
        deliver(str(box), [b"x\n"])
    finally:
        os.umask(before)
    made = [box.parent, box, *(box / name for name in ("tmp", "new", "cur"))]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in made} == {0o700}
    assert {str(folder) for folder in (tmp_path, box.parent, box, box / "new")} <= synced


@pytest.mark.skipif(os.geteuid() != 0, reason="makes files of other users, which takes root")
def test_a_mailbox_that_is_a_link_to_another_users(tmp_path: Path) -> None:
    deliver(str(tmp_path / "bob"), [b"x\n"])
    before = files(tmp_path / "bob")
    (tmp_path / "mallory").symlink_to("bob")
    os.chown(tmp_path / "mallory", 60_001, 60_001, follow_symlinks=False)
    os.chown(tmp_path / "bob", 60_002, 60_002)
    with pytest.raises(PermissionError, match="somebody else's folder"):
        deliver(str(tmp_path / "mallory"), [b"x\n"])
    assert files(tmp_path / "bob") == before
    os.chown(tmp_path / "mallory", 0, 0, follow_symlinks=False)
    deliver(str(tmp_path / "mallory"), [b"x\n"])
    assert len(files(tmp_path / "bob")) == 2


OPERATIONS = ("open", "write", "fsync", "link", "unlink", "mkdir", "scandir", "close", "stat", "fstat", "rmdir")


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_whatever_fails_a_message_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The n-th call of any file operation fails, for every n; then it is tried again, as an MTA does."""
    stored = b"Subject: x\n\n" + b"body\n" * 1000
    for failing in itertools.count(1):
        box = tmp_path / str(failing)
        calls = 0
        failed: list[str] = []

        def failing_at(real, failing: int = failing, failed: list[str] = failed):
            def called(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls == failing:
                    failed.append(real.__name__)
                    if real is CLOSE:
                        real(*args, **kwargs)  # a close that fails has closed all the same
                    raise OSError(number, os.strerror(number))
                return real(*args, **kwargs)

            return called

        delivered = True
        with monkeypatch.context() as patch:
            for name in OPERATIONS:
                patch.setattr(os, name, failing_at(getattr(os, name)))
            try:
                deliver(str(box), [stored[:100], stored[100:]], Quota(octets=1_000_000))
            except OSError:
                delivered = False
        whole = [path for path in box.glob("[nc]*/*") if path.read_bytes() == stored]
        if delivered:
            assert len(whole) == 1, f"failing call {failing}"
        assert len(list(box.glob("[nc]*/*"))) == len(whole), f"a torn message; failing call {failing}"
        if not delivered:
            # one that is there although it was refused would come twice
            assert whole == [] or failed == ["close"], f"failing call {failing}: {failed}"
            deliver(str(box), [stored])
        if calls < failing:
            break
    assert failing > 15


CLOSE = os.close


# --- mbox ---

LINES = st.sampled_from(["From x", ">From x", ">>From x", "", "body", "Subject: y", " From z"])


@given(st.lists(st.lists(LINES, min_size=1, max_size=6), max_size=5))
def test_what_is_written_as_mboxrd_is_read_back(texts: list[list[str]]) -> None:
    written = ""
    for lines in texts:
        quoted = [f">{line}" if line.lstrip(">").startswith("From ") else line for line in lines]
        written += "\n".join(["From alice@example.org Mon Nov 23 10:00:00 2026", *quoted]) + "\n\n"
    got = [b"".join(message).decode() for message in mbox.messages(io.BytesIO(written.encode()))]
    assert got == ["\n".join(lines) + "\n" for lines in texts]


def test_mbox_of_long_lines_and_crlf() -> None:
    text = b"From a\r\nSubject: x\r\n\r\n" + b"y" * 200_000 + b"\r\n\r\nFrom b\r\n"
    assert [b"".join(message) for message in mbox.messages(io.BytesIO(text))] == [
        b"Subject: x\r\n\r\n" + b"y" * 200_000 + b"\r\n",
        b"",
    ]
    with pytest.raises(ValueError, match="From"):
        list(mbox.messages(io.BytesIO(b"Subject: x\n")))
    assert list(mbox.messages(io.BytesIO(b""))) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"From a b\nSubject: x\n\nbody\n", b"Subject: x\n\nbody\n"),
        (b"From: a\n\nFrom b\n", b"From: a\n\nFrom b\n"),
        (b"From " + b"x" * 200_000 + b"\nTo: y\n", b"To: y\n"),
        (b"From a", b""),
        (b"", b""),
    ],
)
def test_the_from_line_of_an_mta_is_dropped(text: bytes, expected: bytes) -> None:
    assert b"".join(mbox.without_from_line(io.BytesIO(text))) == expected


# --- the command lines ---


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "pop3d.toml").write_text(
        'state = "state"\n[[listen]]\nhost = "127.0.0.1"\nport = 0\ntls = "none"\n'
        '[store]\npath = "mail/{user}"\nquota_messages = 4\ndeleted = "deleted/{user}"\n'
    )
    (tmp_path / "users").write_text("alice:{PLAIN}secret\n")
    return tmp_path


def run(site: Path, *arguments: str | Path, stdin: bytes = b"") -> tuple[int, str, str]:
    command = [sys.executable, "-m", "pop3d", *arguments, "--config", site / "pop3d.toml"]
    result = subprocess.run(command, input=stdin, capture_output=True, timeout=60)
    return result.returncode, result.stdout.decode(), result.stderr.decode()


def test_deliver(site: Path) -> None:
    assert run(site, "deliver", "alice", stdin=b"From x\nSubject: y\n\nbody") == (0, "", "")
    (path,) = (site / "mail" / "alice" / "new").iterdir()
    assert path.read_bytes() == b"Subject: y\n\nbody"
    assert path.name.endswith(",S=16,W=20")
    code, _, said = run(site, "deliver", "nobody", stdin=b"x")
    assert (code, said) == (67, "pop3d: no such user: 'nobody'; `pop3d user add` makes one\n")
    for _ in range(3):
        assert run(site, "deliver", "alice", stdin=b"x\n")[0] == 0
    code, _, said = run(site, "deliver", "alice", stdin=b"x\n")
    assert (code, said) == (75, "pop3d: not delivered: the mailbox is full: 4 of 4 messages; try again later\n")


def test_deliver_where_it_cannot_be(site: Path) -> None:
    (site / "mail").write_bytes(b"in the way")
    code, _, said = run(site, "deliver", "alice", stdin=b"x\n")
    assert code == 75
    assert said.count("\n") == 1
    (site / "mail").unlink()
    (site / "mail" / "alice").mkdir(parents=True)
    (site / "mail" / "alice" / "tmp").symlink_to("/tmp")
    code, _, said = run(site, "deliver", "alice", stdin=b"x\n")
    assert code == 75
    assert said.startswith(
        f"pop3d: not delivered: {site / 'mail/alice'}: tmp/ is not a folder of its own, but a file or a"
    )
    assert said.endswith("; try again later\n")
    assert said.count("\n") == 1
    (site / "pop3d.toml").write_text("nonsense")
    assert run(site, "deliver", "alice")[0] == 78


def test_a_delivery_that_is_killed_leaves_nothing_in_new(site: Path) -> None:
    command = [sys.executable, "-m", "pop3d", "deliver", "alice", "--config", site / "pop3d.toml"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"Subject: x\n" + b"y" * 1_000_000)
        process.stdin.flush()
        deadline = time.monotonic() + 30
        while not list(site.glob("mail/alice/tmp/*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert list(site.glob("mail/alice/tmp/*"))
    assert not list(site.glob("mail/alice/[nc]*/*"))


def test_import_an_mbox(site: Path) -> None:
    (site / "box").write_bytes(b"From a\nSubject: 1\n\n>From x\n\nFrom b\nSubject: 2\n\ny\n")
    code, said, _ = run(site, "import", "alice", site / "box")
    assert (code, said) == (0, "imported 2 messages for alice\n")
    texts = sorted(path.read_bytes() for path in site.glob("mail/alice/new/*"))
    assert texts == [b"Subject: 1\n\nFrom x\n", b"Subject: 2\n\ny\n"]
    run(site, "import", "alice", site / "box")
    code, _, said = run(site, "import", "alice", site / "box")
    assert code == 75
    assert "mailbox is full" in said


def test_import_a_maildir(site: Path) -> None:
    source = site / "old"
    for folder in ("cur", "new"):
        (source / folder).mkdir(parents=True)
    (source / "cur" / "1.host:2,RS").write_bytes(b"one\n")
    (source / "new" / "2.host").write_bytes(b"two\n")
    (source / "new" / "3.link").symlink_to("/etc/passwd")
    code, said, errors = run(site, "import", "alice", source)
    assert (code, said) == (1, "imported 2 messages for alice, 1 were not\n")
    assert "3.link: not a regular file" in errors
    assert [path.read_bytes() for path in site.glob("mail/alice/cur/*:2,RS")] == [b"one\n"]
    assert [path.read_bytes() for path in site.glob("mail/alice/new/*")] == [b"two\n"]


def test_import_unpacks_what_another_server_compressed(site: Path) -> None:
    texts = [b"Subject: %d\n\n" % number + b"body\n" * 50_000 for number in range(len(PACKERS))]
    whole = PACKERS["gzip"](texts[0])
    box = {
        f"cur/{at}.host:2,SZ": pack(text) for at, (pack, text) in enumerate(zip(PACKERS.values(), texts, strict=True))
    }
    box |= {"cur/7.host:2,Z": whole[:-50], "new/8.host": b"CRYPTED\x03\x07" + bytes(50)}
    for name, octets in box.items():
        (site / "old" / name).parent.mkdir(parents=True, exist_ok=True)
        (site / "old" / name).write_bytes(octets)
    change = (site / "pop3d.toml").read_text().replace("quota_messages = 4", "quota_messages = 9")
    (site / "pop3d.toml").write_text(change)
    code, said, errors = run(site, "import", "alice", site / "old")
    assert (code, said) == (1, "imported 5 messages for alice, 2 were not\n")
    assert "7.host:2,Z: its compressed octets (gzip) are truncated; restore" in errors
    assert "8.host: it is encrypted by Dovecot (mail_crypt); " in errors
    assert sorted(path.read_bytes() for path in site.glob("mail/alice/cur/*:2,S")) == texts
    assert not list(site.glob("mail/alice/new/*")) + list(site.glob("mail/alice/tmp/*"))


def test_import_follows_no_link_in_a_maildir(site: Path) -> None:
    """Whoever runs it may read more than the Maildir's owner."""
    source, others = site / "old", site / "others"
    (source / "new").mkdir(parents=True)
    (source / "new" / "1.host").write_bytes(b"one\n")
    others.mkdir()
    (others / "2.host").write_bytes(b"somebody else's\n")
    (source / "cur").symlink_to(others)
    code, _, said = run(site, "import", "alice", source)
    assert code == 65
    assert said.startswith(f"pop3d: {source}: cur/ is not a folder of its own, but a file or a symbolic link; name an")
    assert said.count("\n") == 1
    assert not (site / "mail").exists()
    (source / "cur").unlink()
    assert run(site, "import", "alice", source)[:2] == (0, "imported 1 messages for alice\n")


@pytest.mark.parametrize(("make", "words"), [(None, "name an mbox file or a Maildir"), ("dir", "no Maildir"),
                                             ("file", 'it does not begin with "From "')])  # fmt: skip
def test_import_of_what_is_none(site: Path, make: str | None, words: str) -> None:
    if make == "dir":
        (site / "source").mkdir()
    elif make == "file":
        (site / "source").write_bytes(b"Subject: x\n")
    code, _, said = run(site, "import", "alice", site / "source")
    assert code == 65
    assert words in said


def test_undelete(site: Path) -> None:
    assert run(site, "undelete", "alice") == (0, "brought back 0 messages for alice\n", "")
    kept = site / "deleted" / "alice" / "cur"
    kept.mkdir(parents=True)
    (kept / "1.host").write_bytes(b"x\n")
    assert run(site, "undelete", "alice") == (0, "brought back 1 messages for alice\n", "")
    assert files(site / "mail" / "alice") == ["new/1.host"]


def test_undelete_tells_what_it_could_not_bring_back(site: Path) -> None:
    kept, home = site / "deleted" / "alice" / "cur", site / "mail" / "alice" / "new"
    for folder in (kept, home):
        folder.mkdir(parents=True)
    too_long = "1," + "x" * 250  # no room for another unique part
    (kept / too_long).write_bytes(b"one\n")
    (home / "1").write_bytes(b"another\n")
    (kept / "2.host").write_bytes(b"two\n")
    code, said, errors = run(site, "undelete", "alice")
    assert (code, said) == (1, "brought back 1 messages for alice, 1 were not\n")
    assert errors == f"pop3d: not brought back: '{too_long}': File name too long\n"
    assert files(site / "mail" / "alice") == ["new/1", "new/2.host"]
    assert [path.name for path in kept.iterdir()] == [too_long]
    shutil.rmtree(kept)
    kept.symlink_to("/tmp")
    code, said, errors = run(site, "undelete", "alice")
    assert (code, said) == (74, "")
    assert errors.startswith(f"pop3d: not brought back: {kept.parent}: cur/ is not a folder of its own")


def test_undelete_beside_a_session(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, home = site / "deleted" / "alice" / "cur", site / "mail" / "alice"
    for folder in (kept, home):
        folder.mkdir(parents=True)
    session = os.open(home, os.O_RDONLY)
    fcntl.flock(session, fcntl.LOCK_EX)
    monkeypatch.setattr(commands, "put_back", functools.partial(commands.put_back, patience=0))
    try:
        with pytest.raises(CommandError, match="a session has the mailbox open; try again later") as caught:
            commands.undelete("alice", site / "pop3d.toml")
    finally:
        os.close(session)
    assert caught.value.status == 75


def test_pieces_of_any_size(tmp_path: Path) -> None:
    def pieces() -> Iterable[bytes]:
        yield from (b"", b"a\r", b"\n", b"b")

    assert deliver(str(tmp_path), pieces()).endswith(b",S=4,W=6")
