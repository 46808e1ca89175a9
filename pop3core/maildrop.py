"""A maildrop as one session sees it: a frozen listing, and marks on it.

A store makes a `Listing` when the mailbox is opened; nothing that happens to the mailbox afterwards changes it (RFC
1939 §4: the nth message is number n, and stays it). The engine lays `Marks` over it. Number spaces: ``number`` is
1..n, ``size`` is in octets as RETR sends them, CRLF included and stuffing not, ``uid`` is the unique-id.

A million messages must fit: sizes may come as an ``array("Q")``, unique-ids as a `PackedOctets`.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import compress, count, islice
from typing import Final, TypeVar, overload

from pop3core.errors import LocalProtocolError
from pop3core.framing import TERMINATOR

__all__ = ["UID_OCTETS_MAX", "Listing", "MarkedNumbers", "Marks", "PackedOctets", "is_unique_id"]

T = TypeVar("T")

UID_OCTETS_MAX: Final = 70
"""The longest unique-id (RFC 1939 §7)."""

_NAMED_MAX: Final = 1_000  # of the messages that a driver could not remove: so many are looked at
_UID_OCTETS = bytes(range(0x21, 0x7F))


def is_unique_id(uid: bytes) -> bool:
    """True for 1 to 70 octets of 0x21 to 0x7E (RFC 1939 §7 UIDL)."""
    return 0 < len(uid) <= UID_OCTETS_MAX and not uid.translate(None, _UID_OCTETS)


class PackedOctets(Sequence[bytes]):
    """Many short octet strings in one piece of memory: 8 octets of overhead each, not 41."""

    __slots__ = ("_ends", "_octets")

    def __init__(self, strings: Iterable[bytes]) -> None:
        octets, ends = bytearray(), array("Q")
        for string in strings:
            octets += string
            ends.append(len(octets))
        self._octets, self._ends = bytes(octets), ends

    @classmethod
    def of(cls, octets: bytes, ends: array[int]) -> PackedOctets:
        """What `packed` gave: all strings in one, and where each of them ends."""
        made = cls(())
        made._octets, made._ends = octets, ends
        return made

    @property
    def packed(self) -> tuple[bytes, array[int]]:
        """All strings in one, and where each of them ends (an ``array("Q")``): to be kept, and for `of`."""
        return self._octets, self._ends

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        ends = self._ends
        if index < 0:
            index += len(ends)
        if not 0 <= index < len(ends):
            raise IndexError(index)
        return self._octets[ends[index - 1] if index else 0 : ends[index]]

    def __iter__(self) -> Iterator[bytes]:
        start = 0
        for end in self._ends:
            yield self._octets[start:end]
            start = end


class Listing:
    """The messages of a maildrop, frozen: message ``number`` has ``sizes[number - 1]`` and ``uids[number - 1]``.

    Raises `LocalProtocolError` when there are not as many sizes as unique-ids. That each unique-id is 1 to 70 printable
    octets and stands once is the store's promise (RFC 1939 §7); the contract suite for stores tests it.
    """

    __slots__ = ("octets", "sizes", "uids")

    def __init__(self, sizes: Sequence[int] = (), uids: Sequence[bytes] = ()) -> None:
        if len(sizes) != len(uids):
            raise LocalProtocolError(f"a listing of {len(sizes)} sizes has {len(uids)} unique-ids")
        self.sizes = sizes
        self.uids = uids
        self.octets = sum(sizes)
        """All sizes together."""

    def __len__(self) -> int:
        return len(self.sizes)

    def __repr__(self) -> str:
        return f"<Listing of {len(self.sizes)} messages, {self.octets} octets>"


class Marks:
    """Which messages of a listing are marked as deleted, and what is left."""

    __slots__ = ("_flags", "_listing", "marked", "octets")

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self.reset()

    def reset(self) -> None:
        """Take all marks back (RFC 1939 §5 RSET)."""
        self._flags = bytearray(len(self._listing))
        self.marked = 0
        """How many messages are marked."""
        self.octets = self._listing.octets
        """The sizes of those not marked, together."""

    @property
    def messages(self) -> int:
        """How many messages are not marked."""
        return len(self._listing) - self.marked

    def has(self, number: int) -> bool:
        """True when there is a message ``number`` and it is not marked."""
        return 0 < number <= len(self._flags) and not self._flags[number - 1]

    def mark(self, number: int) -> None:
        """Mark message ``number``, for which `has` is true."""
        self._flags[number - 1] = 1
        self.marked += 1
        self.octets -= self._listing.sizes[number - 1]

    def numbers(self) -> MarkedNumbers:
        """The marked messages, ascending; as long as no mark changes."""
        return MarkedNumbers(self._flags, self.marked)

    def present(self, values: Sequence[T]) -> Iterator[tuple[int, T]]:
        """The messages that are not marked, ascending, each with its own of ``values``; all messages have one.

        To go over marked ones takes no time: a hundred thousand of them, some microseconds.
        """
        return self._between(values) if self.marked else enumerate(values, 1)

    def lines(self, line: bytes, values: Sequence[object], piece_octets: int) -> Iterator[bytes]:
        """A line for each message that is not marked, and the terminator: LIST's and UIDL's (RFC 1939 §5, §7).

        Some at a time, ``piece_octets`` or a little more: a million of them are never in memory at once. ``line``: to
        be filled in with message number and value; ``values``: one for each message.
        """
        piece, octets = [], 0
        for numbered in self.present(values):
            piece.append(text := line % numbered)
            octets += len(text)
            if octets >= piece_octets:
                yield b"".join(piece)
                piece, octets = [], 0
        yield b"".join((*piece, TERMINATOR))

    def _between(self, values: Sequence[T]) -> Iterator[tuple[int, T]]:
        find = self._flags.find
        place = find(0)
        while place >= 0:
            yield place + 1, values[place]
            place = find(0, place + 1)


class MarkedNumbers(Sequence[int]):
    """The numbers of marked messages, ascending: a view of the marks, equal to a tuple of the same numbers.

    To index it takes as long as to go over all of it.
    """

    __slots__ = ("_flags", "_marked")

    def __init__(self, flags: bytearray, marked: int) -> None:
        self._flags, self._marked = flags, marked

    def __len__(self) -> int:
        return self._marked

    def __iter__(self) -> Iterator[int]:
        return compress(count(1), self._flags)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[int, ...]: ...
    def __getitem__(self, index: int | slice) -> int | tuple[int, ...]:
        return tuple(self)[index]

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and 0 < number <= len(self._flags) and bool(self._flags[number - 1])

    def left_of(self, left: Collection[int]) -> int | None:
        """How many of these messages are still there, by a driver that names ``left``; None when it names others.

        Of very many the first are looked at: to look at a million would take too long.
        """
        some = frozenset(islice(left, _NAMED_MAX))
        if not all(map(self.__contains__, some)):
            return None
        return len(some) if len(left) <= _NAMED_MAX else min(len(left), self._marked)

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, MarkedNumbers | tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))
