"""Listings of lately: used again where nothing has changed, and bounded."""

import fcntl
import os
import shutil
import time
from pathlib import Path

import pytest

from pop3core.maildrop import Listing
from pop3d.store_contract import ALICE, content
from pop3d.stores import MaildropBusy, StoreError
from pop3d.stores.maildir import memory_cache as recent
from pop3d.stores.maildir import nowait
from pop3d.stores.maildir.scan import Scan, scan
from pop3d.stores.maildir.store import MaildirStore
from pop3d.stores.threads import hop
from tests.maildirs import LONG, NONE, grain


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
