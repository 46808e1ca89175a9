"""What mechanisms and engines say to each other."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

__all__ = [
    "SURPLUS",
    "Challenge",
    "ClientSteps",
    "NoSecret",
    "Outcome",
    "Password",
    "PlainSecret",
    "ProofFailed",
    "SaslError",
    "ScramSecret",
    "SecretKind",
    "SecretWanted",
    "ServerProved",
    "ServerRefused",
    "ServerSteps",
    "Tls",
    "Token",
    "VerdictWanted",
    "Verified",
]

SecretKind: TypeAlias = Literal["SCRAM-SHA-256", "APOP"]
"""What a stored secret must be good for."""


class SaslError(ValueError):
    """The other side's message is none of this mechanism's; the text says why and repeats nothing sent."""


class ServerRefused(SaslError):
    """The server gives, inside the exchange, its reason to refuse the client (RFC 5802 §7 server-error)."""


class ServerProved(bytes):
    """A client's last response in a mechanism in which the server proves itself too: that proof is verified.

    Only behind this response does `pop3core.client.ClientConnection` accept +OK to such a mechanism.
    """

    __slots__ = ()


# --- what a client proves itself with ---


@dataclass(frozen=True, slots=True)
class Password:
    """A name and a password in clear text, however they came.

    ``authzid``: the identity to act as, empty for the user's own. ``secret``: octets as sent.
    """

    username: str
    authzid: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Token:
    """An OAuth 2 bearer token. ``username``: whose mailbox is wanted; may be empty when the token itself says it."""

    username: str
    mechanism: str
    token: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Verified:
    """The proof was checked inside the engine and is good: open the mailbox, behind the same limits as a password."""

    username: str
    authzid: str
    mechanism: str


@dataclass(frozen=True, slots=True)
class ProofFailed:
    """The proof was checked inside the engine and is bad: count, log, delay, and refuse."""

    username: str
    mechanism: str


Outcome: TypeAlias = Password | Token | Verified | ProofFailed
"""What comes of an exchange."""


# --- what a server's mechanism wants ---


@dataclass(frozen=True, slots=True)
class Challenge:
    """Send ``data``; what the client answers is wanted."""

    data: bytes


@dataclass(frozen=True, slots=True)
class SecretWanted:
    """What is stored for a user is wanted: `ScramSecret`, `PlainSecret` or `NoSecret`."""

    username: str
    kind: SecretKind


@dataclass(frozen=True, slots=True)
class VerdictWanted:
    """The proof is good: whether ``credential`` is let in is wanted, by ``b""``; if not, the exchange is over.

    Nothing that the client could tell a good proof by is said before: the driver limits guesses here.
    """

    credential: Verified


@dataclass(frozen=True, slots=True)
class ScramSecret:
    """A verifier for SCRAM (RFC 5802 §3), and a fresh ``server_nonce`` of printable ASCII without commas."""

    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)
    server_nonce: str


@dataclass(frozen=True, slots=True)
class PlainSecret:
    """The password itself, for APOP."""

    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class NoSecret:
    """There is no such user, or no such secret of theirs. It must look like a known one: ``salt`` and ``iterations`` as
    a known user's would be, and always the same for the same name.
    """

    salt: bytes = b""
    iterations: int = 4096
    server_nonce: str = ""


@dataclass(frozen=True, slots=True)
class Tls:
    """What a mechanism may know of the connection.

    ``channel_binding``: tls-server-end-point (RFC 5929 §4). ``binding_offered``: a mechanism that uses a binding is
    announced. ``identity``: whom TLS has proved the client to be. ``tls_exporter``: the binding of TLS 1.3 (RFC 9266).
    What is not known is None.
    """

    channel_binding: bytes | None = None
    binding_offered: bool = False
    identity: str | None = None
    tls_exporter: bytes | None = None

    @property
    def bindings(self) -> dict[str, bytes]:
        """The channel's bindings, by the names that clients give them (RFC 5056 §7)."""
        found = {"tls-exporter": self.tls_exporter, "tls-server-end-point": self.channel_binding}
        return {name: binding for name, binding in found.items() if binding is not None}


Stored: TypeAlias = ScramSecret | PlainSecret | NoSecret

ServerSteps: TypeAlias = Generator[Challenge | SecretWanted | VerdictWanted, bytes | Stored, Outcome]
"""A server's mechanism at work."""

ClientSteps: TypeAlias = Generator[bytes | None, bytes, None]
"""A client's mechanism at work. Raises `SaslError` for a challenge that the mechanism does not have."""

SURPLUS: Final = "the server sends a challenge after the last one of the mechanism"
"""Why a client's mechanism fails when all its responses were given."""


def text_of(octets: bytes) -> str:
    """Octets as UTF-8 without NUL. Raises `SaslError`."""
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise SaslError("a name is UTF-8") from None
    if "\0" in text:
        raise SaslError("a name has no NUL")
    return text
