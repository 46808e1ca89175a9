"""Whose mailbox, where, and how its password is found.

An account is a URL: ``pop3s://user@host[:port]`` for TLS from the first octet, ``pop3://user@host[:port]`` for STLS,
without which nothing is said. A password never stands in it, nor anywhere else on a command line,
where every user of the machine could read it; it comes from the first of these that there is:

1. ``--password-command CMD``: run without a shell, the first line it prints;
2. the environment's ``POP3CLI_PASSWORD``;
3. the person at the terminal, without echo.

Without any of them the command line cannot be carried out, which is `UsageFault`; a password command that fails is a
`SettingFault`.
"""

from __future__ import annotations

import getpass
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from pop3cli.errors import SettingFault, UsageFault

__all__ = ["PASSWORD_VARIABLE", "PORT", "STLS_PORT", "Account", "find_password", "parse_account", "prompt_password"]

PORT: Final = 995
"""POP3 over implicit TLS (RFC 8314 §7.1)."""

STLS_PORT: Final = 110
"""POP3 in clear text, and with STLS (RFC 1939 §3)."""

PASSWORD_VARIABLE: Final = "POP3CLI_PASSWORD"  # noqa: S105 - the variable's name
"""The variable of the environment a password is taken from."""

_COMMAND_SECONDS: Final = 60.0
"""Patience with a password command: it may have to ask for a passphrase itself."""

_FORM: Final = "give pop3s://user@host"


@dataclass(frozen=True, slots=True)
class Account:
    """A mailbox on a server. ``user``: None when nobody is named. ``stls``: TLS begins with the command STLS."""

    host: str
    port: int
    user: str | None
    stls: bool = False

    @property
    def server(self) -> str:
        """The server, for people."""
        return f"{self.host} port {self.port}"

    @property
    def name(self) -> str:
        """User and host, for people."""
        return self.host if self.user is None else f"{self.user}@{self.host}"


def parse_account(text: str, *, user_required: bool = True) -> Account:
    """The account that a URL means; none does without TLS (RFC 2595 §9, RFC 8314 §5, §5.1).

    Raises `UsageFault`, which never repeats a password.
    """
    scheme, separator, _ = text.partition("://")
    if not separator:
        raise UsageFault(f"account {text!r}", "named accounts are not yet supported", _FORM)
    stls = scheme.lower() == "pop3"
    if not stls and scheme.lower() != "pop3s":
        raise UsageFault(f"account {scheme}://...", "not a POP3 URL", _FORM)
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as fault:  # its text repeats at most the host or the port
        raise UsageFault("account", str(fault), f"{_FORM}[:port]") from None
    if url.password is not None:
        raise UsageFault(
            "a password in the account's URL",
            "other users of this machine could read it",
            f"leave it out; it is asked for, or taken from --password-command or {PASSWORD_VARIABLE}",
        )
    host = url.hostname or ""
    if not host or host.startswith(".") or url.path not in ("", "/") or url.query or url.fragment or port == 0:
        raise UsageFault("account", "not of the form pop3s://user@host[:port]", _FORM)
    user = _user(url)
    if user is None and user_required:
        raise UsageFault(f"account {text}", "no user in it", _FORM)
    return Account(host, port or (STLS_PORT if stls else PORT), user, stls)


def _user(url: SplitResult) -> str | None:
    if not url.username:
        return None
    try:
        user = unquote_to_bytes(url.username).decode("utf-8")
    except UnicodeDecodeError:
        raise UsageFault("account", "the user's name is not UTF-8", "percent-encode its UTF-8 octets") from None
    # what the engine would refuse anyway, said before a connection is made
    if not user.isprintable() or " " in user:
        raise UsageFault("account", "a user's name has no blanks or control characters", _FORM)
    return user


def find_password(account: Account, command: str | None) -> bytes:
    """The account's password, octets as they are. May ask at the terminal. Raises `UsageFault`, `SettingFault`."""
    if command is not None:
        return _from_command(command)
    if value := os.environb.get(PASSWORD_VARIABLE.encode()):
        return value
    if not sys.stdin.isatty():
        raise UsageFault(
            f"no password for {account.name}",
            "there is no terminal to ask at",
            f"give --password-command CMD, or set {PASSWORD_VARIABLE}",
        )
    return prompt_password(f"Password for {account.name}: ")


def prompt_password(prompt: str) -> bytes:
    """Asks at the terminal, without echo. Raises `UsageFault` when nothing is given."""
    try:
        password = getpass.getpass(prompt)
    except EOFError:
        password = ""
    if not password:
        raise UsageFault("login", "no password was given")
    return password.encode("utf-8", "surrogateescape")


def _from_command(command: str) -> bytes:
    what = "--password-command"
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
