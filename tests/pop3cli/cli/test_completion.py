"""Completion by the user's shell: asked for as bash, zsh and fish ask, and by bash itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pop3cli.cli.completion import account_names, complete_account

ACCOUNTS = """
[work]
url = "pop3s://alice@mail.example.org"
[home]
url = "pop3://bob@localhost:1110"
["a b"]
["x$(touch y)"]
[evil]
url = "`touch y`"
"""
ROOT = Path(__file__).parents[3]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration folder with accounts."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "pop3cli").mkdir()
    (tmp_path / "pop3cli" / "accounts.toml").write_text(ACCOUNTS)
    return tmp_path


def asked(**variables: str) -> str:
    """What pop3cli answers a shell."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", **variables}
    command = [sys.executable, "-m", "pop3cli", *variables.pop("arguments", "").split()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def completed(line: str) -> list[str]:
    """What bash would offer for the last word of a line."""
    words = line.split(" ")
    return asked(_POP3CLI_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1)).split()


@pytest.mark.usefixtures("home")
def test_commands_options_and_accounts() -> None:
    assert completed("pop3cli st") == ["stat", "stats"]
    assert completed("pop3cli doc") == ["doctor"]
    assert completed("pop3cli show w") == ["work"]
    assert completed("pop3cli shell ") == ["evil", "home", "work", "pop3s://", "pop3://"]
    assert "--junit" in completed("pop3cli doctor work --j")
    assert "--trace" in completed("pop3cli --t")
    assert completed("pop3cli --json stat h") == ["home"]


@pytest.mark.usefixtures("home")
def test_zsh_and_fish() -> None:
    answer = asked(_POP3CLI_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="pop3cli stat w")
    assert '"work":"pop3s\\\\://alice@mail.example.org"' in answer
    answer = asked(
        _POP3CLI_COMPLETE="complete_fish", _TYPER_COMPLETE_ARGS="pop3cli stat w", _TYPER_COMPLETE_FISH_ACTION="get-args"
    )
    assert answer == "work\tpop3s://alice@mail.example.org\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_shown(shell: str) -> None:
    shown = asked(arguments=f"--show-completion {shell}")
    assert "_POP3CLI_COMPLETE=complete_" in shown
    assert asked(_POP3CLI_COMPLETE=f"source_{shell}").strip() == shown.strip()


def test_a_script_is_installed(tmp_path: Path) -> None:
    asked(arguments="--install-completion bash", HOME=str(tmp_path))
    assert "pop3cli.sh" in (tmp_path / ".bashrc").read_text()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_itself_completes(home: Path) -> None:
    program = home / "pop3cli.sh"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pop3cli "$@"\n')
    program.chmod(0o755)
    script = asked(_POP3CLI_COMPLETE="source_bash")
    typed = f'COMP_WORDS=(pop3cli stat h); COMP_CWORD=2; _pop3cli_completion {program}; printf %s "${{COMPREPLY[*]}}"'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{script}\n{typed}"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "home", done.stderr


@pytest.mark.parametrize("content", [b"\xff", b"[", b"x = 1", b"a" * 2_000_000, b"x = " + b"[" * 100_000])
def test_a_broken_file_has_no_names(home: Path, content: bytes) -> None:
    (home / "pop3cli" / "accounts.toml").write_bytes(content)
    assert account_names() == []
    (home / "pop3cli" / "accounts.toml").unlink()
    assert [word for word, _ in complete_account("pop3")] == ["pop3s://", "pop3://"]


@pytest.mark.usefixtures("home")
def test_names_that_a_shell_could_take_for_commands_are_left_out() -> None:
    assert account_names() == [
        ("evil", ""),
        ("home", "pop3://bob@localhost:1110"),
        ("work", "pop3s://alice@mail.example.org"),
    ]
