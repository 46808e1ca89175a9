"""What there is in a mailbox, by unique-id; and how often a cut connection to it is replaced.

Whoever keeps a memory of messages (the client library, `sync`) begins here: a message's number means something in one
session only, its unique-id for as long as it exists (RFC 1939 §7 UIDL).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pop3cli.errors import CommandRefused, NoUniqueIds, ServerBroken, refusal
from pop3cli.net.session import Session
from pop3core.commands import List, Uidl
from pop3core.events import ListItem, Replied, UidItem

__all__ = ["UNIQUE_ID_MAX", "Index", "Place", "Reconnect", "read_index"]


UNIQUE_ID_MAX: Final = 250
"""Octets of a unique-id that is kept. RFC 1939 §7 allows 70; some servers' have a few more, and a million are kept."""


@dataclass(frozen=True, slots=True)
class Reconnect:
    """How often a cut connection is replaced while one thing is done, and how long to wait before.

    ``attempts``: connections after the first, 0 for none. ``pause``: seconds before the second of them, doubled for
    each that follows up to ``pause_max``; the first is made at once.
    """

    attempts: int = 4
    pause: float = 1.0
    pause_max: float = 30.0

    def pauses(self) -> Iterator[float]:
        """The seconds to wait before each attempt."""
        for attempt in range(self.attempts):
            yield min(self.pause * 2 ** (attempt - 1), self.pause_max) if attempt else 0.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message stands in one session. ``octets``: its size as LIST has it."""

    number: int
    octets: int


@dataclass(frozen=True, slots=True)
class Index:
    """A mailbox, as one session sees it.

    ``places``: unique-id to place, in the order of the numbers. ``shared``: unique-ids that several messages have
    (RFC 1939 §7 forbids it), ``nameless``: how many messages have none, or one that is too long to keep. Nobody can
    tell those from one another in another session, so they are not among the places.
    """

    places: dict[str, Place]
    shared: frozenset[str] = frozenset()
    nameless: int = 0


async def read_index(session: Session) -> Index:
    """LIST and UIDL, together. Raises `NoUniqueIds` where the server knows no UIDL, `ServerBroken` if they disagree."""
    sizes: dict[int, int] = {}
    listed: set[int] = set()  # by UIDL
    named = 0
    places: dict[str, Place] = {}
    shared: set[str] = set()
    refused: CommandRefused | None = None
    async for said in session.pipeline((List(), Uidl())):
        match said:
            case ListItem(number, octets):
                if number in sizes:
                    raise _twice(session, "LIST", number)
                sizes[number] = octets
            case UidItem(number, uid):
                if number not in sizes:
                    raise ServerBroken(session.where, f"UIDL names message {number}, LIST does not", "nothing was done")
                if number in listed:
                    raise _twice(session, "UIDL", number)
                listed.add(number)
                if len(uid) > UNIQUE_ID_MAX:
                    continue  # as good as none
                named += 1
                if uid in places:
                    shared.add(uid)
                else:
                    places[uid] = Place(number, sizes[number])
            case Replied(Uidl(), False, code, text):
                why = f"[{code}] {text}" if code else text
                remedy = "without unique-ids nobody can tell what was fetched already; use get and delete"
                refused = NoUniqueIds(f"{session.where} has no UIDL", why, remedy, code=code, text=text)
            case Replied(List(), False):
                error = refusal(session.where, said)
                assert isinstance(error, CommandRefused)
                refused = error
            case _:
                pass
    if refused is not None:
        raise refused
    for uid in shared:
        del places[uid]
    return Index(places, frozenset(shared), len(sizes) - named)


def _twice(session: Session, command: str, number: int) -> ServerBroken:
    # a message with two unique-ids could be fetched as one of them, and deleted as the other
    return ServerBroken(session.where, f"{command} names message {number} twice", "nothing was done")
