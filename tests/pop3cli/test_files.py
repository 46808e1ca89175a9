"""Files of the user: written completely or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pop3cli.errors import OutputFailed
from pop3cli.files import whole_file


def test_a_file_appears_whole(tmp_path: Path) -> None:
    file = tmp_path / "m.eml"
    file.write_bytes(b"before")
    os.umask(mask := os.umask(0))
    with whole_file(file) as stream:
        stream.write(b"after")
        stream.flush()
        assert file.read_bytes() == b"before"
    assert file.read_bytes() == b"after"
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_or_not_at_all(tmp_path: Path, fault: type[BaseException]) -> None:
    with pytest.raises(fault), whole_file(tmp_path / "m.eml") as stream:
        stream.write(b"half")
        raise fault
    assert list(tmp_path.iterdir()) == []


def test_links_stay_and_devices_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"")
    (tmp_path / "link").symlink_to("real")
    with whole_file(tmp_path / "link") as stream:
        stream.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    with whole_file(Path("/dev/null")) as stream:
        stream.write(b"gone")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize("name", ["no/such/folder/m.eml", ".", "x" * 300, "/dev/full"])
def test_what_cannot_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputFailed) as caught, whole_file(tmp_path / name) as stream:
        stream.write(b"x")
        stream.flush()
    assert caught.value.status == 74


def test_a_file_that_was_exchanged_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def told_fsync(descriptor: int) -> None:
        calls.append("fsync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "fsync file")
        fsync(descriptor)

    def told_replace(path: Path, target: Path) -> Path:
        calls.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", told_fsync)
    monkeypatch.setattr(Path, "replace", told_replace)
    with whole_file(tmp_path / "token") as stream:
        stream.write(b"rotated")
    assert calls == ["fsync file", "rename", "fsync folder"]
