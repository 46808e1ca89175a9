"""Messages of another mailbox on their way into one of ours, whatever mailbox that is and wherever they go.

A source reads them one at a time, in their order; a destination takes them in groups, and each group has two steps: it
is written durably and stays invisible (`MailDestination.prepare`), and then it becomes visible, at once or message by
message (`MailDestination.publish`). Whoever imports records the group between the two. What a crash has left of a
recorded group can be found out afterwards (`MailDestination.settle`), so no message is lost or doubled.

All of it is blocking code, for a process of its own.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeAlias

__all__ = ["ArrivingMessage", "Intent", "MailDestination", "MailSource", "MessageCut", "SourceEnded", "SourceUnusable"]

Intent: TypeAlias = dict[str, Any]
"""What a destination is about to publish: JSON, for `MailDestination.settle`."""


class SourceUnusable(Exception):
    """There is no source that could be read; one line: what failed, why, what to do. ``status``: an exit code."""

    def __init__(self, text: str, *, status: int = 65) -> None:
        super().__init__(text)
        self.status = status

    @classmethod
    def of(cls, path: str, fault: OSError) -> Self:
        """A file or folder that cannot be read."""
        what = f"{fault.filename if isinstance(fault.filename, str) else path}: {fault.strerror}"
        if isinstance(fault, PermissionError):
            # a command that root has started has become another user, which is easily forgotten
            user = os.geteuid()
            with contextlib.suppress(KeyError):
                return cls(f"{what}; user {pwd.getpwuid(user).pw_name} must be able to read it, as by setfacl")
            return cls(f"{what}; user number {user} must be able to read it, as by setfacl")
        return cls(f"{what}; name an mbox file or a Maildir")


class SourceEnded(Exception):
    """The source cannot be read any further now; what came before is whole. As `SourceUnusable`."""

    def __init__(self, text: str, *, status: int = 75) -> None:
        super().__init__(text)
        self.status = status


class MessageCut(Exception):
    """A message's content is not whole. The source brings it once more, or ends."""


@dataclass(frozen=True, slots=True)
class ArrivingMessage:
    """A message of a source.

    ``key``: what it is in its source, the same whenever that is read. ``uid``: the unique-id that clients know it by,
    not checked; None where there is none. ``content``: gives its octets in pieces, once, before the next message is
    asked for; raises OSError, `pop3d.stores.maildir.compressed.NotMail`, `MessageCut` and `SourceEnded`. ``flags``: of
    Maildir; None: new mail. ``arrived``: when it came, in nanoseconds of the Unix epoch; None: not known. ``place``:
    where it is, for people.
    """

    key: bytes
    uid: bytes | None
    content: Callable[[], Iterable[bytes]]
    place: str
    flags: str | None = None
    arrived: int | None = None


class MailSource(Protocol):
    """A mailbox that messages are read from. Nothing in it is changed or removed, ever."""

    @property
    def identity(self) -> str:
        """What tells this source from others, the same on each run."""
        ...

    @property
    def total(self) -> int:
        """How much there is, in steps of `progress`."""
        ...

    @property
    def progress(self) -> int:
        """How much of it was read."""
        ...

    @property
    def failed(self) -> Sequence[str]:
        """What could not be read, one line each, so far."""
        ...

    @property
    def remarks(self) -> Sequence[str]:
        """What else an administrator should know, one line each, so far."""
        ...

    def messages(self, done: Container[bytes]) -> Iterator[ArrivingMessage]:
        """The messages in their order, without those whose keys are among ``done``. Raises `SourceEnded`."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class MailDestination(Protocol):
    """A mailbox that messages are brought into."""

    def can_keep(self, uid: bytes) -> bool:
        """Whether a message may have this unique-id."""
        ...

    def has_id(self, uid: bytes) -> bool:
        """Whether a message in it has this unique-id, as far as is known, or one that was staged has."""
        ...

    def stage(self, message: ArrivingMessage, uid: bytes | None) -> int:
        """Take a message into the group under way: its octets, as stored. ``uid``: its unique-id; None: one of ours.

        Raises `pop3d.stores.quota.OverQuota`, ValueError for a message that is too large, OSError, and what its content
        raises; the group is then as it was.
        """
        ...

    def prepare(self) -> Intent:
        """Make the group durable. Raises OSError, and for a database `pop3d.postgres.DatabaseFault`."""
        ...

    def publish(self) -> None:
        """Make the group visible, durably, and begin another one. Raises as `prepare`."""
        ...

    def drop(self) -> None:
        """Forget the group under way, as far as it is not visible."""
        ...

    def settle(self, intent: Intent, *, lately: bool) -> Sequence[bool]:
        """Of each message that ``intent`` is about, whether it became visible; what did not never will.

        For an intent of a run that was killed, before the first message is staged.

        ``lately``: the intent is not much older than a day. Raises as `prepare`.
        """
        ...

    def tidy(self) -> None:
        """Remove what runs that were killed have left, once it is recorded what became of it."""
        ...

    def close(self) -> None:
        """Free what it holds; drops the group under way."""
        ...
