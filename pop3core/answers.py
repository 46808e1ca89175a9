"""All that a driver may answer.

What the engine cannot know it asks, with an event that ends in "Requested"; each of those says which of these answers
it takes. Any other answer is a `LocalProtocolError`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TypeAlias

from pop3core.maildrop import Listing
from pop3core.replies import Code

__all__ = [
    "CommitFailed",
    "Committed",
    "Content",
    "ContentFailed",
    "LoginAccepted",
    "LoginRejected",
    "Pending",
    "ServerAnswer",
    "TlsEstablished",
]


@dataclass(frozen=True, slots=True)
class LoginAccepted:
    """The credential is good, the maildrop open and locked. ``messages``: its listing."""

    messages: Listing


@dataclass(frozen=True, slots=True)
class LoginRejected:
    """No. ``code``: None when the credential was checked and refused, which counts as a failed login; else a response
    code such as ``"IN-USE"`` or ``"SYS/TEMP"``, for a reason that is not the client's. ``text``: ASCII, for people.
    """

    code: Code | None
    text: str


@dataclass(frozen=True, slots=True)
class Content:
    """A piece of a message: ``data`` has CRLF line ends, the final one included; ``last``: nothing follows.

    At most `Limits.content_octets_max` octets, and not empty unless ``last``.
    """

    data: bytes = field(repr=False)
    last: bool


@dataclass(frozen=True, slots=True)
class ContentFailed:
    """The message cannot be read (on). At offset 0 that is said with -ERR; later the connection is closed."""

    code: Code | None
    text: str


@dataclass(frozen=True, slots=True)
class Pending:
    """Reading would have to wait: send first what there is, then ask again."""


@dataclass(frozen=True, slots=True)
class Committed:
    """All messages are removed, durably, and the lock is free."""


@dataclass(frozen=True, slots=True)
class CommitFailed:
    """Not all could be removed.

    ``left``: the numbers of those still there; ``code``: ``"SYS/TEMP"`` or ``"SYS/PERM"``.
    """

    left: Collection[int]
    code: Code


@dataclass(frozen=True, slots=True)
class TlsEstablished:
    """The connection is behind TLS; given before the first event when it is so from the start."""


ServerAnswer: TypeAlias = (
    LoginAccepted | LoginRejected | Content | ContentFailed | Pending | Committed | CommitFailed | TlsEstablished
)
"""All that a `ServerConnection` can be answered."""
