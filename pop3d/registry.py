"""Who is logged in here: the sessions of this process that hold a mailbox, by user.

A session is entered behind its login and goes when its lock is free again, so what stands here explains an [IN-USE].
That is one entry in a dict each way, and nothing is computed before somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

__all__ = ["LoggedInSession", "Registry"]


class LoggedInSession(Protocol):
    """A session that holds a mailbox, as far as others may know it."""

    @property
    def user(self) -> str | None:
        """As the store knows them, not as the client spelled it."""
        ...

    @property
    def address(self) -> str:
        """The client's."""
        ...

    @property
    def since(self) -> float:
        """When it logged in: Unix time by the clock as it is now."""
        ...

    @property
    def seconds(self) -> float:
        """How long it is logged in, by a clock that nobody sets."""
        ...

    @property
    def tls_version(self) -> str:
        """Such as ``TLSv1.3``, also that between client and proxy; empty without TLS."""
        ...

    @property
    def mechanism(self) -> str:
        """A SASL name, ``USER`` or ``APOP``."""
        ...

    def close(self, reason: str) -> None:
        """End in good order: the reply under way is completed, then the client is told."""
        ...

    def abort(self, reason: str) -> None:
        """End now; the client is told nothing."""
        ...


class Registry:
    """Iterates over all sessions, those of one user together. For the event loop's thread alone."""

    __slots__ = ("_of_user",)

    def __init__(self) -> None:
        self._of_user: dict[str, list[LoggedInSession]] = {}  # more than one where a store allows it

    def add(self, user: str, session: LoggedInSession) -> None:
        """It has logged in, and holds the mailbox."""
        self._of_user.setdefault(user, []).append(session)

    def discard(self, user: str, session: LoggedInSession) -> None:
        """It holds the mailbox no more. Does nothing for one that is not there."""
        sessions = self._of_user.get(user, [])
        if session in sessions:
            sessions.remove(session)
            if not sessions:
                del self._of_user[user]

    def of(self, user: str) -> Sequence[LoggedInSession]:
        """The sessions of a user, by the name that the store knows; the oldest first, mostly none or one."""
        return tuple(self._of_user.get(user, ()))

    def __iter__(self) -> Iterator[LoggedInSession]:
        return iter([session for sessions in self._of_user.values() for session in sessions])

    def __len__(self) -> int:
        return sum(map(len, self._of_user.values()))
