"""`pop3d undelete` as a process."""

import fcntl
import functools
import json
import os
import pty
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pop3d.commands import undelete as commands
from pop3d.commands.undelete import Choice
from pop3d.errors import CommandError
from tests.maildirs import files
from tests.pop3d.commands.small_site import run, small_site


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return small_site(tmp_path)


def test_undelete_brings_messages_back(site: Path) -> None:
    assert run(site, "undelete", "alice", "--all") == (0, "brought back no messages for alice\n", "")
    kept = site / "deleted" / "alice" / "cur"
    kept.mkdir(parents=True)
    (kept / "1.host").write_bytes(b"x\n")
    assert run(site, "undelete", "alice", "--all") == (0, "brought back 1 message for alice\n", "")
    assert files(site / "mail" / "alice") == ["new/1.host"]


def test_undelete_tells_what_it_could_not_bring_back(site: Path) -> None:
    kept, home = site / "deleted" / "alice" / "cur", site / "mail" / "alice" / "new"
    for folder in (kept, home):
        folder.mkdir(parents=True)
    too_long = "1," + "x" * 250  # no room for another unique part
    (kept / too_long).write_bytes(b"one\n")
    (home / "1").write_bytes(b"another\n")
    (kept / "2.host").write_bytes(b"two\n")
    code, said, errors = run(site, "undelete", "alice", "--all")
    assert (code, said) == (1, "brought back 1 message for alice, 1 was not\n")
    assert errors == f"pop3d: not brought back: '{too_long}': File name too long\n"
    assert files(site / "mail" / "alice") == ["new/1", "new/2.host"]
    assert [path.name for path in kept.iterdir()] == [too_long]
    shutil.rmtree(kept)
    kept.symlink_to("/tmp")
    code, said, errors = run(site, "undelete", "alice", "--all")
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
            commands.undelete(
                "alice", site / "pop3d.toml", Choice(everything=True), dry_run=False, sure=True, as_json=False
            )
    finally:
        os.close(session)
    assert caught.value.status == 75


HEAD = b"From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>\nSubject: =?utf-8?b?w6TDtsO8?= \x1b[31m red\n\nbody\n"


@pytest.fixture
def three(site: Path) -> Path:
    """Three deleted messages, a moment apart."""
    kept = site / "deleted" / "alice" / "cur"
    kept.mkdir(parents=True)
    for number, octets in enumerate((HEAD, b"no header at all", b"Subject: 3\n\n"), 1):
        (kept / f"{number}.host:2,S").write_bytes(octets)
        time.sleep(0.02)
    return kept


def test_the_list(site: Path, three: Path) -> None:
    code, said, errors = run(site, "undelete", "alice")
    assert (code, errors) == (0, "")
    lines = [line.split("\t") for line in said.splitlines()]
    assert [(line[0], line[2], line[3]) for line in lines] == [
        ("1", str(len(HEAD)), "1.host"), ("2", "16", "2.host"), ("3", "12", "3.host"),
    ]  # fmt: skip
    assert lines[0][4:] == ["Jürgen <j@example.org>", "äöü \\x1b[31m red"]
    assert [line[4:] for line in lines[1:]] == [["", ""], ["", "3"]]
    assert abs(time.time() - time.mktime(time.strptime(lines[0][1][:19], "%Y-%m-%dT%H:%M:%S"))) < 120
    found = [json.loads(line) for line in run(site, "undelete", "alice", "--json")[1].splitlines()]
    assert found[2].keys() == {"number", "uid", "deleted", "octets", "from", "subject"}
    assert (found[2]["uid"], found[2]["subject"]) == ("3.host", "3")
    assert len(list(three.iterdir())) == 3


def test_a_choice(site: Path, three: Path) -> None:
    code, said, _ = run(site, "undelete", "alice", "2", "--dry-run")
    assert (code, [line.split("\t")[3] for line in said.splitlines()]) == (0, ["2.host"])
    assert len(list(three.iterdir())) == 3
    for words, status in {("9",): 67, ("nothing",): 67, ("1", "--all"): 2, ("--since", "soon"): 2}.items():
        assert run(site, "undelete", "alice", *words)[:2] == (status, "")
    assert run(site, "undelete", "alice", "--since", "2999-01-01")[1] == "brought back no messages for alice\n"
    assert run(site, "undelete", "alice", "3.host", "1")[:2] == (0, "brought back 2 messages for alice\n")
    assert files(site / "mail" / "alice") == ["cur/1.host:2,S", "cur/3.host:2,S"]
    assert run(site, "undelete", "alice", "--since", "2020-01-01")[1] == "brought back 1 message for alice\n"
    assert list(three.iterdir()) == []


def test_a_terminal_is_asked(site: Path, three: Path) -> None:
    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "pop3d", "undelete", "alice", "--all", "--config", site / "pop3d.toml"]
    for answer, left in ((b"n\n", 3), (b"y\n", 0)):
        os.write(main, answer)
        done = subprocess.run(command, stdin=terminal, capture_output=True, timeout=60)
        assert done.returncode == 0
        assert b"Bring back 3 messages? [y/N] " in done.stdout
        assert len(list(three.iterdir())) == left
    os.close(main)
    os.close(terminal)
