"""What sync remembers, and what a crash leaves behind: in the log, in a Maildir, in an mbox, on a full disk."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pop3cli.errors import BadState, InUse
from pop3cli.sync import state as state_module
from pop3cli.sync.state import GONE_SECONDS, Kind, LogEntry, SyncState
from tests.interop.test_full_disk import small_disk
from tests.pop3cli.conftest import Ran, Sync, there

ONE, TWO = LogEntry(Kind.FETCHED, 1_700_000_000, 100), LogEntry(Kind.ODD, 1_700_000_001, 200, "ab12")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "state"


def entries(path: Path) -> dict[str, LogEntry]:
    with SyncState.opened(path, "alice") as state:
        return dict(state.entries)


def test_what_is_recorded_is_there_again(path: Path) -> None:
    with SyncState.opened(path, "alice") as state:
        state.record([("one", ONE), ("two", TWO)])
        state.record([("three", LogEntry(Kind.SKIPPED, 5, 0))])
    assert entries(path) == {"one": ONE, "two": TWO, "three": LogEntry(Kind.SKIPPED, 5, 0)}
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_line_cut_anywhere_is_dropped_and_no_other(path: Path) -> None:
    with SyncState.opened(path, "alice") as state:
        state.record([("one", ONE)])
        state.record([("two", TWO)])
    whole = path.read_bytes()
    second = whole.rindex(b"\n", 0, -1) + 1
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        found = entries(path)
        assert found == ({"one": ONE} if length >= second else {}), length
        with SyncState.opened(path, "alice") as state:
            state.record([("three", TWO)])
        assert entries(path) == {**found, "three": TWO}


def test_damage_elsewhere_is_told_and_nothing_changed(path: Path) -> None:
    with SyncState.opened(path, "alice") as state:
        state.record([("one", ONE)])
        state.record([("two", TWO)])
    whole = path.read_bytes()
    for damaged in (whole.replace(b"one", b"eno"), b"something else\n", whole.replace(b"alice", b"bob", 1)):
        path.write_bytes(damaged)
        with pytest.raises(BadState), SyncState.opened(path, "alice"):
            pass
        assert path.read_bytes() == damaged


def test_one_process_at_a_time(path: Path) -> None:
    with SyncState.opened(path, "alice"):
        with pytest.raises(InUse), SyncState.opened(path, "alice"):
            pass
        with SyncState.opened(path, "alice", read_only=True):
            pass


def test_what_is_gone_is_forgotten_in_time(path: Path) -> None:
    now = int(time.time())
    with SyncState.opened(path, "alice") as state:
        state.record([("one", ONE), ("two", TWO)])
        state.listed(["one"], now)
        assert state.entries["two"].gone == now
        state.shorten(now)
    assert entries(path)["two"].gone == now
    with SyncState.opened(path, "alice") as state:
        state.listed(["one", "two"], now)
        assert not state.entries["two"].gone
        state.listed(["one"], now)
        state.shorten(now + GONE_SECONDS + 1)
        assert set(state.entries) == {"one"}


def test_what_our_quit_removes_counts_as_gone_and_is_then_forgotten(path: Path) -> None:
    with SyncState.opened(path, "alice") as state:
        state.record([("one", ONE), ("two", TWO)])
        state.leaving(["one", "two"], 7)
        state.forget(["one", "three"], 8)
    assert entries(path) == {"two": replace(TWO, gone=7, away=True)}
    with SyncState.opened(path, "alice") as state:
        state.listed(["two"], 9)
    assert entries(path) == {"two": replace(TWO, away=True)}
    with SyncState.opened(path, "alice") as state:
        state.record([("two", TWO)])
    assert entries(path) == {"two": TWO}


def test_behind_a_line_that_could_not_be_taken_back_nothing_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with SyncState.opened(path, "alice") as state:
        state.record([("one", ONE)])
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fails)
            patch.setattr(os, "ftruncate", fails)
            with pytest.raises(OSError, match="Input/output"):
                state.record([("two", TWO)])
        with pytest.raises(OSError, match="could not be taken back"):
            state.record([("three", ONE)])
        assert set(state.entries) == {"one"}


def test_a_log_that_is_mostly_history_is_rewritten(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "_REWRITTEN_ABOVE", 10)
    with SyncState.opened(path, "alice") as state:
        state.record([("one", ONE), ("two", TWO)])
        for _ in range(20):
            state.listed([], 7)
            state.listed(["one", "two"], 8)
        state.listed(["one"], 9)
        before = path.stat().st_size
        state.shorten(9)
        assert path.stat().st_size < before / 5
        state.record([("three", ONE)])
    two = LogEntry(Kind.ODD, TWO.time, 200, "ab12", gone=9, away=True)
    assert entries(path) == {"one": replace(ONE, away=True), "two": two, "three": ONE}


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("mounting a small file system takes root")
    with small_disk(tmp_path / "disk", "size=64k") as disk:
        with SyncState.opened(disk / "state", "alice") as state:
            with pytest.raises(OSError, match="No space"):
                for number in range(1000):
                    state.record([(f"{number}" * 30, ONE)])
            known = dict(state.entries)
        assert entries(disk / "state") == known


# --- a disk that is full ---


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
@pytest.mark.parametrize("name", ["out", "out.mbox"])
def test_a_full_disk_loses_nothing(box: Path, sync: Sync, tmp_path: Path, name: str) -> None:
    for number in range(100, 200):
        (box / "cur" / f"{number}.m:2,").write_bytes(b"Subject: %d\n\n" % number + b"x" * 9000 + b"\n")
    with small_disk(tmp_path / "disk", "size=400k") as disk:
        ran = sync("--delete", to=disk / name)
        assert ran.status == 74
        assert "cannot write: No space left on device" in ran.err
        assert len(there(box)) == 103
        if name == "out":
            assert not list((disk / "out/tmp").iterdir())
        os.system(f"mount -o remount,size=4m {disk}")
        assert sync("--delete", to=disk / name).status == 0
        assert there(box) == set()
        if name == "out":
            assert len(list((disk / "out/new").iterdir())) == 103
        else:
            assert (disk / name).read_bytes().count(b"\nSubject: ") == 103


def test_a_state_that_cannot_be_written(box: Path, sync: Sync, tmp_path: Path, pop3cli: Callable[..., Ran]) -> None:
    (tmp_path / "remembered").write_text("a file")
    ran = sync("--delete")
    assert ran.status == 74
    assert len(ran.err.splitlines()) == 1
    assert len(there(box)) == 3
