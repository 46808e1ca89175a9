"""What a server is, the same for all its connections; and what is counted of each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pop3core.commands import Apop, Auth, Command, Lang, Pass, Stls, User, Utf8
from pop3core.errors import LocalProtocolError
from pop3core.limits import DEFAULT_LIMITS, Limits
from pop3core.sasl import MECHANISMS
from pop3core.table import RULES, Home
from pop3core.texts import LANGUAGES

__all__ = ["ServerConfig", "Summary", "check_policy"]


def check_policy(expire: str, login_delay: str) -> None:
    """Raises `LocalProtocolError` for what is no argument of EXPIRE or LOGIN-DELAY (RFC 2449 §6.7 and §6.5)."""
    if not re.fullmatch(r"(?:(?:NEVER|[0-9]{1,9})(?: USER)?)?", expire):
        raise LocalProtocolError('expire is "NEVER", a number of days, or one of these and "USER"')
    if not re.fullmatch(r"(?:[0-9]{1,9}(?: USER)?)?", login_delay):
        raise LocalProtocolError('login_delay is a number of seconds, or that and "USER"')


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """What a server is, the same for all its connections.

    ``hostname``: named in the greeting when not empty. ``allow_plaintext``: passwords are taken without TLS too, which
    is not the default (RFC 5034 §4). ``mechanisms``: names of `pop3core.sasl.MECHANISMS`, for weak ones can be left out
    (RFC 2595 §9); USER and PASS are offered exactly when PLAIN is among them.
    ``stls``, ``utf8``: these commands are offered. ``languages``: tags of `pop3core.texts.LANGUAGES` that LANG offers,
    the default first; none: LANG is not offered. ``expire``, ``login_delay``: the argument of that capability
    (``"NEVER"``, ``"30"``, ``"30 USER"``), empty for none. Raises `LocalProtocolError` for what is none of these.
    """

    hostname: str = ""
    allow_plaintext: bool = False
    mechanisms: tuple[str, ...] = ("PLAIN",)
    stls: bool = False
    utf8: bool = True
    languages: tuple[str, ...] = tuple(LANGUAGES)
    expire: str = ""
    login_delay: str = ""
    limits: Limits = DEFAULT_LIMITS
    # made once: a set of its own would take 700 octets of each connection
    _offered: Mapping[tuple[bool, Home | None], frozenset[type[Command]]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for kind, names, known in (
            ("mechanism", self.mechanisms, MECHANISMS),
            ("language", self.languages, LANGUAGES),
        ):
            if unknown := [name for name in names if name not in known]:
                raise LocalProtocolError(f"unknown {kind} {unknown[0]!r}; there are {', '.join(known)}")
        check_policy(self.expire, self.login_delay)
        offered = {
            (apop, elsewhere): frozenset(command for command, home in self._switched_on(apop) if home is not elsewhere)
            for apop in (False, True)
            for elsewhere in (None, Home.PLAIN, Home.TLS)
        }
        object.__setattr__(self, "_offered", offered)

    def offered(self, *, apop: bool, elsewhere: Home | None = None) -> frozenset[type[Command]]:
        """The commands that are switched on.

        ``apop``: the connection's greeting has a timestamp; ``elsewhere``: without those that are at home there only.
        """
        return self._offered[apop, elsewhere]

    def _switched_on(self, apop: bool) -> Iterator[tuple[type[Command], Home]]:
        switches: dict[type[Command], bool] = {
            User: "PLAIN" in self.mechanisms,
            Pass: "PLAIN" in self.mechanisms,
            Apop: apop,
            Auth: bool(self.mechanisms),
            Stls: self.stls,
            Utf8: self.utf8,
            Lang: bool(self.languages),
        }
        return ((rule.command, rule.home) for rule in RULES if switches.get(rule.command, True))


@dataclass(slots=True)
class Summary:
    """What happened in a session, counted as it goes. Octets are content as sent, stuffing not counted."""

    commands: int = 0
    """Lines that were taken for a command, good or bad."""
    by_keyword: dict[str, int] = field(default_factory=dict)
    """Commands that were understood and valid, by keyword: USER, RETR, ..."""
    bad_commands: int = 0
    auth_failures: int = 0
    retrieved: int = 0
    """Messages sent to their end by RETR."""
    retrieved_octets: int = 0
    """Octets of content sent by RETR and TOP."""
    mechanism: str = ""
    """How the user logged in: a SASL name, USER (with PASS) or APOP."""
    deleted: int = 0
    """Messages removed by QUIT."""
