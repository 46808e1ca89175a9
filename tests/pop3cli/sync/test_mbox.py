"""An mbox as the destination of `pop3cli sync`, among programs that add to it, rewrite it, replace it and lock it."""

import contextlib
import mailbox
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pop3cli.errors import InUse
from pop3cli.sync import mbox as mbox_module
from pop3cli.sync.mbox import Mbox
from pop3cli.sync.state import Kind, LogEntry, SyncState

ONE = LogEntry(Kind.FETCHED, 1_700_000_000, 100)
BEFORE = b"From bob Thu Jan  1 00:00:00 1970\nSubject: before\n\nno empty line behind it\n"
THEIRS = b"From eve Thu Jan  1 00:00:00 1970\nSubject: from another program\n\ntext\n\n"
MESSAGE = b"Subject: ours\r\n\r\nFrom here\r\n" + b"a line of ours\r\n" * 30


@pytest.fixture
def mbox(tmp_path: Path) -> Mbox:
    (tmp_path / "mail.mbox").write_bytes(BEFORE)
    return Mbox(tmp_path / "mail.mbox")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of the state."""
    return tmp_path / "state"


@pytest.fixture
def state(path: Path) -> Iterator[SyncState]:
    with SyncState.opened(path, "alice") as state:
        yield state


def entries(path: Path) -> set[str]:
    with SyncState.opened(path, "alice") as state:
        return set(state.entries)


def added(mbox: Mbox, state: SyncState, uid: str, content: bytes) -> None:
    with contextlib.closing(mbox.begin(uid)) as draft:
        draft.write(content)
        draft.finish()
        mbox.store([draft], state, [(uid, ONE)])


def subjects(mbox: Mbox) -> list[str]:
    found = mailbox.mbox(mbox.path)
    with contextlib.closing(found):
        return [message["Subject"] for message in found]


class Crash(BaseException):
    """The process is no more."""


@contextlib.contextmanager
def crash(monkeypatch: pytest.MonkeyPatch, name: str, at: int) -> Iterator[None]:
    """The ``at``-th call of ``os.name`` is the last thing that happens; what is open is closed."""
    real, calls = getattr(os, name), 0

    def dying(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls > at:  # nothing tidies up behind a crash
            raise Crash
        found = real(*arguments)
        if calls == at:
            calls += 1
            raise Crash
        return found

    with monkeypatch.context() as patch:
        patch.setattr(mbox_module, "_cut_back", lambda *_: True)
        patch.setattr(os, name, dying)
        with contextlib.suppress(Crash):
            yield


def test_what_a_crash_leaves_is_cut_off(path: Path, mbox: Mbox) -> None:
    with SyncState.opened(path, "alice") as state:
        added(mbox, state, "one", b"A: 1\r\n\r\n")
        before, log = mbox.path.read_bytes(), path.read_bytes()
        added(mbox, state, "two", MESSAGE)
    after, lines = mbox.path.read_bytes(), path.read_bytes()[len(log) :].splitlines(keepends=True)
    assert len(lines) == 3  # append, fetched, appended
    added_octets = len(after) - len(before)
    separator = after.index(b"\n", len(before) + 1) + 1
    room = after[:separator] + b"\n" * (len(after) - separator)
    torn = [room[:octets] for octets in range(len(before), len(room) + 1)]  # while the room is claimed
    torn += [after[:octets] + room[octets:] for octets in range(separator, len(after) + 1)]  # while it is filled
    assert all(len(text) - len(before) <= added_octets for text in torn)
    for written in (lines[:1], lines[:2]):
        for text in torn[::7] + torn[-1:]:
            mbox.path.write_bytes(text)
            path.write_bytes(log + b"".join(written))
            with SyncState.opened(path, "alice") as state:
                assert set(state.entries) == {"one"}
                assert mbox.recover(state, ()) is None
                assert mbox.path.read_bytes() == before
            assert entries(path) == {"one"}
    mbox.path.write_bytes(after)
    path.write_bytes(log + b"".join(lines))
    assert entries(path) == {"one", "two"}


@pytest.mark.parametrize("call", ["write", "fsync", "lseek", "ftruncate"])
def test_mail_that_others_add_behind_a_crash_is_never_cut_off(
    path: Path, mbox: Mbox, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    remarks = 0
    for at in range(1, 12):
        path.unlink(missing_ok=True)
        mbox.path.write_bytes(BEFORE)
        with SyncState.opened(path, "alice") as state, crash(monkeypatch, call, at):
            added(mbox, state, "one", MESSAGE)
        with mbox.path.open("ab") as file:
            file.write(THEIRS)
        with SyncState.opened(path, "alice") as state:
            remarks += mbox.recover(state, ()) is not None
            assert mbox.path.read_bytes().startswith(BEFORE)
            assert mbox.path.read_bytes().endswith(THEIRS)
            added(mbox, state, "two", MESSAGE)
        assert THEIRS in mbox.path.read_bytes()
        assert subjects(mbox)[0] == "before"
        assert {"from another program", "ours"} <= set(subjects(mbox))
    assert remarks or call == "ftruncate"


@pytest.mark.parametrize("torn", [b"", b"hal", b"a line\n", b">"])
def test_a_tail_that_is_not_ours_beyond_doubt_stays(mbox: Mbox, state: SyncState, torn: bytes) -> None:
    offset = len(BEFORE)
    state.begin_append(offset, "feed", 4000, 1)
    tail = b"\nFrom pop3cli-feed Thu Jan  1 00:00:00 1970\nA: 2\n\n" + torn + THEIRS
    mbox.path.write_bytes(BEFORE + tail)
    remark = mbox.recover(state, ())
    assert remark is not None
    assert "may have mail of another program behind a crash of ours; nothing was cut off" in remark
    assert mbox.path.read_bytes() == BEFORE + tail
    assert state.pending is None


def test_an_mbox_that_was_rewritten_behind_a_crash_stays(mbox: Mbox, state: SyncState) -> None:
    added(mbox, state, "one", MESSAGE)
    state.begin_append(mbox.path.stat().st_size, "feed", 400, 0)
    for text in (b"", BEFORE, BEFORE + THEIRS * 20):
        mbox.path.write_bytes(text)
        state.begin_append(len(BEFORE) + 500, "feed", 1500, 0)
        assert "twice" in (mbox.recover(state, ()) or "")
        assert mbox.path.read_bytes() == text


def test_mail_that_others_add_without_a_lock_while_we_write_stays(
    mbox: Mbox, state: SyncState, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = mbox_module._copy

    def copy(text: object, out: object) -> bytes:
        with mbox.path.open("ab") as file:
            file.write(THEIRS)
        return real(text, out)  # type: ignore[arg-type]

    monkeypatch.setattr(mbox_module, "_copy", copy)
    added(mbox, state, "one", MESSAGE)
    assert subjects(mbox) == ["before", "ours", "from another program"]
    assert mbox.path.read_bytes().endswith(THEIRS)
    assert set(state.entries) == {"one"}


def test_mail_that_others_add_without_a_lock_before_we_write_stays(
    mbox: Mbox, state: SyncState, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = state.begin_append

    def begin(*arguments: object) -> object:
        with mbox.path.open("ab") as file:
            file.write(b"\n" + THEIRS)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(state, "begin_append", begin)
    with pytest.raises(OSError, match="adds to it without a lock"):
        added(mbox, state, "one", MESSAGE)
    assert mbox.path.read_bytes().startswith(BEFORE + b"\n" + THEIRS)
    assert not state.entries
    assert mbox.recover(state, ()) is not None
    assert mbox.path.read_bytes().startswith(BEFORE + b"\n" + THEIRS)


def test_a_failure_cuts_back_what_was_added_and_nothing_else(
    mbox: Mbox, state: SyncState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(text: object, out: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mbox_module, "_copy", fails)
    with pytest.raises(OSError, match="No space left"):
        added(mbox, state, "one", MESSAGE)
    assert mbox.path.read_bytes() == BEFORE
    assert mbox.recover(state, ()) is None

    def fails_late(text: object, out: object) -> bytes:
        with mbox.path.open("ab") as file:
            file.write(THEIRS)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mbox_module, "_copy", fails_late)
    with pytest.raises(OSError, match="No space left"):
        added(mbox, state, "one", MESSAGE)
    assert mbox.path.read_bytes().endswith(THEIRS)
    assert not state.entries


def test_an_mbox_that_is_replaced_before_we_have_the_lock_gets_the_mail(
    mbox: Mbox, state: SyncState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pop3cli.sync import mbox_lock

    real = mbox_lock._lock

    def late(fd: int, path: Path, deadline: float) -> None:
        monkeypatch.setattr(mbox_lock, "_lock", real)
        (tmp_path / "other").write_bytes(THEIRS)
        os.rename(tmp_path / "other", mbox.path)
        real(fd, path, deadline)

    monkeypatch.setattr(mbox_lock, "_lock", late)
    added(mbox, state, "one", MESSAGE)
    assert subjects(mbox) == ["from another program", "ours"]


def test_what_went_into_a_file_that_was_replaced_is_not_remembered(
    mbox: Mbox, state: SyncState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = mbox_module._copy

    def copy(text: object, out: object) -> bytes:
        (tmp_path / "other").write_bytes(BEFORE + THEIRS)
        os.rename(tmp_path / "other", mbox.path)
        return real(text, out)  # type: ignore[arg-type]

    monkeypatch.setattr(mbox_module, "_copy", copy)
    with pytest.raises(OSError, match="put another file in its place"):
        added(mbox, state, "one", MESSAGE)
    assert mbox.path.read_bytes() == BEFORE + THEIRS
    assert not state.entries


def test_a_link_leads_to_the_mbox_and_its_lock(mbox: Mbox, state: SyncState, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    link = tmp_path / "home" / "mbox"
    link.symlink_to(mbox.path)
    through = Mbox(link)
    through.prepare()
    added(through, state, "one", MESSAGE)
    assert link.is_symlink()
    assert subjects(mbox) == ["before", "ours"]
    lock = Path(f"{mbox.path}.lock")
    lock.write_text("1234\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pop3cli.sync.mbox_lock.LOCK_SECONDS", 0.1)
        with pytest.raises(InUse):
            added(through, state, "two", MESSAGE)
    lock.unlink()
    mbox.path.rename(tmp_path / "moved")
    mbox.path.symlink_to(tmp_path / "moved")  # since it was looked where the link leads
    with pytest.raises(OSError, match="symbolic links"):
        added(through, state, "two", MESSAGE)
    assert (tmp_path / "moved").read_bytes().count(b"Subject: ours") == 1


# --- locks ---


def test_an_mbox_that_another_program_has_is_left_alone(
    mbox: Mbox, state: SyncState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pop3cli.sync.mbox_lock.LOCK_SECONDS", 0.2)
    lock = Path(f"{mbox.path}.lock")
    for content in ("1234\n", "", f"{os.getpid()} pop3cli {os.uname().nodename}\n", "4194305 pop3cli elsewhere\n"):
        lock.write_text(content)
        with pytest.raises(InUse):
            added(mbox, state, "one", MESSAGE)
        assert lock.read_text() == content
    assert mbox.path.read_bytes() == BEFORE
    lock.write_text(f"4194305 pop3cli {os.uname().nodename}\n")  # no such process: pids end before
    added(mbox, state, "one", MESSAGE)
    assert not lock.exists()


def test_a_lock_that_another_program_has_made_in_place_of_ours_stays(
    mbox: Mbox, state: SyncState, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = mbox_module._copy
    lock = Path(f"{mbox.path}.lock")

    def copy(text: object, out: object) -> bytes:
        lock.unlink()  # it thought it stale
        lock.write_text("theirs\n")
        return real(text, out)  # type: ignore[arg-type]

    monkeypatch.setattr(mbox_module, "_copy", copy)
    added(mbox, state, "one", MESSAGE)
    assert lock.read_text() == "theirs\n"


def test_the_stale_lock_of_two_is_removed_by_one(mbox: Mbox, monkeypatch: pytest.MonkeyPatch) -> None:
    from pop3cli.sync import mbox_lock

    lock = Path(f"{mbox.path}.lock")
    lock.write_text(f"4194305 pop3cli {os.uname().nodename}\n")
    real = mbox_lock._left_behind

    def slow(content: bytes) -> bool:
        found = real(content)
        lock.unlink()
        lock.write_text("the other one has it now\n")
        return found

    monkeypatch.setattr(mbox_lock, "_left_behind", slow)
    assert not mbox_lock._removed(lock)
    assert lock.read_text() == "the other one has it now\n"
