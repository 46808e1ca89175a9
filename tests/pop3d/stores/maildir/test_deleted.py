"""The Maildir of deleted messages: whatever fails, or is in both places, each message is home in the end."""

import errno
import fcntl
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pop3d.store_contract import ALICE
from pop3d.stores import RemovalFailed
from pop3d.stores.maildir.deleted import PutBackResult, put_back
from pop3d.stores.maildir.store import MaildirMaildrop, MaildirOptions, MaildirStore
from tests.maildirs import make_maildir

NAMES = ("1.one.host:2,S", "2.two.host,S=4:2,RS", "3.three.host")


class Kill(BaseException):
    """What ends the process."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_maildir(tmp_path / "mail" / "alice", {})


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """cur/ of the deleted messages."""
    return make_maildir(tmp_path / "deleted" / "alice", {f"cur/{name}": name.encode() for name in NAMES}) / "cur"


@pytest.fixture(autouse=True)
def no_descriptor_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    if "_killed" not in request.node.name:
        assert len(os.listdir("/proc/self/fd")) == before


def back(home: Path, kept: Path) -> PutBackResult:
    return put_back(str(home), str(kept.parent))


def messages(home: Path) -> dict[str, bytes]:
    return {path.relative_to(home).as_posix(): path.read_bytes() for path in home.glob("[nc]*/*")}


def place(name: str) -> str:
    return f"{'cur' if ':' in name else 'new'}/{name}"


ALL = {place(name): name.encode() for name in NAMES}


def store_of(tmp_path: Path) -> MaildirStore:
    options = MaildirOptions(deleted=str(tmp_path / "deleted" / "{user}"))
    return MaildirStore(str(tmp_path / "mail" / "{user}"), tmp_path / "state", options)


async def opened(tmp_path: Path) -> MaildirMaildrop:
    return await store_of(tmp_path).open(ALICE, utf8=False)


async def unique_ids(tmp_path: Path) -> dict[bytes, int]:
    """And sizes."""
    drop = await opened(tmp_path)
    try:
        return dict(zip(drop.messages.uids, drop.messages.sizes, strict=True))
    finally:
        await drop.close()


def test_messages_come_home_under_the_names_that_they_had(home: Path, kept: Path) -> None:
    (kept / "4.link").symlink_to(home)
    (kept / ".hidden").write_bytes(b"")
    assert back(home, kept) == PutBackResult(3)
    assert messages(home) == ALL
    assert sorted(path.name for path in kept.iterdir()) == [".hidden", "4.link"]
    assert back(home, kept) == PutBackResult()


def test_where_nothing_was_deleted_nothing_is_made(tmp_path: Path) -> None:
    assert put_back(str(tmp_path / "mail"), str(tmp_path / "deleted")) == PutBackResult()
    (tmp_path / "deleted").mkdir()
    assert put_back(str(tmp_path / "mail"), str(tmp_path / "deleted")) == PutBackResult()
    assert os.listdir(tmp_path) == ["deleted"]


# --- in both places ---


@pytest.mark.parametrize("seen_as", [NAMES[0], "1.one.host:2,FS", "1.one.host"])
def test_a_message_in_both_places_is_home(home: Path, kept: Path, seen_as: str) -> None:
    """A removal, or a bringing back, was killed between link and unlink; its flags may have changed since."""
    (home / place(seen_as)).hardlink_to(kept / NAMES[0])
    assert back(home, kept) == PutBackResult(3)
    assert messages(home) == {place(name): name.encode() for name in NAMES[1:]} | {place(seen_as): NAMES[0].encode()}
    assert not list(kept.iterdir())


def test_an_equal_copy_is_home(home: Path, kept: Path) -> None:
    (home / place(NAMES[2])).write_bytes(NAMES[2].encode())
    (kept / "1.one.host,D=1:2,S").write_bytes((kept / NAMES[0]).read_bytes())
    assert back(home, kept) == PutBackResult(4)
    assert messages(home) == ALL
    assert not list(kept.iterdir())


async def test_no_message_loses_its_unique_id_to_one_that_comes_home(tmp_path: Path, home: Path, kept: Path) -> None:
    """Another message of the same unique part is there, and was seen by clients."""
    (home / "cur" / "1.one.host:2,S").write_bytes(b"another\n")
    os.utime(kept / NAMES[0], (1, 1))  # the older of the two
    before = await unique_ids(tmp_path)
    assert before == {b"1.one.host": 9}
    assert back(home, kept) == PutBackResult(3)
    assert (home / "cur" / "1.one.host:2,S").read_bytes() == b"another\n"
    assert sorted(messages(home).values()) == sorted([*ALL.values(), b"another\n"])
    after = await unique_ids(tmp_path)
    assert after.items() >= before.items()
    assert len(after) == 4
    (name,) = (name for name, text in messages(home).items() if text == b"1.one.host:2,S")
    assert name.startswith("cur/")
    assert name.endswith(":2,S")
    assert not list(kept.iterdir())


async def test_messages_that_had_the_same_unique_part_have_the_ids_that_they_had(tmp_path: Path, home: Path) -> None:
    make_maildir(home, {"cur/1.host:2,S": b"one\n", "cur/1.host:2,": b"another\n"})
    before = await unique_ids(tmp_path)
    assert len(before) == 2
    drop = await opened(tmp_path)
    await drop.remove([1, 2])
    await drop.close()
    assert not messages(home)
    assert back(home, tmp_path / "deleted/alice/cur") == PutBackResult(2)
    assert await unique_ids(tmp_path) == before


def test_messages_that_were_deleted_under_one_name(home: Path, kept: Path) -> None:
    (kept / "1.one.host,D=1:2,S").write_bytes(b"another\n")
    (kept / "2.two.host,S=4,D=12:2,RS").write_bytes(b"a third\n")
    (kept / "5.five.host,S=2,D=1").write_bytes(b"5\n")
    assert back(home, kept) == PutBackResult(6)
    found = messages(home)
    assert found["new/5.five.host,S=2"] == b"5\n"
    assert {name: found[name] for name in ALL} == ALL, "the one that was deleted first has the name"
    assert sorted(found.values()) == sorted([*ALL.values(), b"another\n", b"a third\n", b"5\n"])
    assert not [name for name in found if ",D=" in name]
    unique_parts = [name.split("/")[1].partition(":")[0].partition(",")[0] for name in found]
    assert len(set(unique_parts)) == 6
    assert not list(kept.iterdir())


def test_one_file_with_two_names_among_the_deleted_comes_home_once(home: Path, kept: Path) -> None:
    (kept / "1.one.host:2,").hardlink_to(kept / NAMES[0])
    assert back(home, kept).failed == []
    assert sorted(messages(home).values()) == sorted(ALL.values())
    assert not list(kept.iterdir())


# --- beside a session ---


async def test_while_a_session_has_the_mailbox_open_nothing_is_done(tmp_path: Path, home: Path, kept: Path) -> None:
    """It may be removing the very message that is in both places."""
    (home / place(NAMES[0])).hardlink_to(kept / NAMES[0])
    drop = await opened(tmp_path)
    before = messages(home)
    with pytest.raises(BlockingIOError, match="a session has the mailbox open"):
        put_back(str(home), str(kept.parent), patience=0)
    assert messages(home) == before
    assert len(list(kept.iterdir())) == 3
    await drop.close()
    assert back(home, kept) == PutBackResult(3)
    assert messages(home) == ALL


def test_the_end_of_a_session_is_waited_for(home: Path, kept: Path) -> None:
    session = os.open(home, os.O_RDONLY)
    fcntl.flock(session, fcntl.LOCK_EX)
    threading.Timer(0.2, os.close, (session,)).start()
    assert back(home, kept) == PutBackResult(3)


# --- faults and kills ---

OPERATIONS = ("open", "mkdir", "fstat", "stat", "scandir", "link", "unlink", "fsync", "pread", "close", "rename")


class Calls:
    """Counts calls of file operations, and does something at one of them, once."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, do: Callable[[], object]) -> None:
        self.number, self.reached = 0, ""
        for module, name in (*((os, name) for name in OPERATIONS), (fcntl, "flock")):
            patch.setattr(module, name, self._counting(getattr(module, name), at, do))

    def _counting(self, real: Callable[..., object], at: int, do: Callable[[], object]) -> Callable[..., object]:
        def called(*args: object, **kwargs: object) -> object:
            self.number += 1
            if self.number == at:
                self.reached = real.__name__
                if real is CLOSE:
                    real(*args, **kwargs)  # a close that fails has closed all the same
                do()
                if real is CLOSE:
                    return None
            return real(*args, **kwargs)

        return called


CLOSE = os.close


def _killed() -> None:
    raise Kill


def _failed() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def untidy(root: Path) -> tuple[Path, Path, list[bytes]]:
    """One message in both places, an equal copy, another message of the same name, two deleted under one name."""
    home = make_maildir(
        root / "mail" / "alice",
        {"cur/2.two.host,S=4:2,RS": b"another of two\n", "new/3.three.host": NAMES[2].encode()},
    )
    kept = make_maildir(root / "deleted" / "alice", {f"cur/{name}": name.encode() for name in NAMES}) / "cur"
    (home / "cur" / "1.one.host:2,FS").hardlink_to(kept / NAMES[0])
    (kept / "4.host").write_bytes(b"four\n")
    (kept / "4.host,D=1").write_bytes(b"another of four\n")
    expected = [*ALL.values(), b"another of two\n", b"four\n", b"another of four\n"]
    return home, kept, sorted(expected)


@pytest.mark.parametrize("do", [_killed, _failed])
def test_whatever_ends_it_the_next_run_comes_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, do: Callable[[], None]
) -> None:
    reached = set()
    for at in itertools.count(1):
        home, kept, expected = untidy(tmp_path / str(at))
        with monkeypatch.context() as patch:
            calls = Calls(patch, at, do)
            try:
                found = back(home, kept)
            except (Kill, OSError):
                found = None
        reached.add(calls.reached)
        there = {*messages(home).values(), *(path.read_bytes() for path in kept.iterdir())}
        assert there == set(expected), f"call {at}: {calls.reached}"
        if found is not None and not found.failed:
            assert sorted(messages(home).values()) == expected
            assert not list(kept.iterdir())
        assert back(home, kept).failed == []
        assert sorted(messages(home).values()) == expected, f"call {at}: {calls.reached}"
        assert messages(home)["cur/2.two.host,S=4:2,RS"] == b"another of two\n"
        assert not list(kept.iterdir())
        if not calls.reached:
            break
    assert reached >= {"open", "fstat", "scandir", "link", "unlink", "fsync", "pread", "flock", ""}


def test_one_that_fails_is_told_and_does_not_stop_the_others(
    home: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing_for_one(real: Callable[..., None]) -> Callable[..., None]:
        def called(name: bytes, *args: object, **kwargs: object) -> None:
            if name == NAMES[1].encode():
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))
            real(name, *args, **kwargs)

        return called

    for operation in ("link", "unlink"):
        with monkeypatch.context() as patch:
            patch.setattr(os, operation, failing_for_one(getattr(os, operation)))
            found = back(home, kept)
        assert found == PutBackResult(2 if operation == "link" else 0, [f"{NAMES[1]!r}: Operation not permitted"])
        assert [path.name for path in kept.iterdir()] == [NAMES[1]]
    assert messages(home) == ALL
    assert back(home, kept) == PutBackResult(1)


def test_messages_are_durable_at_home_before_they_go(home: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / place(NAMES[2])).write_bytes(NAMES[2].encode())
    done: list[str] = []
    fsync, unlink = os.fsync, os.unlink

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        done.append(os.path.realpath(f"/proc/self/fd/{descriptor}"))

    def unlinked(*args: object, **kwargs: object) -> None:
        unlink(*args, **kwargs)  # type: ignore[arg-type]
        done.append("unlink")

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "unlink", unlinked)
    assert back(home, kept) == PutBackResult(3)
    copy = str(home / place(NAMES[2]))
    assert done == [copy, str(home / "new"), str(home / "cur"), *["unlink"] * 3, str(kept)]


# --- folders that are the same ---


def same_by_path(tmp_path: Path) -> str:
    return str(tmp_path / "mail" / "{user}")


def same_by_a_link(tmp_path: Path) -> str:
    (tmp_path / "deleted").symlink_to("mail")
    return str(tmp_path / "deleted" / "{user}")


def same_by_a_link_to_cur(tmp_path: Path) -> str:
    (tmp_path / "deleted").mkdir()
    (tmp_path / "deleted" / "alice").symlink_to("../mail/alice/cur")
    return str(tmp_path / "deleted" / "{user}")


@pytest.mark.parametrize("make", [same_by_path, same_by_a_link, same_by_a_link_to_cur])
async def test_a_mailbox_that_is_its_own_folder_for_deleted_messages(
    tmp_path: Path, home: Path, make: Callable[[Path], str]
) -> None:
    make_maildir(home, ALL)
    deleted = make(tmp_path)
    store = MaildirStore(str(tmp_path / "mail" / "{user}"), None, MaildirOptions(deleted=deleted, retention_days=1))
    drop = await store.open(ALICE, utf8=False)
    with pytest.raises(RemovalFailed) as caught:
        await drop.remove([1, 2, 3])
    assert list(caught.value.left) == [1, 2, 3]
    assert "is the mailbox itself" in caught.value.detail
    await drop.close()
    assert messages(home) == ALL
    (home / "cur" / "cur").mkdir(exist_ok=True)
    with pytest.raises(OSError, match="is the mailbox itself"):
        put_back(str(home), deleted.format(user="alice"))
    (home / "cur" / "cur").rmdir()
    assert messages(home) == ALL


def test_a_link_in_place_of_a_folder(home: Path, kept: Path, tmp_path: Path) -> None:
    kept.rename(tmp_path / "elsewhere")
    kept.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotADirectoryError, match="/ is not a folder of its own"):
        back(home, kept)
    kept.unlink()
    (tmp_path / "elsewhere").rename(kept)
    (home / "cur").rmdir()
    (home / "cur").symlink_to(tmp_path)
    with pytest.raises(NotADirectoryError, match="/ is not a folder of its own"):
        back(home, kept)
    assert sorted(path.name for path in kept.iterdir()) == sorted(NAMES)


async def test_deleted_messages_are_kept_and_brought_back(box: Path, tmp_path: Path) -> None:
    options = MaildirOptions(deleted=str(tmp_path / "deleted" / "{user}"), retention_days=1)
    store = MaildirStore(str(tmp_path / "mail" / "{user}"), tmp_path / "state", options)
    before = {path.relative_to(box).as_posix(): path.read_bytes() for path in box.glob("*/*")}
    drop = await store.open(ALICE, utf8=False)
    uids = list(drop.messages.uids)
    await drop.remove([1, 2, 3])
    await drop.close()
    assert not list(box.glob("*/*"))
    kept = tmp_path / "deleted" / "alice"
    assert sorted(path.name for path in kept.glob("*/*")) == sorted(name[4:] for name in before)
    assert put_back(str(box), str(kept)) == PutBackResult(3)
    assert {path.relative_to(box).as_posix(): path.read_bytes() for path in box.glob("*/*")} == before
    assert not list(kept.glob("*/*"))
    drop = await store.open(ALICE, utf8=False)
    assert list(drop.messages.uids) == uids
    await drop.close()


async def test_deleted_messages_go_after_their_time_and_others_of_the_same_name_stay(
    box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = MaildirOptions(deleted=str(tmp_path / "deleted" / "{user}"), retention_days=1)
    store = MaildirStore(str(tmp_path / "mail" / "{user}"), None, options)
    kept = tmp_path / "deleted" / "alice" / "cur"
    for text in (b"one\n", b"another\n"):
        (box / "cur/1.one.host:2,S").write_bytes(text)
        drop = await store.open(ALICE, utf8=False)
        await drop.remove([1])
        await drop.close()
    assert sorted(path.name for path in kept.iterdir()) == ["1.one.host,D=1:2,S", "1.one.host:2,S"]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2 * 86_400)
    drop = await store.open(ALICE, utf8=False)
    await drop.remove([1])
    await drop.close()
    assert list(kept.iterdir()) == []


async def test_where_nothing_can_be_kept_nothing_is_removed(box: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    options = MaildirOptions(deleted=str(tmp_path / "file" / "{user}"))
    drop = await MaildirStore(str(tmp_path / "mail" / "{user}"), None, options).open(ALICE, utf8=False)
    with pytest.raises(RemovalFailed) as caught:
        await drop.remove([1, 2])
    assert list(caught.value.left) == [1, 2]
    await drop.close()
    assert len(list(box.glob("*/*"))) == 3
