"""Whose mailbox, where, and how it is reached.

An account is a URL: ``pop3s://user@host[:port]`` for TLS from the first octet, ``pop3://user@host[:port]`` for STLS,
without which nothing is said. A password never stands in it, nor anywhere else on a command line, where every user of
the machine could read it: `pop3cli.auth.passwords` finds it. What else can be said of an account is `Settings`, by
options or in the file of named accounts (`pop3cli.accounts.registry`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, quote, unquote_to_bytes, urlsplit

from pop3cli.errors import UsageFault

__all__ = ["PASSWORD_VARIABLE", "PORT", "STLS_PORT", "Account", "Settings", "parse_account"]

PORT: Final = 995
"""POP3 over implicit TLS (RFC 8314 §7.1)."""

STLS_PORT: Final = 110
"""POP3 in clear text, and with STLS (RFC 1939 §3)."""

PASSWORD_VARIABLE: Final = "POP3CLI_PASSWORD"  # noqa: S105 - the variable's name
"""The variable of the environment a password is taken from."""

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

    @property
    def url(self) -> str:
        """The account in full, always written the same."""
        user = "" if self.user is None else f"{quote(self.user, safe='')}@"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'pop3' if self.stls else 'pop3s'}://{user}{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Settings:
    """How an account is reached; what is not said is None, empty or False.

    ``cacert``: whom to trust; ``pins``: the server's key or certificate (`pop3cli.net.tls.parse_pin`); ``insecure``:
    trust anybody, for one run; ``client_cert``, ``client_key``: PEM files; ``proxy``: a URL (`pop3cli.net.proxy`);
    ``auth``: the mechanism of the login; ``timeout``: seconds; ``keyring``: secrets are kept there; ``oauth``: a
    provider of tokens, ``oauth_client_id`` and ``oauth_scope`` what it wants to know; ``title``: the account's name in
    the book.
    """

    cacert: Path | None = None
    pins: tuple[str, ...] = ()
    insecure: bool = False
    client_cert: Path | None = None
    client_key: Path | None = None
    proxy: str | None = None
    auth: str | None = None
    timeout: float | None = None
    password_command: str | None = None
    keyring: bool = False
    oauth: str | None = None
    oauth_client_id: str | None = None
    oauth_scope: str | None = None
    title: str | None = None

    def over(self, others: Settings) -> Settings:
        """These, and of the others what these do not say."""
        said = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default}
        return replace(others, **said)


def parse_account(text: str, *, user_required: bool = True) -> Account:
    """The account that a URL means; none does without TLS (RFC 2595 §9, RFC 8314 §5, §5.1).

    Raises `UsageFault`, which never repeats a password.
    """
    scheme, separator, _ = text.partition("://")
    if not separator:
        raise UsageFault("account", "not a POP3 URL", _FORM)
    stls = scheme.lower() == "pop3"
    if not stls and scheme.lower() != "pop3s":
        raise UsageFault("account", "not a POP3 URL: another scheme", _FORM)
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as fault:  # its text repeats at most the host or the port
        raise UsageFault("account", str(fault), f"{_FORM}[:port]") from None
    if url.password is not None:
        raise UsageFault(
            "a password in the account's URL",
            "other users of this machine could read it",
            f"leave it out; it is asked for, or taken from `password_command` or {PASSWORD_VARIABLE}",
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
