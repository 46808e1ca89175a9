"""Removal is durable, and tells the truth."""

import errno
import os
from pathlib import Path

import pytest

from pop3d.store_contract import ALICE
from pop3d.stores import RemovalFailed
from pop3d.stores.maildir.store import MaildirOptions, MaildirStore


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
