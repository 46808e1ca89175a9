"""The state folder: its two parts, and what version 0.1 left in it."""

import errno
import hashlib
import multiprocessing
import os
import shutil
import stat
import sys
from pathlib import Path

import pytest

from pop3d.auth import Account
from pop3d.stores.maildir.store import MaildirStore
from pop3d.system.secret import secret_of
from pop3d.system.state_folder import make_folders, prepare, write_durably
from tests.site import Daemon, Site

SAMPLES = Path(__file__).parents[1] / "samples" / "state-0.1"
MESSAGES_0_1 = {
    "cur/1700000001.M1P1.host:2,S": 5,
    "cur/1700000002.M2P2.host,S=8:2,": 10,
    "new/1700000003.M3P3.host": 7,
    "cur/1700000004 a blank:2,": 3,
}
"""The files that the sample of a listing is about, and their sizes as version 0.1 counted them."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")


def listing_name(mailbox: Path) -> str:
    return hashlib.sha256(os.fsencode(mailbox)).hexdigest()


@pytest.fixture
def mailbox(tmp_path: Path) -> Path:
    """A mailbox with the file names of the sample and other content, so that a size says where it comes from."""
    path = tmp_path / "mail" / "alice"
    for name in MESSAGES_0_1:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(b"content of another size\n")
    return path


@pytest.fixture
def state(tmp_path: Path, mailbox: Path) -> Path:
    """A state folder as version 0.1 left it."""
    state = tmp_path / "state"
    (state / "listings").mkdir(parents=True)
    shutil.copy(SAMPLES / "secret", state)
    (state / "secret").chmod(0o600)
    shutil.copy(SAMPLES / "listing-of-alice", state / "listings" / listing_name(mailbox))
    return state


def modes(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in folder.rglob("*")
        if path.is_dir()
    }


def test_both_parts_of_the_state_folder_are_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        prepare(tmp_path / "above" / "state")
    finally:
        os.umask(old)
    assert modes(tmp_path) == dict.fromkeys(("above", "above/state", "above/state/cache", "above/state/keep"), 0o700)


def test_a_folder_that_was_made_is_synced_with_the_one_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")) or fsync(fd))
    make_folders(tmp_path / "a" / "b")
    assert synced == [str(tmp_path), str(tmp_path / "a")]
    make_folders(tmp_path / "a" / "b")
    assert len(synced) == 2


def test_a_folder_that_could_not_be_made_durable_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next attempt would find it, and take it for durable."""

    def failing(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "state").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        for make in (make_folders, prepare):
            with pytest.raises(OSError, match="Input/output"):
                make(tmp_path / "new" / "state")
        with pytest.raises(OSError, match="Input/output"):
            prepare(tmp_path / "state")
    assert modes(tmp_path).keys() == {"state"}


@pytest.mark.skipif(sys.byteorder != "little", reason="the sample was written by a little-endian machine")
async def test_sizes_that_version_0_1_has_counted_are_not_counted_again(state: Path, mailbox: Path) -> None:
    prepare(state)
    (mailbox / "new/1700000005.M5P5.host").write_bytes(b"new\n")  # the folders are read again
    store = MaildirStore(str(mailbox.parent / "{user}"), state)
    drop = await store.open(Account("alice"), utf8=False)
    await drop.close()
    # but for one with S= in its name, as Dovecot has it, which version 0.1 may have counted compressed
    assert list(drop.messages.sizes) == [5, 25, 7, 3, 5]
    assert drop.messages.uids[0] == b"1700000001.M1P1.host"


def test_the_secret_of_version_0_1_stays_the_same(state: Path) -> None:
    assert secret_of(state) == (SAMPLES / "secret").read_bytes()
    assert secret_of(state) == (SAMPLES / "secret").read_bytes()
    assert not (state / "secret").exists()
    assert (state / "keep" / "secret").read_bytes() == (SAMPLES / "secret").read_bytes()
    assert stat.S_IMODE((state / "keep" / "secret").stat().st_mode) == 0o600


def test_the_secret_of_version_0_1_is_used_where_it_cannot_be_moved(state: Path) -> None:
    (state / "keep").write_text("in the way")
    assert secret_of(state) == (SAMPLES / "secret").read_bytes()


def test_files_of_version_0_1_are_moved_once(state: Path, mailbox: Path) -> None:
    prepare(state)
    moved = state / "cache" / "listings" / listing_name(mailbox)
    assert moved.read_bytes() == (SAMPLES / "listing-of-alice").read_bytes()
    assert sorted(path.name for path in state.iterdir()) == ["cache", "keep"]
    # version 0.1 ran once more, beside this one
    (state / "listings").mkdir()
    (state / "listings" / listing_name(mailbox)).write_bytes(b"of version 0.1")
    (state / "secret").write_bytes(b"s" * 32)
    prepare(state)
    assert moved.read_bytes() == (SAMPLES / "listing-of-alice").read_bytes()
    assert secret_of(state) == (SAMPLES / "secret").read_bytes()


def test_a_crash_between_the_two_steps_of_moving_the_secret(state: Path) -> None:
    (state / "keep").mkdir()
    os.link(state / "secret", state / "keep" / "secret")
    prepare(state)
    assert not (state / "secret").exists()
    assert (state / "keep" / "secret").read_bytes() == (SAMPLES / "secret").read_bytes()


def _start(state: str, go, found) -> None:
    go.wait()
    try:
        found.put(secret_of(Path(state)))
    except BaseException as fault:
        found.put(repr(fault))


def test_processes_that_start_at_once_all_find_the_secret_of_version_0_1(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for round_ in range(20):
        state = tmp_path / str(round_)
        state.mkdir()
        shutil.copy(SAMPLES / "secret", state)
        go, found = context.Event(), context.Queue()
        processes = [context.Process(target=_start, args=(str(state), go, found)) for _ in range(4)]
        for process in processes:
            process.start()
        go.set()
        assert [found.get(timeout=60) for _ in processes] == [(SAMPLES / "secret").read_bytes()] * 4
        for process in processes:
            process.join(60)
        assert sorted(path.name for path in state.iterdir()) == ["cache", "keep"]


@as_root
def test_the_state_folder_belongs_to_whom_the_daemon_becomes(state: Path) -> None:
    """Version 0.1, started as root, left the secret to root."""
    prepare(state, (12345, 23456))
    for path in (state, state / "cache", state / "keep", state / "keep" / "secret"):
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456), path
    (state / "keep" / "secret").unlink()
    secret_of(state)
    assert (state / "keep" / "secret").stat().st_uid == 12345


@as_root
def test_root_follows_no_link_in_a_folder_of_somebody_else(state: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "of-root"
    elsewhere.mkdir()
    (state / "keep").symlink_to(elsewhere)
    with pytest.raises(OSError):
        prepare(state, (12345, 12345))
    assert secret_of(state) == (SAMPLES / "secret").read_bytes()
    assert list(elsewhere.iterdir()) == []
    assert elsewhere.stat().st_uid == 0
    # nor does it give a file of its own away that has a second name here
    (state / "keep").unlink()
    (state / "secret").unlink()
    (tmp_path / "file-of-root").write_bytes(b"r" * 32)
    (state / "keep").mkdir()
    os.link(tmp_path / "file-of-root", state / "keep" / "secret")
    prepare(state, (12345, 12345))
    assert (tmp_path / "file-of-root").stat().st_uid == 0


def test_a_file_is_written_completely_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_durably(path, b"old")
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing)
            with pytest.raises(OSError):
                write_durably(path, b"new")
        assert path.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["file"]
    write_durably(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def failing(*_args: object, **_more: object) -> None:
    raise OSError(28, "No space left on device")


def test_serve_moves_the_files_of_version_0_1(site: Site) -> None:
    state = site.root / "state"
    (state / "listings").mkdir(parents=True)
    shutil.copy(SAMPLES / "secret", state)
    daemon = Daemon(site)
    assert daemon.end() == 0
    assert sorted(path.name for path in state.iterdir()) == ["cache", "keep"]
    assert (state / "keep" / "secret").read_bytes() == (SAMPLES / "secret").read_bytes()
    assert (modes(state)["cache"], modes(state)["keep"]) == (0o700, 0o700)


def test_serve_works_without_a_state_folder(site: Site) -> None:
    (site.root / "state").write_text("in the way")
    daemon = Daemon(site)
    assert daemon.end() == 0
    assert "nothing is cached or remembered" in daemon.log
    assert "no control socket in" in daemon.log


@as_root
def test_serve_gives_all_of_it_to_whom_it_becomes(site: Site) -> None:
    state = site.root / "state"
    state.mkdir()
    shutil.copy(SAMPLES / "secret", state)
    site.config.write_text(site.config.read_text().replace('user = "root"', 'user = "#12345"\ngroup = "#12345"'))
    daemon = Daemon(site)
    assert daemon.end() == 0
    assert {path.stat().st_uid for path in (state, *state.rglob("*"))} == {12345}
