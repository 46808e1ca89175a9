"""A disk without room, and one without inodes: one can log in, read and delete; a delivery is told to come later."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pop3d.store_contract import ALICE, content
from pop3d.stores.maildir.delivery import deliver
from pop3d.stores.maildir.store import MaildirStore
from tests.maildirs import make_maildir


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own, mounted while the block runs."""
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True)
    if mount.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
@pytest.mark.parametrize("options", ["size=256k", "nr_inodes=20"])
async def test_reading_and_deleting_on_a_full_disk(tmp_path: Path, options: str) -> None:
    with small_disk(tmp_path / "disk", options) as disk:
        box = make_maildir(disk / "mail" / "alice", {f"new/{n}.host": b"text %d\n" % n for n in range(5)})
        with contextlib.suppress(OSError):
            for number in range(100):
                (disk / f"filler{number}").write_bytes(b"x" * 4096 if "size" in options else b"")
        with pytest.raises(OSError, match="No space left"):
            (disk / "one more").write_bytes(b"x" * 8192)
        with pytest.raises(OSError, match="No space left"):
            deliver(str(box), [b"x" * 8192])
        store = MaildirStore(str(disk / "mail" / "{user}"), disk / "state")
        drop = await store.open(ALICE, utf8=False)
        assert [await content(drop, n) for n in range(1, 6)] == [b"text %d\r\n" % n for n in range(5)]
        await drop.remove([1, 3])
        await drop.close()
        drop = await store.open(ALICE, utf8=False)
        assert list(drop.messages.uids) == [b"1.host", b"3.host", b"4.host"]
        await drop.close()
