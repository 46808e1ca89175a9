"""Where a password comes from: a command, the environment, a keyring, or a person."""

from __future__ import annotations

import io
import sys

import pytest

from pop3cli.accounts.url import Account
from pop3cli.auth.passwords import find_password
from pop3cli.errors import SettingFault, UsageFault

ALICE = Account("host", 995, "alice")


def test_a_password_from_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POP3CLI_PASSWORD", "other")
    assert find_password(ALICE, r"printf '  s e c \n rest'") == b"  s e c "
    assert find_password(ALICE, f'{sys.executable} -c "print(chr(36))"') == b"$"


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("", "it is empty"),
        ("'", "quotes do not match"),
        ("/no/such/program x", "/no/such/program: No such file or directory"),
        ("false", "false ended with status 1"),
        ("true", "true printed no password"),
    ],
)
def test_password_commands_that_fail(command: str, text: str) -> None:
    with pytest.raises(SettingFault, match=text) as caught:
        find_password(ALICE, command)
    assert caught.value.status == 78


def test_a_password_command_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pop3cli.auth.passwords._COMMAND_SECONDS", 0.1)
    with pytest.raises(SettingFault, match="did not end within"):
        find_password(ALICE, "sleep 10")


def test_a_password_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POP3CLI_PASSWORD", "s e c ö")
    assert find_password(ALICE, None) == "s e c ö".encode()


def test_no_password_and_nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POP3CLI_PASSWORD", raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(UsageFault, match="no password for alice@host: there is no terminal to ask at; give --password"):
        find_password(ALICE, None)
