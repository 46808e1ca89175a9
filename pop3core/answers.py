"""All that a driver may answer.

What the engine cannot know it asks, with an event that ends in "Requested"; each of those says which of these answers
it takes. Any other answer is a `LocalProtocolError`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import field
from typing import TypeAlias

from pop3core.maildrop import Listing
from pop3core.replies import Code
from pop3core.sasl.base import NoSecret, PlainSecret, ScramSecret
from pop3core.value import value

__all__ = [
    "ClientAnswer",
    "CommitFailed",
    "Committed",
    "Content",
    "ContentFailed",
    "LoginAccepted",
    "LoginRejected",
    "NoSecret",
    "Pending",
    "PlainSecret",
    "SaslCancelled",
    "SaslResponse",
    "ScramSecret",
    "ServerAnswer",
    "TlsEstablished",
]


@value
class LoginAccepted:
    """The credential is good, the maildrop open and locked. ``messages``: its listing.

    ``expire``, ``login_delay``: this user's argument of that capability; empty for what the configuration says
    (RFC 2449 §6.5, §6.7; a user must know how long mail is kept, RFC 1939 §8).
    """

    messages: Listing
    expire: str = ""
    login_delay: str = ""


@value
class LoginRejected:
    """No. ``code``: None when the credential was checked and refused, which counts as a failed login; else a response
    code such as ``"IN-USE"`` (the maildrop cannot be locked, RFC 1939 §4) or ``"SYS/TEMP"``, for a reason that is not
    the client's. ``text``: ASCII, for people.
    """

    code: Code | None
    text: str


@value
class Content:
    """A piece of a message: ``data`` has CRLF line ends, the final one included; ``last``: nothing follows.

    At most `Limits.content_octets_max` octets, and not empty unless ``last``.
    """

    data: bytes = field(repr=False)
    last: bool


@value
class ContentFailed:
    """The message cannot be read (on). At offset 0 that is said with -ERR; later the connection is closed."""

    code: Code | None
    text: str


@value
class Pending:
    """Reading would have to wait: send first what there is, then ask again."""


@value
class Committed:
    """All messages are removed, durably, and the lock is free."""


@value
class CommitFailed:
    """Not all could be removed.

    ``left``: the numbers of those still there, among those asked for; ``code``: ``"SYS/TEMP"`` or ``"SYS/PERM"``.
    """

    left: Collection[int]
    code: Code


@value
class TlsEstablished:
    """The connection is behind TLS; given before the first event when it is so from the start.

    ``channel_binding``: tls-server-end-point, the hash of the server's certificate (RFC 5929 §4).
    ``identity``: whom the client's certificate proves it to be, for EXTERNAL. ``tls_exporter``: 32 octets, the binding
    of TLS 1.3 (RFC 9266 §2). What is not known is None. With neither binding SCRAM-SHA-256-PLUS is not announced.
    """

    channel_binding: bytes | None = None
    identity: str | None = None
    tls_exporter: bytes | None = None


@value
class SaslResponse:
    """A client's answer to a challenge: octets, not base64.

    ``data``: what the client's generator yields, as it is: a `ServerProved` also says that the server's proof is good.
    """

    data: bytes = field(repr=False)


@value
class SaslCancelled:
    """A client breaks the exchange off."""


ServerAnswer: TypeAlias = (
    LoginAccepted
    | LoginRejected
    | ScramSecret
    | PlainSecret
    | NoSecret
    | TlsEstablished
    | Content
    | ContentFailed
    | Pending
    | Committed
    | CommitFailed
)
"""All that a `ServerConnection` can be answered."""

ClientAnswer: TypeAlias = TlsEstablished | SaslResponse | SaslCancelled
"""All that a `ClientConnection` can be answered."""
