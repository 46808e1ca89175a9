"""Reading messages: at once where they are in memory, ahead where they are small, and what they are under any name."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from pop3core.downgrade import Downgrader
from pop3d.store_contract import ALICE, content
from pop3d.stores import StoreError
from pop3d.stores.maildir import nowait
from pop3d.stores.maildir.store import MaildirOptions, MaildirStore
from tests.maildirs import TICK, make_maildir


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


async def test_a_renamed_message_is_found_again(store: MaildirStore, box: Path) -> None:
    drop = await store.open(ALICE, utf8=False)
    os.rename(box / "new/3.three.host", box / "cur/3.three.host:2,RS")
    os.rename(box / "cur/1.one.host:2,S", box / "cur/1.one.host:2,FS")
    assert await content(drop, 3) == b"three\r\n"
    await drop.remove([1, 3])
    await drop.close()
    assert [path.name for path in box.glob("*/*")] == ["2.two.host,S=4:2,"]


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
