"""Where a password comes from: a command, the environment, a keyring, or a person."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pop3cli.accounts.url import Account
from pop3cli.auth.passwords import find_password
from pop3cli.errors import SettingFault, UsageFault
from tests.pop3cli.conftest import PASSWORD, Cli, Server

pytestmark = pytest.mark.usefixtures("home")

ALICE = Account("mail.example.org", 995, "alice")


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
    told = "no password for alice@mail.example.org: there is no terminal to ask at; give `password_command=CMD`, or"
    with pytest.raises(UsageFault, match=told):
        find_password(ALICE, None)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[tuple[str, str], str]]:
    """A keyring of our own; what is in it."""
    keyring = pytest.importorskip("keyring", reason="pip install 'pop3core[keyring]'")
    from keyring.backend import KeyringBackend

    secrets: dict[tuple[str, str], str] = {}

    class Memory(KeyringBackend):
        priority = 1  # type: ignore[assignment]

        def get_password(self, service: str, username: str) -> str | None:
            return secrets.get((service, username))

        def set_password(self, service: str, username: str, password: str) -> None:
            secrets[service, username] = password

        def delete_password(self, service: str, username: str) -> None:
            del secrets[service, username]

    before = keyring.get_keyring()
    keyring.set_keyring(Memory())
    yield secrets
    keyring.set_keyring(before)


def test_a_password_in_the_keyring(
    pop3cli: Cli, server: Server, kept: dict[tuple[str, str], str], monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    for name in ("work", "again"):
        ran = pop3cli("account", "add", name, server.account(), "--cacert", server.certificate, "--keyring")
        assert (ran.status, ran.err) == (0, "")
    assert kept == {("pop3cli", server.account()): PASSWORD}
    assert PASSWORD not in (home / "accounts.toml").read_text()
    monkeypatch.delenv("POP3CLI_PASSWORD")
    assert pop3cli("stat", "work").status == 0
    assert pop3cli("stat", server.account(), "--cacert", server.certificate).status == 0  # it is the URL's
    pop3cli("account", "remove", "again")
    assert kept
    pop3cli("account", "remove", "work")
    assert kept == {}


def test_what_is_said_goes_before_the_keyring(
    kept: dict[tuple[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept["pop3cli", ALICE.url] = "kept ö"
    monkeypatch.setenv("POP3CLI_PASSWORD", "said")
    assert find_password(ALICE, "echo run") == b"run"
    assert find_password(ALICE, None) == b"said"
    monkeypatch.delenv("POP3CLI_PASSWORD")
    assert find_password(ALICE, None) == "kept ö".encode()
    # another server of the same name is not told
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(UsageFault, match="no password for"):
        find_password(Account("mail.example.org", 996, "alice"), None)


def test_a_machine_without_a_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = pytest.importorskip("keyring", reason="pip install 'pop3core[keyring]'")
    from keyring.backends.fail import Keyring

    before = keyring.get_keyring()
    keyring.set_keyring(Keyring())
    try:
        monkeypatch.delenv("POP3CLI_PASSWORD", raising=False)
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        with pytest.raises(UsageFault, match="no password for"):
            find_password(ALICE, None)
        with pytest.raises(SettingFault, match="the keyring: No recommended backend"):
            find_password(ALICE, None, keyring=True)
    finally:
        keyring.set_keyring(before)
