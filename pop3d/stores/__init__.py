"""What a store of mail is, to the daemon.

A `Store` opens a user's mailbox; a `Maildrop` is that mailbox, open and locked, for one session. Both are small on
purpose; what only some stores can do is an ability of its own (`ReadsNow`, `Releases`, `MarksSeen`), looked for when it
is wanted. Number spaces are the engine's: ``number`` is 1..n of the listing, ``offset`` counts octets of content as
sent (CRLF, no stuffing).

A store reports trouble by raising `StoreError`; anything else that it raises is a bug of the store, and ends the
session.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pop3d.auth import Account

if TYPE_CHECKING:  # whoever only delivers mail does without the engine
    from pop3core.answers import Content
    from pop3core.maildrop import Listing
    from pop3core.replies import Code

__all__ = [
    "Closes",
    "KnowsAges",
    "Maildrop",
    "MaildropBusy",
    "MarksSeen",
    "ReadsNow",
    "Releases",
    "RemovalFailed",
    "Store",
    "StoreError",
]


class StoreError(Exception):
    """Something a client is told as -ERR.

    ``code``: a response code, or None; by default that of what will pass (RFC 3206 §4).
    ``text``: ASCII words of ours for the client; ``detail``: more for the log only.
    """

    def __init__(self, text: str, *, code: Code | None = "SYS/TEMP", detail: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.detail = detail


class MaildropBusy(StoreError):
    """Another session holds the maildrop (RFC 2449 §8.1.2).

    ``holder``: tells which process that is, or None; takes some milliseconds, for a thread. Without it, that cannot be
    known, or it is a session of this process.
    """

    def __init__(self, holder: Callable[[], int | None] | None = None) -> None:
        super().__init__("the mailbox is in use by another session", code="IN-USE")
        self.holder = holder


class RemovalFailed(StoreError):
    """Not all messages could be removed. ``left``: the numbers of those that may still be there."""

    def __init__(self, left: Collection[int], detail: str) -> None:
        super().__init__("not all messages could be removed", detail=detail)
        self.left = left


class Maildrop(Protocol):
    """A mailbox, open and locked, frozen as it was when it was opened."""

    messages: Listing
    """Sizes in octets exactly as `read` gives them, and unique-ids."""

    async def read(self, number: int, offset: int) -> Content:
        """The piece of message ``number`` at ``offset``: 0, or the end of the last piece. Raises `StoreError`."""
        ...

    async def remove(self, numbers: Collection[int]) -> None:
        """Remove messages, durably. All that can be: what could not is named by `RemovalFailed`."""
        ...

    async def close(self) -> None:
        """Free the lock and all else. May be called twice."""
        ...


class Store(Protocol):
    """Where mailboxes are."""

    async def open(self, account: Account, *, utf8: bool) -> Maildrop:
        """Open and lock the mailbox of a user who has logged in.

        ``utf8``: the client asked for UTF8 (RFC 6856). Raises `MaildropBusy` at once when another session holds it, and
        `StoreError`.
        """
        ...


@runtime_checkable
class Closes(Protocol):
    """A store that holds something."""

    async def close(self) -> None:
        """Free it: the daemon ends, and all maildrops are closed."""
        ...


@runtime_checkable
class ReadsNow(Protocol):
    """A maildrop that can often read without waiting."""

    def read_now(self, number: int, offset: int) -> Content | None:
        """As `Maildrop.read`, but never waits: None means that `read` has to."""
        ...


@runtime_checkable
class Releases(Protocol):
    """A maildrop that holds something for a message being read."""

    def release(self, number: int) -> None:
        """No more of message ``number`` will be asked for."""
        ...


@runtime_checkable
class KnowsAges(Protocol):
    """A maildrop that knows how long its messages have been there."""

    async def older_than(self, when: float) -> Collection[int]:
        """The messages that came before ``when`` (seconds since 1970), surely, and have not been touched since.

        Raises `StoreError`.
        """
        ...


@runtime_checkable
class MarksSeen(Protocol):
    """A maildrop that wants to know which messages were retrieved."""

    def retrieved(self, number: int) -> None:
        """The last piece of message ``number`` was given for a RETR. Does nothing that could wait."""
        ...
