"""The Maildir store on a real file system: exactness, identity, the lock, and other programs at work meanwhile."""

import asyncio
import errno
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3core.downgrade import Downgrader
from pop3core.maildrop import Listing
from pop3d.auth import Account
from pop3d.store_contract import ALICE, StoreContract, content
from pop3d.stores import MaildropBusy, ReadsNow, RemovalFailed, Store, StoreError
from pop3d.stores.maildir import memory_cache as recent
from pop3d.stores.maildir import names as maildir_names
from pop3d.stores.maildir import nowait
from pop3d.stores.maildir import scan as maildir_listing
from pop3d.stores.maildir.deleted import PutBackResult, put_back
from pop3d.stores.maildir.disk_cache import KeptListing
from pop3d.stores.maildir.folders import open_folder
from pop3d.stores.maildir.names import name_and_inode, sorted_in_slices, unique_part
from pop3d.stores.maildir.scan import Scan, scan
from pop3d.stores.maildir.store import MaildirMaildrop, MaildirOptions, MaildirStore, mailbox_path
from pop3d.stores.threads import hop
from tests.maildirs import LONG, NONE, TICK, grain, make_maildir


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


async def test_a_file_that_left_the_page_cache_is_read_all_the_same(tmp_path: Path) -> None:
    text = os.urandom(3_000_000).replace(b"\n", b"x").replace(b"\r", b"x") + b"\n"
    path = make_maildir(tmp_path / "alice", {"new/1.host": text}) / "new/1.host"
    store = MaildirStore(str(tmp_path / "{user}"))
    drop = await store.open(ALICE, utf8=False)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert await content(drop, 1) == text[:-1] + b"\r\n"
    await drop.close()


# --- order and identity ---


async def test_sorted_by_arrival_over_both_folders(store: MaildirStore, box: Path) -> None:
    drop = await store.open(ALICE, utf8=False)
    assert list(drop.messages.uids) == [b"1.one.host", b"2.two.host", b"3.three.host"]
    await drop.close()


@pytest.mark.parametrize(
    ("name", "unique"),
    [
        (b"cur/1.M2P3.host:2,S", b"1.M2P3.host"),
        (b"new/1.M2P3.host", b"1.M2P3.host"),
        (b"cur/1.host,S=12,W=14:2,", b"1.host"),
        (b"cur/:2,S", b":2,S"),
    ],
)
def test_unique_part(name: bytes, unique: bytes) -> None:
    assert unique_part(name) == unique


async def test_a_unique_id_outlives_flags_folders_and_size_fields(store: MaildirStore, box: Path) -> None:
    drop = await store.open(ALICE, utf8=False)
    before = list(drop.messages.uids)
    await drop.close()
    os.rename(box / "new/3.three.host", box / "cur/3.three.host,S=6,W=7:2,RS")
    drop = await store.open(ALICE, utf8=False)
    assert list(drop.messages.uids) == before
    await drop.close()


@pytest.mark.parametrize("name", ["x" * 71, "blank in it", "gr\u00fc\u00df", "tab\tin it", "new\nline", "r\rr"])
async def test_an_unprintable_or_long_name_gets_a_hash_as_its_unique_id(
    store: MaildirStore, tmp_path: Path, name: str
) -> None:
    make_maildir(tmp_path / "mail/alice", {f"new/{name}": b"text\n"})
    uids = []
    for _ in range(2):
        drop = await store.open(ALICE, utf8=False)
        uids.append(drop.messages.uids[0])
        assert drop.messages.sizes[0] == 6
        await drop.close()
    assert uids[0] == uids[1]
    assert len(uids[0]) == 64


async def test_files_with_the_same_unique_part_are_told_apart(
    store: MaildirStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = {"cur/1.host:2,S": b"longer one\n", "new/1.host": b"two\n", "cur/1.host:2,": b"two\n"}
    box = make_maildir(tmp_path / "mail/alice", names)
    for age, name in enumerate(names):
        os.utime(box / name, (age, age))
    seen = []
    for _ in range(2):
        drop = await store.open(ALICE, utf8=False)
        seen.append(list(drop.messages.uids))
        assert [await content(drop, n) for n in (1, 2, 3)] == [b"longer one\r\n", b"two\r\n", b"two\r\n"]
        assert list(drop.messages.sizes) == [12, 5, 5]
        await drop.close()
    assert seen[0] == seen[1]
    assert seen[0][0] == b"1.host"
    assert len(set(seen[0])) == 3
    assert "same unique part" in caplog.text


# --- surrogates ---


async def test_who_did_not_say_utf8_gets_surrogates_of_their_size(tmp_path: Path) -> None:
    stored = "Subject: Grüße\nX-Ü: dropped\n\nbody é\n".encode() + b"x" * 200_000
    plain = b"Subject: one\n\n\xff\n"
    make_maildir(tmp_path / "alice", {"new/1.host": stored, "new/2.host": plain})
    store = MaildirStore(str(tmp_path / "{user}"), tmp_path / "state", MaildirOptions(utf8_downgrade=True))
    text = Downgrader()
    surrogate = text.feed(stored) + text.finish()
    as_stored = stored.replace(b"\n", b"\r\n") + b"\r\n"
    assert surrogate != as_stored
    for _ in range(2):  # the second time from the caches
        for utf8, expected in ((False, surrogate), (True, as_stored)):
            drop = await store.open(ALICE, utf8=utf8)
            assert [await content(drop, 1), await content(drop, 2)] == [expected, plain.replace(b"\n", b"\r\n")]
            assert list(drop.messages.sizes) == [len(expected), len(plain) + 3]
            await drop.close()
    assert len(list((tmp_path / "state" / "cache" / "listings").iterdir())) == 2


async def test_a_message_whose_header_is_left_out_is_an_empty_one(tmp_path: Path) -> None:
    make_maildir(tmp_path / "alice", {"new/1.host": "Ü: x\n".encode() * 30_000})
    store = MaildirStore(str(tmp_path / "{user}"), None, MaildirOptions(utf8_downgrade=True))
    drop = await store.open(ALICE, utf8=False)
    assert list(drop.messages.sizes) == [0]
    assert await content(drop, 1) == b""
    await drop.close()


# --- what is no message ---


async def test_only_regular_files_are_messages(store: MaildirStore, box: Path) -> None:
    os.mkfifo(box / "new/0.fifo")
    (box / "new/0.folder").mkdir()
    (box / "new/0.link").symlink_to("/etc/passwd")
    (box / "new/.hidden").write_bytes(b"x")
    drop = await store.open(ALICE, utf8=False)
    assert len(drop.messages) == 3
    await drop.close()


async def test_a_file_exchanged_for_a_fifo_or_a_link_fails_and_hangs_nothing(store: MaildirStore, box: Path) -> None:
    drop = await store.open(ALICE, utf8=False)
    os.unlink(box / "cur/1.one.host:2,S")
    os.mkfifo(box / "cur/1.one.host:2,S")
    os.unlink(box / "new/3.three.host")
    (box / "new/3.three.host").symlink_to("/etc/passwd")
    for number in (1, 3):
        with pytest.raises(StoreError):
            await asyncio.wait_for(content(drop, number), 5)
    assert await content(drop, 2) == b"two\r\n"
    await drop.close()


async def test_a_file_that_cannot_be_read_stays_listed_and_is_an_error(
    store: MaildirStore, box: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client forgets an id that is not listed, and fetches the message again when it can be read again."""
    opened = os.open

    def failing(path: bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == b"3.three.host":
            raise OSError(errno.EIO, "Input/output error")
        return opened(path, flags, mode, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing)
        drop = await store.open(ALICE, utf8=False)
        assert (list(drop.messages.uids), drop.messages.sizes[2]) == (
            [b"1.one.host", b"2.two.host", b"3.three.host"],
            6,
        )
        with pytest.raises(StoreError, match="cannot be read"):
            await drop.read(3, 0)
        await drop.close()
    assert "3.three.host' cannot be read" in caplog.text
    drop = await store.open(ALICE, utf8=False)
    assert drop.messages.sizes[2] == 7
    await drop.close()


# --- trouble is never an empty mailbox ---


async def test_no_maildir_is_an_empty_mailbox_and_none_is_made(store: MaildirStore, tmp_path: Path) -> None:
    drop = await store.open(ALICE, utf8=False)
    assert len(drop.messages) == 0
    await drop.close()
    assert not (tmp_path / "mail").exists()


async def test_a_maildir_without_new_or_cur_is_empty(store: MaildirStore, tmp_path: Path) -> None:
    (tmp_path / "mail/alice").mkdir(parents=True)
    drop = await store.open(ALICE, utf8=False)
    assert len(drop.messages) == 0
    await drop.close()


async def test_a_folder_that_cannot_be_listed_is_an_error(store: MaildirStore, box: Path) -> None:
    os.rename(box / "cur", box / "elsewhere")
    (box / "cur").symlink_to(box / "elsewhere")
    with pytest.raises(StoreError) as caught:
        await store.open(ALICE, utf8=False)
    assert caught.value.code == "SYS/TEMP"
    (box / "cur").unlink()
    os.rename(box / "elsewhere", box / "cur")
    drop = await store.open(ALICE, utf8=False)  # and the lock was freed
    assert len(drop.messages) == 3
    await drop.close()


# --- other programs at work ---


async def test_new_mail_is_not_seen_and_not_touched(store: MaildirStore, box: Path) -> None:
    drop = await store.open(ALICE, utf8=False)
    (box / "new/0.before.host").write_bytes(b"new\n")
    assert [await content(drop, n) for n in (1, 2, 3)] == [b"one\r\n", b"two\r\n", b"three\r\n"]
    await drop.remove([1, 2, 3])
    await drop.close()
    assert [path.name for path in box.glob("*/*")] == ["0.before.host"]


async def test_a_renamed_message_is_found_again(store: MaildirStore, box: Path) -> None:
    drop = await store.open(ALICE, utf8=False)
    os.rename(box / "new/3.three.host", box / "cur/3.three.host:2,RS")
    os.rename(box / "cur/1.one.host:2,S", box / "cur/1.one.host:2,FS")
    assert await content(drop, 3) == b"three\r\n"
    await drop.remove([1, 3])
    await drop.close()
    assert [path.name for path in box.glob("*/*")] == ["2.two.host,S=4:2,"]


async def test_a_message_renamed_while_its_folder_is_read_is_seen(
    store: MaildirStore, box: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first reading sees neither name, or both; the second one may miss another."""
    whole = maildir_names.entries_of
    readings = []

    def reading(root: int) -> list[bytes]:
        names = list(whole(root))
        readings.append(names)
        if len(readings) == 1:
            os.rename(box / "cur/1.one.host:2,S", box / "cur/1.one.host:2,FS")
            os.rename(box / "new/3.three.host", box / "cur/3.three.host:2,")
            (three,) = (name_and_inode(name)[1] for name in names if b"3.three" in name)
            return [name for name in names if b"1.one" not in name] + [b"cur/3.three.host:2,:\0%x" % three]
        return [name for name in names if b"2.two" not in name]

    monkeypatch.setattr(maildir_names, "entries_of", reading)
    drop = await store.open(ALICE, utf8=False)
    assert list(drop.messages.uids) == [b"1.one.host", b"2.two.host", b"3.three.host"]
    assert len(readings) == 2
    await drop.close()
    assert "same unique part" not in caplog.text


async def test_a_message_renamed_before_it_is_counted_is_seen(
    store: MaildirStore, box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = maildir_listing.octets_sent
    renamed = []

    def counting(descriptor: int, **ways: bool) -> int:
        if not renamed:
            renamed.append(descriptor)
            os.rename(box / "new/3.three.host", box / "cur/3.three.host:2,S")
            os.unlink(box / "cur/2.two.host,S=4:2,")
        return count(descriptor, **ways)

    monkeypatch.setattr(maildir_listing, "octets_sent", counting)
    drop = await store.open(ALICE, utf8=False)
    assert list(drop.messages.uids) == [b"1.one.host", b"3.three.host"]
    assert await content(drop, 2) == b"three\r\n"
    await drop.close()


async def test_a_message_that_vanished_is_an_error_and_removes_well(store: MaildirStore, box: Path) -> None:
    drop = await store.open(ALICE, utf8=False)
    os.unlink(box / "new/3.three.host")
    with pytest.raises(StoreError) as caught:
        await content(drop, 3)
    assert caught.value.code is None
    assert await content(drop, 1) == b"one\r\n"
    await drop.remove([3])
    await drop.close()


async def test_a_file_changed_in_place_is_sent_as_it_is_and_counted_anew(
    store: MaildirStore, box: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drop = await store.open(ALICE, utf8=False)
    (box / "new/3.three.host").write_bytes(b"three and more\n")
    assert await content(drop, 3) == b"three and more\r\n"
    await drop.close()
    assert "changed in place" in caplog.text
    drop = await store.open(ALICE, utf8=False)
    assert drop.messages.sizes[2] == 16
    await drop.close()


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


# --- removal tells the truth ---


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ENOSPC, errno.EACCES, errno.EPERM])
async def test_what_cannot_be_unlinked_is_named(
    store: MaildirStore, box: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    drop = await store.open(ALICE, utf8=False)
    unlink = os.unlink

    def failing(path: bytes, *, dir_fd: int | None = None) -> None:
        if b"two" in path:
            raise OSError(number, os.strerror(number))
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", failing)
    with pytest.raises(RemovalFailed) as caught:
        await drop.remove([1, 2, 3])
    assert list(caught.value.left) == [2]
    await drop.close()
    assert [path.name for path in box.glob("*/*")] == ["2.two.host,S=4:2,"]


async def test_a_failed_sync_is_a_failed_removal(
    store: MaildirStore, box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop = await store.open(ALICE, utf8=False)

    def failing(_descriptor: int) -> None:
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(RemovalFailed) as caught:
        await drop.remove([1])
    assert list(caught.value.left) == [1]
    await drop.close()


async def test_folders_are_synced_before_a_removal_is_confirmed(
    store: MaildirStore, box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))

    drop = await store.open(ALICE, utf8=False)
    monkeypatch.setattr(os, "fsync", noting)
    await drop.remove([1, 2, 3])
    assert sorted(synced) == ["cur", "new"]
    await drop.close()


# --- what is kept in the state folder ---


def sizes_kept(tmp_path: Path, box: Path) -> list[tuple[bytes, int]]:
    kept = KeptListing(tmp_path / "state" / "cache", str(box)).load()
    if kept is None:
        return []
    inodes = {path.name.partition(":")[0].encode(): path.stat().st_ino for path in box.glob("[nc]*/*")}
    assert [(name, inode) for name, inode, _ in kept.scan.sizes()] == sorted(inodes.items())
    return [(name, octets) for name, _, octets in kept.scan.sizes()]


async def test_sizes_are_counted_once(store: MaildirStore, box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drop = await store.open(ALICE, utf8=False)
    await drop.close()
    counted = []
    monkeypatch.setattr(maildir_listing, "octets_sent", lambda descriptor, **_: counted.append(descriptor) or 5)
    drop = await store.open(ALICE, utf8=False)
    await drop.close()
    assert list(drop.messages.sizes) == [5, 5, 7]
    assert counted == []


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\n",
        b"garbage",
        b"pop3d sizes 2 00000000\n5 1.one.host\n",
        b"pop3d listing 3 00000000\n",
        b"pop3d listing 5 00000000\n",
        b"pop3d listing 5 00000000\n[]\n",
        b"pop3d listing 5 00000000\n{}\n",
        b"pop3d listing 5 00000000\n{\n",
    ],
)
async def test_a_torn_or_foreign_cache_is_none(
    store: MaildirStore, box: Path, tmp_path: Path, octets: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    grain(monkeypatch, LONG)  # nothing is remembered in the process
    await (await store.open(ALICE, utf8=False)).close()
    kept = [(b"1.one.host", 5), (b"2.two.host,S=4", 5), (b"3.three.host", 7)]
    assert sizes_kept(tmp_path, box) == kept
    (file,) = (tmp_path / "state" / "cache" / "listings").iterdir()
    whole = file.read_bytes()
    wrong_order = b"little" if sys.byteorder == "big" else b"big"
    other_machine = whole.partition(b"\n")[2].replace(sys.byteorder.encode(), wrong_order)
    other_machine = b"pop3d listing 5 %08x\n" % zlib.crc32(other_machine) + other_machine
    huge = whole.replace(b'"messages": 3', b'"messages": 9000000000000')
    for torn in (octets, huge, whole[:-1], whole.replace(b"1.one", b"2.one"), whole + b"x", other_machine):
        file.write_bytes(torn)
        assert sizes_kept(tmp_path, box) == []
        drop = await store.open(ALICE, utf8=False)
        assert list(drop.messages.sizes) == [5, 5, 7]
        await drop.close()
        assert sizes_kept(tmp_path, box) == kept


async def test_a_listing_is_kept_for_the_next_process(
    box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = []
    monkeypatch.setattr("pop3d.stores.maildir.store.scan", lambda *args: listed.append(1) or scan(*args))
    monkeypatch.setattr("pop3d.stores.maildir.store._LARGE", 5)

    async def opened(**options: Any) -> MaildirMaildrop:
        """By a store that has just begun."""
        store = MaildirStore(str(tmp_path / "mail" / "{user}"), tmp_path / "state", MaildirOptions(**options))
        drop = await store.open(ALICE, utf8=False)
        await drop.close()
        return drop

    (box / "cur/4 a blank:2,S").write_bytes(b"x\n")  # its unique-id is not its name
    grain(monkeypatch, LONG)
    first = await opened()
    await opened()
    assert len(listed) == 2  # changed a moment ago: it was not to be trusted
    grain(monkeypatch, NONE)
    await opened()
    assert len(listed) == 3  # nothing was counted, and few messages are listed in no time: it is not worth writing
    (box / "cur/5").write_bytes(b"x\n")
    await opened()
    drop = await opened()
    assert len(listed) == 4
    assert list(drop.messages.uids) == [*first.messages.uids, b"5"]
    assert list(drop.messages.sizes) == [*first.messages.sizes, 3]
    assert await reads_all(box, tmp_path) == [5, 5, 7, 3, 3]
    await opened(sizes_in_names=True)
    assert len(listed) == 5  # what was found in other ways is another listing
    (box / "cur/5").rename(box / "cur/5:2,S")
    await opened()
    assert len(listed) == 6
    await opened()
    assert len(listed) == 6
    (box / "cur/5:2,S").unlink()
    assert len((await opened()).messages) == 4


async def reads_all(box: Path, tmp_path: Path) -> list[int]:
    drop = await MaildirStore(str(tmp_path / "mail" / "{user}"), tmp_path / "state").open(ALICE, utf8=False)
    octets = [len(await content(drop, number)) for number in range(1, len(drop.messages) + 1)]
    await drop.close()
    return octets


async def test_a_cache_that_cannot_be_written_is_skipped(box: Path, tmp_path: Path) -> None:
    (tmp_path / "state" / "cache").mkdir(parents=True)
    (tmp_path / "state" / "cache" / "listings").write_bytes(b"in the way")
    store = MaildirStore(str(tmp_path / "mail" / "{user}"), tmp_path / "state")
    for _ in range(2):
        drop = await store.open(ALICE, utf8=False)
        assert list(drop.messages.sizes) == [5, 5, 7]
        await drop.close()


async def test_a_cache_does_not_grow_for_ever(box: Path, tmp_path: Path) -> None:
    store = MaildirStore(str(tmp_path / "mail" / "{user}"), tmp_path / "state")
    for number in range(20):
        (box / f"new/0{number:02}.host").write_bytes(b"x\n")
    await (await store.open(ALICE, utf8=False)).close()
    for path in box.glob("new/0*"):
        path.unlink()
    await (await store.open(ALICE, utf8=False)).close()
    assert len(sizes_kept(tmp_path, box)) == 3


@given(
    st.lists(st.sampled_from([b"cur/1", b"cur/2", b"new/1", b"new/0", b"cur/" + b"x" * 250])),
    st.integers(0, 9_000),
    st.randoms(use_true_random=False),
)
def test_names_are_sorted_in_slices_as_at_once(some: list[bytes], more: int, chance: Random) -> None:
    names = some + [b"cur/%d" % chance.randrange(10**9) for _ in range(more)]
    assert sorted_in_slices(names) == sorted(names)


@given(
    st.lists(
        st.tuples(st.sampled_from("abc!,"), st.booleans(), st.booleans()), max_size=12, unique_by=lambda one: one[0]
    )
)
def test_known_sizes_are_laid_beside_any_listing(entries: list[tuple[str, bool, bool]]) -> None:
    """Whatever went or came since the cache was made, every size is that of its own file."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make_maildir(root, {})
        for letter, before, _ in entries:
            if before:
                (root / f"cur/{letter}x,S=1:2,").write_bytes(b"x" * ord(letter))
        descriptor = os.open(root, os.O_RDONLY)
        try:
            kept = scan(descriptor)
            for letter, before, after in entries:
                path = root / f"cur/{letter}x,S=1:2,"
                if before and not after:
                    path.unlink()
                if after and not before:
                    path.write_bytes(b"x" * ord(letter))
            found, fresh = scan(descriptor, kept), scan(descriptor)
        finally:
            os.close(descriptor)
        assert list(found.sizes()) == list(fresh.sizes())
        assert list(found.listing.uids) == list(fresh.listing.uids)
        assert found.counted <= sum(after and not before for _, before, after in entries) + found.forgotten


# --- listings of lately ---


async def test_a_mailbox_that_has_not_changed_is_not_listed_again(
    store: MaildirStore, box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = []
    monkeypatch.setattr("pop3d.stores.maildir.store.scan", lambda *args: listed.append(1) or scan(*args))

    async def uids() -> list[bytes]:
        drop = await store.open(ALICE, utf8=False)
        assert len(await content(drop, 1)) == 5
        await drop.close()
        return list(drop.messages.uids)

    grain(monkeypatch, LONG)
    await uids()
    await uids()  # changed a moment ago: it is not to be trusted yet
    assert len(listed) == 2
    grain(monkeypatch, NONE)
    first = await uids()
    assert await uids() == first
    assert len(listed) == 3
    os.rename(box / "new/3.three.host", box / "cur/3.three.host:2,S")
    assert await uids() == first
    assert len(listed) == 4
    (box / "new/4.four").write_bytes(b"x\n")
    assert await uids() == [*first, b"4.four"]
    await uids()
    (box / "cur/1.one.host:2,S").write_bytes(b"one!\n")
    drop = await store.open(ALICE, utf8=False)
    assert drop.messages.sizes[0] == 5
    assert await content(drop, 1) == b"one!\r\n"
    await drop.close()
    drop = await store.open(ALICE, utf8=False)
    assert drop.messages.sizes[0] == 6
    await drop.close()


async def test_a_mailbox_of_lately_is_opened_without_a_thread(
    store: MaildirStore, box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not nowait.is_local(box.stat().st_dev) or nowait.open_cached(str(box), os.O_RDONLY) is None:
        pytest.skip("this kernel, or this file system, cannot open without waiting")
    hops = []
    monkeypatch.setattr("pop3d.stores.maildir.store.hop", lambda *args: hops.append(1) or hop(*args))

    async def uids() -> list[bytes]:
        drop = await store.open(ALICE, utf8=False)
        await drop.close()
        return list(drop.messages.uids)

    grain(monkeypatch, NONE)
    first = await uids()
    assert (await uids(), hops) == (first, [1])
    (box / "new/4.four").write_bytes(b"x\n")
    assert (await uids(), hops) == ([*first, b"4.four"], [1, 1])
    # whoever holds the lock is respected, and an open mailbox is locked
    other = os.open(box, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(MaildropBusy):
        await uids()
    fcntl.flock(other, fcntl.LOCK_UN)
    drop = await store.open(ALICE, utf8=False)
    with pytest.raises(MaildropBusy):
        await uids()
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    await drop.close()
    os.close(other)
    # a folder that is gone is found out the long way
    shutil.rmtree(box / "new")
    assert b"4.four" not in await uids()
    shutil.rmtree(box)
    with pytest.raises(StoreError):
        await uids()


async def test_what_is_read_at_once_is_what_was_listed(store: MaildirStore, box: Path) -> None:
    """A message that was changed, or is none any more, is left to whoever can tell the log about it."""
    if not nowait.is_local(box.stat().st_dev) or nowait.open_cached(str(box), os.O_RDONLY) is None:
        pytest.skip("this kernel, or this file system, cannot open without waiting")
    path = box / "cur/1.one.host:2,S"
    time.sleep(TICK)
    drop = await store.open(ALICE, utf8=False)
    found = drop.read_now(1, 0)
    assert found is not None
    assert (found.data, found.last) == (b"one\r\n", True)
    await drop.close()
    for text in (b"one\n", b"one\r\n", b"on\n", b"one more\n", b""):
        path.write_bytes(b"one\n")
        drop = await store.open(ALICE, utf8=False)
        time.sleep(TICK)
        path.write_bytes(text)
        assert drop.read_now(1, 0) is None
        assert await content(drop, 1) == text.rstrip(b"\r\n") + b"\r\n" * bool(text)
        await drop.close()
    path.write_bytes(b"one\n")
    drop = await store.open(ALICE, utf8=False)
    path.unlink()
    os.mkfifo(path)
    assert drop.read_now(1, 0) is None
    with pytest.raises(StoreError):
        await drop.read(1, 0)
    await drop.close()


def test_open_cached_tells_no_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    with open(tmp_path / "file", "rb") as file:
        file.read()
        descriptor = nowait.open_cached(tmp_path / "file", os.O_RDONLY)
    if descriptor is not None:
        assert os.read(descriptor, 2) == b"x"
        assert not os.get_inheritable(descriptor)
        os.close(descriptor)
    assert nowait.open_cached(tmp_path / "nonesuch", os.O_RDONLY) is None
    assert nowait.open_cached(tmp_path / "link", os.O_RDONLY | os.O_NOFOLLOW) is None
    assert nowait.open_cached("file", os.O_RDONLY, -1) is None


def test_a_change_must_have_been_some_time_ago_by_the_grain_of_the_times(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_700_000_000_500_000_000
    monkeypatch.setattr(time, "time_ns", lambda: now)
    for modified, changed, rests in (
        (now - 10**10, now - 10**10, True),
        (now - 150_000_001, now - 10**10, True),
        (now - 50_000_001, now - 10**10, False),
        (now - 10**10, now - 50_000_001, False),  # whoever sets the one back changes the other
        (now - 1_500_000_000, now - 10**10, False),  # whole seconds: perhaps there are no others
        (now - 2_500_000_000, now - 2_500_000_000, True),
    ):
        assert recent.at_rest(((1, 2, modified, changed), None)) is rests


def test_recent_listings_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "_MESSAGES_MAX", 10)
    scans = recent.RecentScans()
    stamps = ((1, 2, 3, 3), None)
    four = Scan(listing=Listing([1] * 4, [b"x"] * 4))
    for key in ("a", "b"):
        scans.keep(key, stamps, four)
    assert scans.find("a", stamps) is four
    assert scans.find("a", (None, None)) is None
    scans.keep("c", stamps, four)
    assert scans.find("b", stamps) is None
    assert scans.find("a", stamps) is scans.find("c", stamps) is four
    scans.keep("d", stamps, Scan(listing=Listing([1] * 11, [b"x"] * 11)))
    assert scans.find("d", stamps) is None
    scans.forget("a")
    scans.forget("a")
    assert scans.find("a", stamps) is None


# --- sizes in names ---


async def test_sizes_in_names_are_believed_only_where_wanted(box: Path, tmp_path: Path) -> None:
    (box / "new/4.host,S=4,W=5").write_bytes(b"abc\n")
    (box / "new/5.host,W=1000").write_bytes(b"abc\n")
    for believe, sizes in ((False, [5, 5, 7, 5, 5]), (True, [5, 5, 7, 5, 1000])):
        store = MaildirStore(str(tmp_path / "mail" / "{user}"), None, MaildirOptions(sizes_in_names=believe))
        drop = await store.open(ALICE, utf8=False)
        assert list(drop.messages.sizes) == sizes
        assert await content(drop, 5) == b"abc\r\n"
        await drop.close()


# --- marking as seen ---


async def test_what_was_retrieved_is_marked_as_seen_when_wanted(box: Path, tmp_path: Path) -> None:
    for option in (False, True):
        before = sorted(path.relative_to(box).as_posix() for path in box.glob("*/*"))
        store = MaildirStore(str(tmp_path / "mail" / "{user}"), tmp_path / "state", MaildirOptions(mark_seen=option))
        drop = await store.open(ALICE, utf8=False)
        for number in (1, 2, 3):
            drop.retrieved(number)
        await drop.remove([2] if option else [])
        await drop.close()
        after = sorted(path.relative_to(box).as_posix() for path in box.glob("*/*"))
        assert after == (["cur/1.one.host:2,S", "cur/3.three.host:2,S"] if option else before)


# --- soft deletion ---


async def test_deleted_messages_are_kept_and_brought_back(box: Path, tmp_path: Path) -> None:
    options = MaildirOptions(deleted=str(tmp_path / "deleted" / "{user}"), retention_days=1)
    store = MaildirStore(str(tmp_path / "mail" / "{user}"), tmp_path / "state", options)
    before = {path.relative_to(box).as_posix(): path.read_bytes() for path in box.glob("*/*")}
    drop = await store.open(ALICE, utf8=False)
    uids = list(drop.messages.uids)
    await drop.remove([1, 2, 3])
    await drop.close()
    assert not list(box.glob("*/*"))
    kept = tmp_path / "deleted" / "alice"
    assert sorted(path.name for path in kept.glob("*/*")) == sorted(name[4:] for name in before)
    assert put_back(str(box), str(kept)) == PutBackResult(3)
    assert {path.relative_to(box).as_posix(): path.read_bytes() for path in box.glob("*/*")} == before
    assert not list(kept.glob("*/*"))
    drop = await store.open(ALICE, utf8=False)
    assert list(drop.messages.uids) == uids
    await drop.close()


async def test_deleted_messages_go_after_their_time_and_others_of_the_same_name_stay(
    box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = MaildirOptions(deleted=str(tmp_path / "deleted" / "{user}"), retention_days=1)
    store = MaildirStore(str(tmp_path / "mail" / "{user}"), None, options)
    kept = tmp_path / "deleted" / "alice" / "cur"
    for text in (b"one\n", b"another\n"):
        (box / "cur/1.one.host:2,S").write_bytes(text)
        drop = await store.open(ALICE, utf8=False)
        await drop.remove([1])
        await drop.close()
    assert sorted(path.name for path in kept.iterdir()) == ["1.one.host,D=1:2,S", "1.one.host:2,S"]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2 * 86_400)
    drop = await store.open(ALICE, utf8=False)
    await drop.remove([1])
    await drop.close()
    assert list(kept.iterdir()) == []


async def test_where_nothing_can_be_kept_nothing_is_removed(box: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    options = MaildirOptions(deleted=str(tmp_path / "file" / "{user}"))
    drop = await MaildirStore(str(tmp_path / "mail" / "{user}"), None, options).open(ALICE, utf8=False)
    with pytest.raises(RemovalFailed) as caught:
        await drop.remove([1, 2])
    assert list(caught.value.left) == [1, 2]
    await drop.close()
    assert len(list(box.glob("*/*"))) == 3


# --- names and paths ---


@pytest.mark.parametrize("name", ["../bob", "a/b", "..", ".", "", ".hidden", "nul\0", "new\nline", "a:b", "sp ace"])
async def test_a_name_never_reaches_a_path(store: MaildirStore, tmp_path: Path, name: str) -> None:
    (tmp_path / "mail" / "x").mkdir(parents=True)
    with pytest.raises(StoreError) as caught:
        await store.open(Account(name), utf8=False)
    assert caught.value.code == "SYS/PERM"


def test_paths() -> None:
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


async def test_small_messages_are_read_ahead_in_order_and_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nowait, "_syscall", None)  # as if none were in memory
    box = make_maildir(tmp_path / "alice", {f"new/{at:03}.host": b"x" * 20_000 + b"\n" for at in range(40)})
    store = MaildirStore(str(tmp_path / "{user}"))
    drop = await store.open(ALICE, utf8=False)
    assert drop.read_now(1, 0) is None
    await content(drop, 1)
    ready = [number for number in range(2, 41) if drop.read_now(number, 0) is not None]
    assert ready == list(range(2, 15))  # 13 more: the first to pass 256 KiB is the last
    assert len(await content(drop, 30)) == 20_002  # out of order: nothing is read ahead
    assert drop.read_now(31, 0) is None
    os.unlink(box / "new/032.host")
    await content(drop, 31)  # in order again
    with pytest.raises(StoreError):
        await drop.read(33, 0)
    await drop.close()
