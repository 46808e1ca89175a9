"""The Maildir store on a real file system: its contract, the lock, paths, and nothing slow on the event loop."""

import asyncio
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pop3d.auth import Account
from pop3d.store_contract import ALICE, StoreContract, content
from pop3d.stores import MaildropBusy, ReadsNow, Store, StoreError
from pop3d.stores.maildir import nowait
from pop3d.stores.maildir.folders import open_folder
from pop3d.stores.maildir.paths import mailbox_path
from pop3d.stores.maildir.store import MaildirOptions, MaildirStore
from tests.maildirs import make_maildir


class TestContract(StoreContract):
    @pytest.fixture(autouse=True)
    def _root(self, tmp_path: Path) -> None:
        self.root = tmp_path

    async def make(self, messages: list[bytes]) -> Store:
        names = {f"{'cur' if at % 2 else 'new'}/{at:03}.M{at}.host{':2,S' if at % 2 else ''}": text
                 for at, text in enumerate(messages)}  # fmt: skip
        make_maildir(self.root / "alice", names)
        return MaildirStore(str(self.root / "{user}"), self.root / "state")


class TestContractWithoutThePageCache(TestContract):
    """The same with a system that cannot read without waiting: every large message comes through aiofiles."""

    @pytest.fixture(autouse=True)
    def _never_now(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nowait, "_RWF_NOWAIT", 0)


class TestContractWithoutOpeningAtOnce(TestContract):
    """The same with a system that cannot open without waiting: small messages are read ahead in a thread."""

    @pytest.fixture(autouse=True)
    def _never_now(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nowait, "_syscall", None)


async def test_new_mail_is_not_seen_and_not_touched(store: MaildirStore, box: Path) -> None:
    drop = await store.open(ALICE, utf8=False)
    (box / "new/0.before.host").write_bytes(b"new\n")
    assert [await content(drop, n) for n in (1, 2, 3)] == [b"one\r\n", b"two\r\n", b"three\r\n"]
    await drop.remove([1, 2, 3])
    await drop.close()
    assert [path.name for path in box.glob("*/*")] == ["0.before.host"]


# --- lock ---


async def test_the_lock_holds_against_other_processes_and_dies_with_them(store: MaildirStore, box: Path) -> None:
    code = (
        f"import fcntl, os; fd = os.open({str(box)!r}, os.O_RDONLY); fcntl.flock(fd, fcntl.LOCK_EX); print(1); input()"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdin is not None
    try:
        assert other.stdout.readline() == b"1\n"
        with pytest.raises(MaildropBusy):
            await store.open(ALICE, utf8=False)
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
        other.stdin.close()
    drop = await store.open(ALICE, utf8=False)
    descriptor = os.open(box, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    await drop.close()
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


async def test_nothing_of_ours_lies_in_a_maildir(store: MaildirStore, box: Path) -> None:
    before = sorted(box.rglob("*"))
    drop = await store.open(ALICE, utf8=False)
    await content(drop, 1)
    await drop.close()
    assert sorted(box.rglob("*")) == before


async def test_no_descriptor_is_left_open(store: MaildirStore, box: Path) -> None:
    async def session() -> None:
        drop = await store.open(ALICE, utf8=False)
        assert isinstance(drop, ReadsNow)
        await drop.read(1, 0)
        with pytest.raises(MaildropBusy):
            await store.open(ALICE, utf8=False)
        await drop.remove([])
        await drop.close()

    await session()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        await session()
    assert len(os.listdir("/proc/self/fd")) == before


# --- names and paths ---


@pytest.mark.parametrize("name", ["../bob", "a/b", "..", ".", "", ".hidden", "nul\0", "new\nline", "a:b", "sp ace"])
async def test_a_name_never_reaches_a_path(store: MaildirStore, tmp_path: Path, name: str) -> None:
    (tmp_path / "mail" / "x").mkdir(parents=True)
    with pytest.raises(StoreError) as caught:
        await store.open(Account(name), utf8=False)
    assert caught.value.code == "SYS/PERM"


@pytest.mark.parametrize("template", ["/m/{local}", "/m/{domain}/{local}"])
def test_a_name_without_a_local_part_is_no_path(template: str) -> None:
    with pytest.raises(StoreError):
        mailbox_path(template, Account("@example.org"))
    assert mailbox_path("/m/{user}", Account("@example.org")) == "/m/@example.org"


def test_templates_of_mailbox_paths_are_filled_in() -> None:
    account = Account("alice@example.org", home="/home/alice")
    assert mailbox_path("/m/{domain}/{local}", account) == "/m/example.org/alice"
    assert mailbox_path("/m/{user}", account) == "/m/alice@example.org"
    assert mailbox_path("{home}/Maildir", account) == "/home/alice/Maildir"
    for template, who in (("{home}/Maildir", Account("bob")), ("/m/{domain}", Account("bob")),
                          ("/m/{domain}", Account("bob@.."))):  # fmt: skip
        with pytest.raises(StoreError):
            mailbox_path(template, who)


# --- off the event loop ---


async def test_nothing_that_may_wait_for_a_disk_is_called_on_the_event_loop(
    box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for reads that never wait, and closing what was only read."""
    (box / "new/4.large").write_bytes(b"x" * 300_000)
    called: set[str] = set()
    on_the_loop: list[str] = []
    options = MaildirOptions(mark_seen=True, deleted=str(tmp_path / "deleted" / "{user}"), retention_days=1)
    store = MaildirStore(str(tmp_path / "mail" / "{user}"), tmp_path / "state", options)

    def watch(patch: pytest.MonkeyPatch, module: object, name: str) -> None:
        real = getattr(module, name)

        def watched(*args: object, **kwargs: object) -> object:
            called.add(name)
            if threading.current_thread() is threading.main_thread():
                on_the_loop.append(name)
            return real(*args, **kwargs)

        patch.setattr(module, name, watched)

    async def session(*, wrong: bool) -> None:
        drop = await store.open(ALICE, utf8=False)
        for number in range(1, len(drop.messages) + 1):
            await content(drop, number)
            drop.retrieved(number)
        drop._wrong_size = wrong
        await drop.remove([2])
        await drop.close()

    with monkeypatch.context() as patch:
        for name in ("open", "read", "pread", "fstat", "stat", "scandir", "unlink", "rename", "replace", "link",
                     "fsync", "mkdir", "listdir"):  # fmt: skip
            watch(patch, os, name)
        watch(patch, fcntl, "flock")
        await session(wrong=False)
        await session(wrong=True)
    assert on_the_loop == []
    assert called >= {"open", "read", "pread", "fstat", "scandir", "unlink", "link", "fsync", "flock"}


async def test_a_hanging_disk_holds_one_thread_and_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for user in ("alice", "bob"):
        make_maildir(tmp_path / user, {"new/1.host": b"text\n"})
    store, hung = MaildirStore(str(tmp_path / "{user}")), threading.Event()

    def hanging(path: str) -> int:
        if path == str(tmp_path / "alice"):
            hung.wait(60)  # a thread of the pool
        return open_folder(path)

    monkeypatch.setattr("pop3d.stores.maildir.store.open_folder", hanging)
    logins = [asyncio.ensure_future(store.open(ALICE, utf8=False)) for _ in range(200)]
    refused, _ = await asyncio.wait(logins[1:])  # while the first one hangs
    assert all(isinstance(login.exception(), MaildropBusy) for login in refused)
    drop = await store.open(Account("bob"), utf8=False)
    assert await content(drop, 1) == b"text\r\n"
    await drop.close()
    assert not logins[0].done()
    hung.set()
    drop = await logins[0]
    await drop.close()
    await (await store.open(ALICE, utf8=False)).close()
