"""The n-th call of every file operation of a session fails, for every n: nothing untrue is said, nothing is lost.

Deterministic, in this process. A message is given whole or not; what `remove` confirms is gone, what it names may be
there, what was not marked is there; an error is never an empty mailbox; the session behind it finds all in order.
"""

import errno
import fcntl
import itertools
import os
import time
from pathlib import Path

import pytest

from pop3d.store_contract import ALICE, content
from pop3d.stores import MaildropBusy, RemovalFailed, StoreError
from pop3d.stores.maildir.store import MaildirMaildrop, MaildirOptions, MaildirStore
from tests.maildirs import make_maildir

MESSAGES = {
    "cur/1.one.host:2,S": b"one\n",
    "cur/2.two.host:2,": b"two\n" * 30_000,
    "new/3.three.host": b"three\n",
    "new/4.four.host": b"four\n" * 30_000,
}
TEXTS = [text.replace(b"\n", b"\r\n") for text in MESSAGES.values()]
UIDS = [b"1.one.host", b"2.two.host", b"3.three.host", b"4.four.host"]
OPERATIONS = (
    "open",
    "read",
    "pread",
    "preadv",
    "fstat",
    "stat",
    "scandir",
    "unlink",
    "rename",
    "link",
    "fsync",
    "replace",
)


class Faults:
    """Counts calls of file operations, and lets one of them fail."""

    def __init__(self, patch: pytest.MonkeyPatch, failing: int, number: int) -> None:
        self.calls, self.failed = 0, ""
        for module, name in (*((os, name) for name in OPERATIONS), (fcntl, "flock")):
            self._watch(patch, module, name, failing, number)

    def _watch(self, patch: pytest.MonkeyPatch, module: object, name: str, failing: int, number: int) -> None:
        real = getattr(module, name)

        def called(*args: object, **kwargs: object) -> object:
            self.calls += 1
            if self.calls == failing:
                self.failed = name
                raise OSError(number, os.strerror(number))
            return real(*args, **kwargs)

        patch.setattr(module, name, called)


async def visit(store: MaildirStore) -> set[bytes] | None:
    """Read everything, remove 1 and 4; the unique-ids of what was removed. None when it could not be opened."""
    try:
        drop = await store.open(ALICE, utf8=False)
    except MaildropBusy:
        raise AssertionError("nobody else is there") from None
    except StoreError as fault:
        assert fault.code is not None
        return None
    try:
        await read_all(drop)
        return await remove(drop)
    finally:
        await drop.close()


async def read_all(drop: MaildirMaildrop) -> None:
    assert set(drop.messages.uids) <= set(UIDS)
    for number, uid in enumerate(drop.messages.uids, 1):
        try:
            assert await content(drop, number) == TEXTS[UIDS.index(uid)]
        except StoreError:
            drop.release(number)


async def remove(drop: MaildirMaildrop) -> set[bytes]:
    numbers = [number for number, uid in enumerate(drop.messages.uids, 1) if uid in (UIDS[0], UIDS[3])]
    left: set[int] = set()
    try:
        await drop.remove(numbers)
    except RemovalFailed as fault:
        left = set(fault.left)
        assert left
        assert left <= set(numbers)
    return {drop.messages.uids[number - 1] for number in numbers if number not in left}


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
async def test_whatever_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, soft: bool) -> None:
    failed = set()
    for failing in itertools.count(1):
        root = tmp_path / str(failing)
        box = make_maildir(root / "mail" / "alice", MESSAGES)
        options = MaildirOptions(mark_seen=soft, deleted=str(root / "deleted" / "{user}") if soft else "")
        store = MaildirStore(str(root / "mail" / "{user}"), root / "state", options)
        time.sleep(0.01)  # so that what is done to the files counts as before the login, each time
        with monkeypatch.context() as patch:
            faults = Faults(patch, failing, number)
            removed = await visit(store)
        failed.add(faults.failed)
        there = {path.name.partition(":")[0].encode() for path in box.glob("[nc]*/*")}
        assert {UIDS[1], UIDS[2]} <= there, "a message is lost that nobody had marked"
        assert removed is not None or there == set(UIDS)
        assert not there & (removed or set()), "a removal was confirmed and did not happen"
        drop = await store.open(ALICE, utf8=False)
        assert set(drop.messages.uids) == there
        for at, uid in enumerate(drop.messages.uids, 1):
            assert await content(drop, at) == TEXTS[UIDS.index(uid)]
        await drop.close()
        kept = {path.name.partition(":")[0].encode() for path in (root / "deleted").glob("*/*/*")}
        assert not soft or kept | there == set(UIDS), "a message is in neither place"
        if not faults.failed:
            break
    assert failed >= {"open", "read", "pread", "fstat", "scandir", "fsync", "flock", "unlink", ""}
