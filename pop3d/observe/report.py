"""What a session was, once it has ended, for log and metrics; and who may listen to what happens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from pop3core.answers import LoginAccepted, LoginRejected
from pop3core.maildrop import Listing

__all__ = ["OUTCOME_OF_REPLY", "Observer", "SessionReport", "SessionView"]


@dataclass(frozen=True, slots=True)
class SessionReport:
    """A session that has ended. ``octets_in``, ``octets_out``: POP3 as said, without what TLS adds."""

    address: str
    user: str | None
    """None: never logged in."""
    tls: str
    """Such as ``TLSv1.3``; empty without TLS."""
    cipher: str
    """OpenSSL's name of it; empty without TLS."""
    mechanism: str
    """A SASL name, ``USER`` or ``APOP``; empty before login."""
    listing: Listing | None
    """The mailbox as the session saw it; None before login."""
    commands: Mapping[str, int]
    """How many of each that were understood, by the keyword of the protocol's table."""
    retrieved: int
    """Messages sent to their end by RETR."""
    retrieved_octets: int
    """Octets of content sent by RETR and TOP."""
    octets_in: int
    octets_out: int
    deleted: int
    """Messages removed by QUIT."""
    seconds: float
    reason: str
    """Why it ended, in words of ours."""
    expired: int = 0
    """Messages removed by QUIT without a DELE, because of their age or, with EXPIRE 0, because they were retrieved."""


class SessionView(NamedTuple):
    """A session that runs now, for `pop3d who`. Octets and messages as in `SessionReport`."""

    user: str | None
    """None: has not logged in."""
    address: str
    tls: str
    mechanism: str
    connected: float
    """Unix time, by the clock as it is now."""
    since: float | None
    """Unix time of the login; None before."""
    idle: float
    """Seconds since the last complete command was answered; 0 while one is being answered, and before the login."""
    state: str
    """AUTHORIZATION, TRANSACTION or UPDATE (RFC 1939 §3); HANDSHAKE before the greeting."""
    commands: int
    retrieved: int
    retrieved_octets: int
    octets_in: int
    octets_out: int


OUTCOME_OF_REPLY: Final[Mapping[int, str]] = MappingProxyType(
    {250: "delivered", 451: "unavailable", 452: "over_quota", 550: "unknown_user", 552: "refused"}
)
"""What became of mail for a recipient of LMTP, by the code of the reply."""


class ConnectionPool(Protocol):
    """Connections to a database, as far as they are counted."""

    @property
    def connections(self) -> tuple[int, int]:
        """How many are open, and how many of them are idle."""
        ...


class Observer:
    """ProcessIdentity server and sessions tell what happens, for metrics; this one does not listen."""

    def connected(self) -> None:
        """A connection was let in."""

    def refused(self, reason: str) -> None:
        """A connection was not let in. ``reason``: what `pop3d.abuse.connection_limits.ConnectionLimits.admit` said."""

    def login(self, answer: LoginAccepted | LoginRejected, seconds: float) -> None:
        """A login was answered, so long after the credential had come."""

    def opened(self, seconds: float) -> None:
        """A mailbox was opened, in that time."""

    def certificates(self, ends: Sequence[tuple[str, str, float]]) -> None:
        """Certificates were read: name, file, and Unix time of the end of each; 0 where none is served."""

    def healthy(self, healthy: bool, databases: Mapping[str, ConnectionPool | None]) -> None:
        """What a look at users and mail has found; ``databases``: of each, or None where it has none."""

    def reloaded(self, *, ok: bool, at: float) -> None:
        """A reload has ended; ``ok``: without a fault; ``at``: Unix time."""

    def ended(self, report: SessionReport) -> None:
        """A session that was let in has ended."""

    def delivered(self, code: int, seconds: float) -> None:
        """A recipient of LMTP was answered so, which took that time; 0: refused before there was a message."""

    def lmtp_connections(self, number: int) -> None:
        """So many are open now."""

    def lag(self, seconds: float) -> None:
        """How much later than it should the event loop came back; told each second."""
