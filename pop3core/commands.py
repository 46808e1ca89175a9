"""What a client can say: one frozen dataclass per command, arguments as its fields.

A command knows neither its argument syntax nor where it is valid: both are columns of `pop3core.table`. Fields stand in
the order of the arguments; an optional argument that was not given is None.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

__all__ = [
    "Apop",
    "Auth",
    "Capa",
    "Command",
    "Dele",
    "Lang",
    "List",
    "Noop",
    "Pass",
    "Quit",
    "Retr",
    "Rset",
    "Stat",
    "Stls",
    "Top",
    "Uidl",
    "User",
    "Utf8",
]


@dataclass(frozen=True, slots=True)
class User:
    """Names the mailbox (RFC 1939 §7). ``name``: ASCII or UTF-8 without blanks."""

    keyword: ClassVar[str] = "USER"
    name: str


@dataclass(frozen=True, slots=True)
class Pass:
    """Gives the mailbox's password (RFC 1939 §7). ``password``: octets as sent, blanks included; never shown."""

    keyword: ClassVar[str] = "PASS"
    password: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Apop:
    """Proves to know a password (RFC 1939 §7). ``digest``: MD5 of the greeting's timestamp and the password, in hex."""

    keyword: ClassVar[str] = "APOP"
    name: str
    digest: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Auth:
    """Begins a SASL exchange (RFC 5034 §4). ``initial``: octets, not base64; None for none; empty is not none."""

    keyword: ClassVar[str] = "AUTH"
    mechanism: str
    initial: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Stls:
    """Begins TLS (RFC 2595 §4)."""

    keyword: ClassVar[str] = "STLS"


@dataclass(frozen=True, slots=True)
class Utf8:
    """Asks for messages with UTF-8 in their headers, as they are (RFC 6856 §2)."""

    keyword: ClassVar[str] = "UTF8"


@dataclass(frozen=True, slots=True)
class Lang:
    """Asks for replies in a language, or which there are (RFC 6856 §3). ``tag``: such as ``de``; ``*``: the default."""

    keyword: ClassVar[str] = "LANG"
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Stat:
    """Asks for the maildrop's number of messages and octets (RFC 1939 §5)."""

    keyword: ClassVar[str] = "STAT"


@dataclass(frozen=True, slots=True)
class List:
    """Asks for the sizes of all messages, or of message ``number`` (RFC 1939 §5)."""

    keyword: ClassVar[str] = "LIST"
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Retr:
    """Asks for message ``number`` (RFC 1939 §5)."""

    keyword: ClassVar[str] = "RETR"
    number: int


@dataclass(frozen=True, slots=True)
class Dele:
    """Marks message ``number`` as deleted (RFC 1939 §5)."""

    keyword: ClassVar[str] = "DELE"
    number: int


@dataclass(frozen=True, slots=True)
class Noop:
    """Asks for a positive reply (RFC 1939 §5)."""

    keyword: ClassVar[str] = "NOOP"


@dataclass(frozen=True, slots=True)
class Rset:
    """Takes all deletion marks back (RFC 1939 §5)."""

    keyword: ClassVar[str] = "RSET"


@dataclass(frozen=True, slots=True)
class Top:
    """Asks for the headers of message ``number`` and the first ``lines`` lines of its body (RFC 1939 §7)."""

    keyword: ClassVar[str] = "TOP"
    number: int
    lines: int


@dataclass(frozen=True, slots=True)
class Uidl:
    """Asks for the unique-ids of all messages, or of message ``number`` (RFC 1939 §7)."""

    keyword: ClassVar[str] = "UIDL"
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Capa:
    """Asks what the server can do (RFC 2449 §5)."""

    keyword: ClassVar[str] = "CAPA"


@dataclass(frozen=True, slots=True)
class Quit:
    """Ends the session; in TRANSACTION what is marked is removed (RFC 1939 §4, §6)."""

    keyword: ClassVar[str] = "QUIT"


Command: TypeAlias = (
    User | Pass | Apop | Auth | Stls | Utf8 | Lang | Capa | Stat | List | Uidl | Retr | Top | Dele | Noop | Rset | Quit
)
"""Any command."""
