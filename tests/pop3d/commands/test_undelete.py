"""`pop3d undelete` as a process."""

import fcntl
import functools
import os
import shutil
from pathlib import Path

import pytest

from pop3d.commands import undelete as commands
from pop3d.errors import CommandError
from tests.maildirs import files
from tests.pop3d.commands.small_site import run, small_site


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return small_site(tmp_path)


def test_undelete_brings_messages_back(site: Path) -> None:
    assert run(site, "undelete", "alice") == (0, "brought back 0 messages for alice\n", "")
    kept = site / "deleted" / "alice" / "cur"
    kept.mkdir(parents=True)
    (kept / "1.host").write_bytes(b"x\n")
    assert run(site, "undelete", "alice") == (0, "brought back 1 messages for alice\n", "")
    assert files(site / "mail" / "alice") == ["new/1.host"]


def test_undelete_tells_what_it_could_not_bring_back(site: Path) -> None:
    kept, home = site / "deleted" / "alice" / "cur", site / "mail" / "alice" / "new"
    for folder in (kept, home):
        folder.mkdir(parents=True)
    too_long = "1," + "x" * 250  # no room for another unique part
    (kept / too_long).write_bytes(b"one\n")
    (home / "1").write_bytes(b"another\n")
    (kept / "2.host").write_bytes(b"two\n")
    code, said, errors = run(site, "undelete", "alice")
    assert (code, said) == (1, "brought back 1 messages for alice, 1 was not\n")
    assert errors == f"pop3d: not brought back: '{too_long}': File name too long\n"
    assert files(site / "mail" / "alice") == ["new/1", "new/2.host"]
    assert [path.name for path in kept.iterdir()] == [too_long]
    shutil.rmtree(kept)
    kept.symlink_to("/tmp")
    code, said, errors = run(site, "undelete", "alice")
    assert (code, said) == (74, "")
    assert errors.startswith(f"pop3d: not brought back: {kept.parent}: cur/ is not a folder of its own")


def test_undelete_beside_a_session(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, home = site / "deleted" / "alice" / "cur", site / "mail" / "alice"
    for folder in (kept, home):
        folder.mkdir(parents=True)
    session = os.open(home, os.O_RDONLY)
    fcntl.flock(session, fcntl.LOCK_EX)
    monkeypatch.setattr(commands, "put_back", functools.partial(commands.put_back, patience=0))
    try:
        with pytest.raises(CommandError, match="a session has the mailbox open; try again later") as caught:
            commands.undelete("alice", site / "pop3d.toml")
    finally:
        os.close(session)
    assert caught.value.status == 75
