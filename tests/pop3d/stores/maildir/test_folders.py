"""Folders of a Maildir: whose links are followed, what is made and how, renames that never replace."""

import errno
import itertools
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pop3d.stores.maildir import folders as maildir_folders
from pop3d.stores.maildir.folders import make_folder, open_folder, rename_new
from pop3d.system.folders import open_inside, open_or_make_inside

ALICE, BOB = 60_001, 60_002

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes files of other users, which takes root")


@pytest.fixture(params=["openat2", "walk"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test with openat2, and as on a kernel that has not got it."""
    if request.param == "walk":
        monkeypatch.setattr(maildir_folders, "OPENAT2", -1)
    return str(request.param)


@pytest.fixture
def homes(tmp_path: Path) -> Path:
    """/home as it is: alice/ and bob/, each with a Maildir, of their owners where root runs this."""
    for name, owner in (("alice", ALICE), ("bob", BOB)):
        (tmp_path / name / "mail" / "cur").mkdir(parents=True)
        if os.geteuid() == 0:
            for folder in (tmp_path / name, tmp_path / name / "mail", tmp_path / name / "mail" / "cur"):
                os.chown(folder, owner, owner)
    return tmp_path


def link(place: Path, target: Path | str, owner: int | None = None) -> Path:
    place.symlink_to(target)
    if owner is not None:
        os.chown(place, owner, owner, follow_symlinks=False)
    return place


def same(descriptor: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    finally:
        os.close(descriptor)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() == before


# --- open_folder ---


def test_a_folder_without_links(homes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = open_folder(str(homes / "alice" / "mail"))
    assert os.listdir(descriptor) == ["cur"]
    assert not os.get_inheritable(descriptor)
    assert same(descriptor, homes / "alice" / "mail")
    assert same(open_folder(os.fsencode(homes) + b"//alice/./mail/../mail/"), homes / "alice" / "mail")
    monkeypatch.chdir(homes)
    assert same(open_folder("alice/mail"), homes / "alice" / "mail")
    assert same(open_folder("."), homes)
    assert same(open_folder("/"), Path("/"))


def test_what_is_no_folder_is_told_as_ever(homes: Path) -> None:
    (homes / "file").write_bytes(b"")
    for path, number in (
        (homes / "none", errno.ENOENT),
        (homes / "file", errno.ENOTDIR),
        (homes / "file" / "x", errno.ENOTDIR),
        (link(homes / "dangling", "none"), errno.ENOENT),
        (link(homes / "circle", "circle"), errno.ELOOP),
        (link(homes / "to_file", "file"), errno.ENOTDIR),
    ):
        with pytest.raises(OSError, match=r".") as caught:
            open_folder(str(path))
        assert (caught.value.errno, caught.value.filename) == (number, str(path))
    with pytest.raises(FileNotFoundError):
        open_folder("")
    with pytest.raises(ValueError, match="NUL"):
        open_folder("alice\0")


def test_links_of_ones_own_are_followed(homes: Path) -> None:
    link(homes / "one", homes / "alice")
    link(homes / "two", "one/mail")
    link(homes / "alice" / "up", "../two/../../bob/./mail/")
    for path, target in (("one/mail", "alice/mail"), ("two", "alice/mail"), ("alice/up", "bob/mail")):
        assert same(open_folder(str(homes / path)), homes / target)
    before = "alice/mail"
    for number in range(41):
        link(homes / f"link{number}", before)
        before = f"link{number}"
    assert same(open_folder(str(homes / "link39")), homes / "alice" / "mail")
    with pytest.raises(OSError, match="symbolic links") as caught:
        open_folder(str(homes / "link40"))
    assert caught.value.errno == errno.ELOOP


Attack = Callable[[Path], Path]
TRUSTED: dict[str, tuple[Attack, str]] = {
    "root's, to anybody's": (lambda at: link(at / "alice/Maildir", at / "bob/mail", 0), "bob/mail"),
    "his own, to his folder elsewhere": (lambda at: link(at / "bob/Maildir", "../alice/mail", ALICE), "alice/mail"),
    "his own, in a parent": (lambda at: link(at / "alice/x", at / "alice", ALICE) / "mail", "alice/mail"),
    "root's, behind his own": (
        lambda at: link(at / "alice/Maildir", link(at / "alice/disk", at / "alice/mail", 0).name, ALICE),
        "alice/mail",
    ),
}  # fmt: skip
REFUSED: dict[str, Attack] = {
    "to somebody else's": lambda at: link(at / "alice/Maildir", at / "bob/mail", ALICE),
    "relative": lambda at: link(at / "alice/Maildir", "mail/../../bob/./mail", ALICE),
    "in a parent": lambda at: link(at / "alice/x", at / "bob", ALICE) / "mail",
    "in a parent, with .. behind it": lambda at: link(at / "alice/x", at / "bob/mail", ALICE) / ".." / "mail",
    "behind another of his": lambda at: link(
        at / "alice/Maildir", link(at / "alice/x", at / "bob/mail", ALICE).name, ALICE
    ),
    "behind root's": lambda at: link(at / "alice/Maildir", link(at / "alice/x", at / "bob/mail", ALICE), 0),
    "by way of a link of the other's": lambda at: link(
        at / "alice/Maildir", link(at / "bob/x", at / "bob/mail", BOB), ALICE
    ),
    "to root's": lambda at: link(at / "alice/Maildir", "/etc", ALICE),
}


@as_root
@pytest.mark.parametrize("case", TRUSTED)
def test_a_link_that_is_trusted(homes: Path, case: str) -> None:
    make, target = TRUSTED[case]
    assert same(open_folder(str(make(homes))), homes / target)


@as_root
@pytest.mark.parametrize("case", REFUSED)
def test_a_link_to_somebody_elses_folder_is_refused(homes: Path, case: str) -> None:
    path = REFUSED[case](homes)
    with pytest.raises(PermissionError, match="leads to somebody else's folder") as caught:
        open_folder(str(path))
    assert caught.value.filename == str(path)
    assert str(ALICE) in str(caught.value.strerror)
    with pytest.raises(PermissionError, match="somebody else's folder"):
        make_folder(str(path))
    with pytest.raises(PermissionError, match="somebody else's folder"):
        make_folder(str(path / "made"))
    assert not (path / "made").exists()


@as_root
@pytest.mark.parametrize("mode", [0o1777, 0o777])
def test_a_link_of_just_anybody_in_a_folder_for_everybody(homes: Path, mode: int) -> None:
    """Alice makes what bob's mail will be read from, and delivered to."""
    (homes / "spool").mkdir()
    (homes / "spool").chmod(mode)
    place = link(homes / "spool/bob", homes / "alice/mail", ALICE)
    with pytest.raises(PermissionError, match="everybody may write to"):
        open_folder(str(place))
    os.chown(place, 0, 0, follow_symlinks=False)
    assert same(open_folder(str(place)), homes / "alice/mail")
    place.unlink()
    os.chown(homes / "spool", BOB, BOB)
    assert same(open_folder(str(link(place, homes / "bob/mail", BOB))), homes / "bob/mail")


@as_root
def test_links_that_are_exchanged_meanwhile(homes: Path) -> None:
    """Alice turns her link to and fro between her Maildir and bob's, as quickly as she can."""
    place = link(homes / "alice/Maildir", homes / "alice/mail", ALICE)
    code = (
        "import itertools, os, sys\n"
        "place, *targets = sys.argv[1:]\n"
        "for n in itertools.count():\n"
        "    os.symlink(targets[n % 2], f'{place}.new')\n"
        f"    os.chown(f'{{place}}.new', {ALICE}, {ALICE}, follow_symlinks=False)\n"
        "    os.replace(f'{place}.new', place)\n"
    )
    bob = (homes / "bob/mail").stat()
    targets = (str(homes / "alice/mail"), str(homes / "bob/mail"))
    outcomes: set[str] = set()
    deadline = time.monotonic() + 30
    with subprocess.Popen([sys.executable, "-c", code, str(place), *targets]) as process:
        try:
            for attempt in itertools.count():
                if (attempt > 3000 and len(outcomes) == 2) or time.monotonic() > deadline:
                    break
                try:
                    descriptor = open_folder(str(place))
                except PermissionError:
                    outcomes.add("refused")
                    continue
                assert not os.path.samestat(os.fstat(descriptor), bob)
                os.close(descriptor)
                outcomes.add("opened")
        finally:
            process.kill()
    assert outcomes == {"opened", "refused"}


# --- open_inside ---


def test_below_a_mailbox_no_link_is_followed(homes: Path) -> None:
    root = open_folder(str(homes / "alice"))
    link(homes / "alice" / "new", "mail")
    (homes / "alice" / "tmp").write_bytes(b"")
    try:
        assert same(open_inside(root, b"mail"), homes / "alice" / "mail")
        for name in (b"new", b"tmp"):
            with pytest.raises(NotADirectoryError, match="/ is not a folder of its own"):
                open_inside(root, name)
            with pytest.raises(NotADirectoryError, match="/ is not a folder of its own"):
                open_or_make_inside(root, name)
        with pytest.raises(FileNotFoundError):
            open_inside(root, b"cur")
    finally:
        os.close(root)


# --- make_folder ---


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
def test_folders_are_made_for_their_owner_alone_whatever_the_umask(homes: Path, umask: int) -> None:
    (homes / "alice").chmod(0o751)
    before = os.umask(umask)
    try:
        make_folder(str(homes / "alice" / "a" / "b") + "//")
        make_folder(homes.as_posix() + "/alice/a/b/c")
        make_folder(str(homes / "alice" / "a"))
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((homes / "alice" / name).stat().st_mode) for name in ("", "a", "a/b", "a/b/c")}
    assert modes == {"": 0o751, "a": 0o700, "a/b": 0o700, "a/b/c": 0o700}


def test_a_relative_folder(homes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(homes)
    make_folder("x")
    make_folder(b"y/z")
    assert (homes / "x").is_dir()
    assert (homes / "y" / "z").is_dir()


def test_each_new_name_is_durable(homes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[int, list[str]]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        synced.append((os.fstat(descriptor).st_ino, sorted(os.listdir(descriptor))))

    monkeypatch.setattr(os, "fsync", fsync)
    make_folder(str(homes / "alice" / "a" / "b"))
    assert synced == [
        ((homes / "alice").stat().st_ino, ["a", "mail"]),
        ((homes / "alice" / "a").stat().st_ino, ["b"]),
    ]
    make_folder(str(homes / "alice" / "a" / "b"))
    assert len(synced) == 2, "what was there before is left alone"


def test_a_folder_that_could_not_be_made_durable_is_not_left(homes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _failing)
        with pytest.raises(OSError, match="Input/output"):
            make_folder(str(homes / "alice" / "a"))
    assert os.listdir(homes / "alice") == ["mail"]
    make_folder(str(homes / "alice" / "a"))


def _failing(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_what_a_dangling_link_leads_to_is_not_made(homes: Path) -> None:
    """Its disk may be missing."""
    place = link(homes / "alice" / "Maildir", homes / "disk2" / "alice")
    for path in (place, place / "cur"):
        with pytest.raises(OSError, match=r"."):
            make_folder(str(path))
    assert not (homes / "disk2").exists()


def test_many_at_once(homes: Path) -> None:
    faults: list[BaseException] = []
    start = threading.Barrier(8)

    def make() -> None:
        start.wait()
        try:
            make_folder(str(homes / "a" / "b" / "c" / "d"))
        except OSError as fault:
            faults.append(fault)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert (homes / "a" / "b" / "c" / "d").is_dir()


# --- rename_new ---


@pytest.fixture(params=["renameat2", "no libc function", errno.EINVAL, errno.ENOSYS])
def renaming(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test as on a file system that renames without replacing, and as on one that cannot."""
    if request.param == "no libc function":
        monkeypatch.setattr(maildir_folders, "_renameat2", None)
    elif request.param != "renameat2":
        monkeypatch.setattr(maildir_folders, "_renameat2", lambda *_: -1)
        monkeypatch.setattr(maildir_folders.ctypes, "get_errno", lambda: request.param)


@pytest.fixture
def two(homes: Path) -> Iterator[tuple[Path, Path, int, int]]:
    source, target = homes / "alice" / "mail" / "cur", homes / "bob" / "mail" / "cur"
    (source / "1").write_bytes(b"one")
    descriptors = open_folder(str(source)), open_folder(str(target))
    yield source, target, *descriptors
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.mark.usefixtures("renaming")
def test_a_rename(two: tuple[Path, Path, int, int]) -> None:
    source, target, source_fd, target_fd = two
    rename_new(b"1", b"2", source_fd=source_fd, target_fd=target_fd)
    assert not list(source.iterdir())
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {"2": b"one"}


@pytest.mark.usefixtures("renaming")
@pytest.mark.parametrize("is_same", [True, False])
def test_a_rename_never_replaces(two: tuple[Path, Path, int, int], is_same: bool) -> None:
    source, target, source_fd, target_fd = two
    if is_same:
        (target / "2").hardlink_to(source / "1")
    else:
        (target / "2").write_bytes(b"two")
    with pytest.raises(FileExistsError):
        rename_new(b"1", b"2", source_fd=source_fd, target_fd=target_fd)
    assert (source / "1").read_bytes() == b"one"
    assert (target / "2").read_bytes() == (b"one" if is_same else b"two")


@pytest.mark.usefixtures("renaming")
def test_a_rename_of_nothing(two: tuple[Path, Path, int, int]) -> None:
    _, target, source_fd, target_fd = two
    with pytest.raises(FileNotFoundError):
        rename_new(b"none", b"2", source_fd=source_fd, target_fd=target_fd)
    assert not list(target.iterdir())


def test_a_rename_in_two_steps_that_fails_leaves_one_name(
    two: tuple[Path, Path, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target, source_fd, target_fd = two
    monkeypatch.setattr(maildir_folders, "_renameat2", None)
    real = os.unlink
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", lambda name, **more: _failing() if name == b"1" else real(name, **more))
        with pytest.raises(OSError, match="Input/output"):
            rename_new(b"1", b"2", source_fd=source_fd, target_fd=target_fd)
    assert [path.name for path in source.iterdir()] == ["1"]
    assert not list(target.iterdir())
