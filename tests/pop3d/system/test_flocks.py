"""Who holds a lock of flock(2), as the kernel tells it."""

import fcntl
import os
from pathlib import Path

import pytest

from pop3d.system import flocks
from pop3d.system.flocks import flock_holder

TOLD = """\
1: POSIX  ADVISORY  WRITE 11 fe:01:131 0 EOF
2: FLOCK  ADVISORY  WRITE 22 fe:01:131 0 EOF
2: -> FLOCK  ADVISORY  WRITE 33 fe:01:131 0 EOF
3: FLOCK  ADVISORY  WRITE 0 103:05:7 0 EOF
torn
"""


@pytest.mark.parametrize(
    ("device", "inode", "holder"),
    [
        (os.makedev(0xFE, 1), 131, 22),
        (os.makedev(0xFE, 1), 13, None),
        (os.makedev(0x103, 5), 7, None),  # in a pid namespace that this process does not see
    ],
)
def test_the_kernel_s_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: int, inode: int, holder: int | None
) -> None:
    (tmp_path / "locks").write_text(TOLD)
    monkeypatch.setattr(flocks, "_LOCKS", tmp_path / "locks")
    assert flock_holder(device, inode) == holder


def test_without_a_list_nobody_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flocks, "_LOCKS", tmp_path / "missing")
    assert flock_holder(os.makedev(0xFE, 1), 131) is None


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the system has no /proc/locks")
def test_a_lock_of_our_own(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        place = os.fstat(descriptor)
        assert flock_holder(place.st_dev, place.st_ino) is None
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert flock_holder(place.st_dev, place.st_ino) == os.getpid()
    finally:
        os.close(descriptor)
