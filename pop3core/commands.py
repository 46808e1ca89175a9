"""What a client can say: one value per command, arguments as its fields.

A command knows neither its argument syntax nor where it is valid: both are columns of `pop3core.table`. Fields stand in
the order of the arguments; an optional argument that was not given is None.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, TypeAlias

from pop3core.value import value

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


@value
class User:
    """Names the mailbox (RFC 1939 §7). ``name``: ASCII or UTF-8 without blanks."""

    keyword: ClassVar[str] = "USER"
    name: str


@value
class Pass:
    """Gives the mailbox's password (RFC 1939 §7). ``password``: octets as sent, blanks included; never shown."""

    keyword: ClassVar[str] = "PASS"
    password: bytes = field(repr=False)


@value
class Apop:
    """Proves to know a password (RFC 1939 §7). ``digest``: MD5 of the greeting's timestamp and the password, in hex."""

    keyword: ClassVar[str] = "APOP"
    name: str
    digest: str = field(repr=False)


@value
class Auth:
    """Begins a SASL exchange (RFC 5034 §4). ``initial``: octets, not base64; None for none; empty is not none."""

    keyword: ClassVar[str] = "AUTH"
    mechanism: str
    initial: bytes | None = field(default=None, repr=False)


@value
class Stls:
    """Begins TLS (RFC 2595 §4)."""

    keyword: ClassVar[str] = "STLS"


@value
class Utf8:
    """Asks for messages with UTF-8 in their headers, as they are (RFC 6856 §2)."""

    keyword: ClassVar[str] = "UTF8"


@value
class Lang:
    """Asks for replies in a language, or which there are (RFC 6856 §3). ``tag``: such as ``de``; ``*``: the default."""

    keyword: ClassVar[str] = "LANG"
    tag: str | None = None


@value
class Stat:
    """Asks for the maildrop's number of messages and octets (RFC 1939 §5)."""

    keyword: ClassVar[str] = "STAT"


@value
class List:
    """Asks for the sizes of all messages, or of message ``number`` (RFC 1939 §5)."""

    keyword: ClassVar[str] = "LIST"
    number: int | None = None


@value
class Retr:
    """Asks for message ``number`` (RFC 1939 §5)."""

    keyword: ClassVar[str] = "RETR"
    number: int


@value
class Dele:
    """Marks message ``number`` as deleted (RFC 1939 §5)."""

    keyword: ClassVar[str] = "DELE"
    number: int


@value
class Noop:
    """Asks for a positive reply (RFC 1939 §5)."""

    keyword: ClassVar[str] = "NOOP"


@value
class Rset:
    """Takes all deletion marks back (RFC 1939 §5)."""

    keyword: ClassVar[str] = "RSET"


@value
class Top:
    """Asks for the headers of message ``number`` and the first ``lines`` lines of its body (RFC 1939 §7)."""

    keyword: ClassVar[str] = "TOP"
    number: int
    lines: int


@value
class Uidl:
    """Asks for the unique-ids of all messages, or of message ``number`` (RFC 1939 §7)."""

    keyword: ClassVar[str] = "UIDL"
    number: int | None = None


@value
class Capa:
    """Asks what the server can do (RFC 2449 §5)."""

    keyword: ClassVar[str] = "CAPA"


@value
class Quit:
    """Ends the session; in TRANSACTION what is marked is removed (RFC 1939 §4, §6)."""

    keyword: ClassVar[str] = "QUIT"


Command: TypeAlias = (
    User | Pass | Apop | Auth | Stls | Utf8 | Lang | Capa | Stat | List | Uidl | Retr | Top | Dele | Noop | Rset | Quit
)
"""Any command."""
