"""The secret that opens a mailbox: the first of these that there is.

1. the setting ``password_command``: run without a shell, the first line it prints;
2. the environment's ``POP3CLI_PASSWORD``;
3. the keyring of the desktop, where the extra ``keyring`` is installed;
4. the person at the terminal, without echo.

Without any of them the command line cannot be carried out, which is `UsageFault`; a password command that fails is a
`SettingFault`. In the keyring a password stands under the account's whole URL, so that what was stored for one server
is never said to another.
"""

from __future__ import annotations

import contextlib
import getpass
import importlib.util
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

from pop3cli.accounts.url import PASSWORD_VARIABLE, Account
from pop3cli.errors import MissingExtra, SettingFault, UsageFault

__all__ = [
    "CLIENT_SECRET_VARIABLE",
    "client_secret",
    "find_password",
    "forget_in_keyring",
    "from_keyring",
    "known_password",
    "password_by_command",
    "prompt_passphrase",
    "prompt_password",
    "store_in_keyring",
]

_COMMAND_SECONDS: Final = 60.0
"""Patience with a password command: it may have to ask for a passphrase itself."""

CLIENT_SECRET_VARIABLE: Final = "POP3CLI_CLIENT_SECRET"  # noqa: S105 - the variable's name
"""The variable of the environment an application's secret is taken from."""

_SERVICE: Final = "pop3cli"  # whose secrets these are, in the keyring


def find_password(account: Account, command: str | None, *, keyring: bool = False) -> bytes:
    """The account's password, octets as they are. May ask at the terminal.

    ``keyring``: it is said to be there. Raises `UsageFault`, `SettingFault`, `MissingExtra`.
    """
    known = known_password(account, command, keyring=keyring)
    if known is not None:
        return known
    if not sys.stdin.isatty():
        raise UsageFault(
            f"no password for {account.name}",
            "there is no terminal to ask at",
            f"give `password_command=CMD`, or set {PASSWORD_VARIABLE}",
        )
    return prompt_password(f"Password for {account.name}: ")


def known_password(account: Account, command: str | None, *, keyring: bool = False) -> bytes | None:
    """The same, but nobody is asked: None where only that is left."""
    if command is not None:
        return password_by_command(command)
    if value := os.environb.get(PASSWORD_VARIABLE.encode()):
        return value
    if not keyring and importlib.util.find_spec("keyring") is None:
        return None
    try:
        stored = from_keyring(account.url)
    except SettingFault:
        if keyring:
            raise
        return None  # a machine without a keyring, or one that stays locked: there are other ways
    return None if stored is None else stored.encode("utf-8", "surrogateescape")


def prompt_password(prompt: str) -> bytes:
    """Asks at the terminal, without echo. Raises `UsageFault` when nothing is given."""
    try:
        password = getpass.getpass(prompt)
    except EOFError:
        password = ""
    if not password:
        raise UsageFault("login", "no password was given")
    return password.encode("utf-8", "surrogateescape")


def prompt_passphrase() -> bytes:
    """Asks for the passphrase of a client certificate's key; empty where there is nobody to ask."""
    return prompt_password("Passphrase of the client certificate's key: ") if sys.stdin.isatty() else b""


def client_secret(*, ask: bool) -> str:
    """The secret of an application that is registered for OAuth: ``POP3CLI_CLIENT_SECRET`` of the environment, or what
    a person says when ``ask`` is true; else empty. Raises `UsageFault`.
    """
    said = os.environ.get(CLIENT_SECRET_VARIABLE, "")
    if not said and ask:
        if not sys.stdin.isatty():
            raise UsageFault("login", "the provider wants the application's secret", f"set {CLIENT_SECRET_VARIABLE}")
        said = prompt_password("Secret of the application: ").decode("utf-8", "replace")
    return said


def password_by_command(command: str) -> bytes:
    """The first line that a command prints, which runs without a shell. Raises `SettingFault`."""
    what = "`password_command`"
    try:
        words = shlex.split(command)
    except ValueError as fault:
        raise SettingFault(what, f"its quotes do not match ({fault})") from None
    if not words:
        raise SettingFault(what, "it is empty")
    try:
        # no shell: the words are the user's own, and nothing foreign is among them
        done = subprocess.run(words, stdout=subprocess.PIPE, timeout=_COMMAND_SECONDS, check=False)  # noqa: S603
    except OSError as fault:
        raise SettingFault(what, f"{words[0]}: {fault.strerror or fault}") from None
    except subprocess.TimeoutExpired:
        raise SettingFault(what, f"{words[0]} did not end within {_COMMAND_SECONDS:.0f} s") from None
    if done.returncode:
        raise SettingFault(what, f"{words[0]} ended with status {done.returncode}")
    password = done.stdout.partition(b"\n")[0].removesuffix(b"\r")
    if not password:
        raise SettingFault(what, f"{words[0]} printed no password")
    return password


# --- the keyring ---


def from_keyring(name: str) -> str | None:
    """What is stored under ``name``; None for nothing. Raises `MissingExtra`, `SettingFault`."""
    with _keyring():
        import keyring

        return keyring.get_password(_SERVICE, name)


def store_in_keyring(name: str, secret: str) -> None:
    """Store a secret. Raises `MissingExtra`, `SettingFault`."""
    with _keyring():
        import keyring

        keyring.set_password(_SERVICE, name, secret)


def forget_in_keyring(name: str) -> None:
    """Remove what is stored, if anything is. Raises `MissingExtra`, `SettingFault`."""
    with _keyring():
        import keyring

        if keyring.get_password(_SERVICE, name) is not None:
            keyring.delete_password(_SERVICE, name)


@contextlib.contextmanager
def _keyring() -> Iterator[None]:
    try:
        from keyring.errors import KeyringError
    except ImportError:
        raise MissingExtra("the keyring", "keyring") from None
    try:
        yield
    except (KeyringError, RuntimeError, OSError) as fault:
        why = str(fault).partition("\n")[0] or type(fault).__name__
        raise SettingFault("the keyring", why, "unlock it, or use `password_command`") from None
