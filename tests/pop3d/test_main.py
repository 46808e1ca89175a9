"""Where the program begins: what goes straight to `pop3d deliver` means what the command line means."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pop3d import cli
from pop3d.__main__ import plain_delivery
from pop3d.commands import deliver
from tests.pop3d.commands.small_site import small_site

Delivery = tuple[str, Path | None]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Delivery]]:
    """What the command line hands to `pop3d deliver`."""
    found: list[Delivery] = []
    monkeypatch.setattr(deliver, "deliver_stdin", lambda user, config: found.append((user, config)))
    yield found


@pytest.mark.parametrize(
    "words",
    [
        ["deliver", "alice"],
        ["deliver", ""],
        ["deliver", "alice", "--config", "a.toml"],
        ["deliver", "--config", "a.toml", "alice@example.org"],
        ["deliver", "--config", "a.toml", "--", "-h@example.org"],
        ["deliver", "--config", "a.toml", "--", "--config"],
    ],
)
def test_a_plain_delivery_is_what_was_typed(words: list[str], typed: list[Delivery]) -> None:
    cli.app(words, standalone_mode=False)
    assert [plain_delivery(words)] == typed


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["deliver"],
        ["deliver", "--help"],
        ["deliver", "--", "alice"],
        ["deliver", "--config=a.toml", "alice"],
        ["deliver", "--config", "--help", "alice"],
        ["deliver", "--config", "", "alice"],
        ["deliver", "--config", "a.toml", "-h"],
        ["deliver", "alice", "--debug", "x"],
        ["deliver", "alice", "bob"],
        ["--debug", "deliver", "alice"],
        ["check", "--config", "a.toml"],
    ],
)
def test_all_else_is_for_the_command_line(words: list[str]) -> None:
    assert plain_delivery(words) is None


def test_a_delivery_imports_no_server(tmp_path: Path) -> None:
    """Each module costs every message some time: what reads command lines, the daemon, TLS, the event loop."""
    site = small_site(tmp_path)
    command = [sys.executable, "-X", "importtime", "-m", "pop3d", "deliver", "alice", "--config", site / "pop3d.toml"]
    done = subprocess.run(command, input=b"x\n", capture_output=True, timeout=60)
    assert done.returncode == 0
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()}
    assert "pop3d.stores.maildir.delivery" in loaded
    heavy = {"asyncio", "typer", "rich", "cryptography", "ssl", "pop3d.server", "pop3core.server", "pop3core.client"}
    assert not heavy & loaded
