"""A Maildir as the destination of `pop3cli sync`: nothing is replaced, and only what is ours is cleared away."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pop3cli.sync.maildir import Maildir, MaildirSpool
from pop3cli.sync.state import Kind, LogEntry, SyncState

ONE = LogEntry(Kind.FETCHED, 1_700_000_000, 8)


@pytest.fixture
def maildir(tmp_path: Path) -> Maildir:
    maildir = Maildir(tmp_path / "box", "alice")
    maildir.prepare()
    return maildir


@pytest.fixture
def state(tmp_path: Path) -> Iterator[SyncState]:
    with SyncState.opened(tmp_path / "state", "alice") as state:
        yield state


def drafted(maildir: Maildir, uid: str, content: bytes = b"A: b\r\n\r\n") -> MaildirSpool:
    draft = maildir.begin(uid)
    draft.write(content)
    draft.finish()
    return draft


def test_a_name_that_is_taken_is_not_replaced(maildir: Maildir, state: SyncState) -> None:
    draft = drafted(maildir, "one")
    there = maildir.path / "new" / os.fsdecode(draft.name)
    there.write_bytes(b"another program's")
    with pytest.raises(FileExistsError):
        maildir.store([draft], state, [("one", ONE)])
    draft.discard()
    assert there.read_bytes() == b"another program's"
    assert not state.entries


@pytest.mark.parametrize("taken", [False, True])
def test_without_hard_links_a_name_that_is_taken_is_not_replaced_either(
    maildir: Maildir, state: SyncState, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    draft = drafted(maildir, "one")
    there = maildir.path / "new" / os.fsdecode(draft.name)
    if taken:
        there.symlink_to("nowhere")
        with pytest.raises(PermissionError):
            maildir.store([draft], state, [("one", ONE)])
        draft.discard()
        assert there.is_symlink()
    else:
        maildir.store([draft], state, [("one", ONE)])
        assert there.read_bytes() == b"A: b\n\n"
    assert not list((maildir.path / "tmp").iterdir())


def test_only_what_is_ours_is_cleared_away_in_tmp(maildir: Maildir, tmp_path: Path) -> None:
    ours, others = drafted(maildir, "one"), drafted(Maildir(maildir.path, "bob"), "one")
    for draft in (ours, others):
        draft.close()
    elsewhere = maildir.path / "tmp" / f"{os.fsdecode(ours.name)}.elsewhere"  # of a machine with that name
    elsewhere.touch()
    (maildir.path / "tmp" / "1700000000.M1P1.host").touch()
    maildir.prepare()
    left = {path.name for path in (maildir.path / "tmp").iterdir()}
    assert left == {os.fsdecode(others.name), elsewhere.name, "1700000000.M1P1.host"}


def test_nothing_is_cleared_away_behind_a_link(maildir: Maildir, tmp_path: Path) -> None:
    draft = drafted(maildir, "one")
    draft.close()
    (maildir.path / "tmp").rename(tmp_path / "elsewhere")
    (maildir.path / "tmp").symlink_to(tmp_path / "elsewhere")
    maildir.prepare()
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == [os.fsdecode(draft.name)]


def test_what_is_no_file_is_not_found_again(maildir: Maildir, state: SyncState, tmp_path: Path) -> None:
    names = []
    for uid in ("one", "two", "three"):
        draft = drafted(maildir, uid)
        names.append(os.fsdecode(draft.name))
        draft.discard()
    (tmp_path / "secret").write_bytes(b"A: b\n\n")
    (maildir.path / "new" / names[0]).symlink_to(tmp_path / "secret")
    os.mkfifo(maildir.path / "cur" / names[1])
    (maildir.path / "cur" / names[2]).mkdir()
    maildir.recover(state, [("one", 8), ("two", 8), ("three", 8)])
    assert not state.entries


def test_the_file_that_came_last_under_an_id_is_found_again(maildir: Maildir, state: SyncState) -> None:
    for number in range(3):
        maildir.store([drafted(maildir, "one", b"A: %d\r\n\r\n" % number)], state, [])
    assert state.run_open
    last = drafted(maildir, "one", b"A: 2\r\n\r\n")
    maildir.recover(state, [("one", 8), ("two", 8)])
    assert set(state.entries) == {"one"}
    assert (state.entries["one"].digest, state.entries["one"].away) == (last.digest(), True)
    last.discard()


def test_an_id_of_version_0_1_that_is_in_doubt_gets_the_digest_of_its_file(maildir: Maildir, state: SyncState) -> None:
    draft = drafted(maildir, "one")
    maildir.store([draft], state, [("one", ONE), ("two", ONE)])
    state.end_run()
    maildir.recover(state, [("one", 8), ("two", 8)])
    assert state.entries["one"].digest == ""  # not in doubt
    maildir.recover(state, [("one", 9), ("two", 9)])
    assert state.entries["one"] == LogEntry(Kind.FETCHED, ONE.time, 8, draft.digest())
    assert state.entries["two"] == ONE
