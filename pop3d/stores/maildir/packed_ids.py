"""The unique-ids of a listing in little memory: most are in the file names already.

A million messages must fit, so ids are made when they are asked for, and only those that are not the unique part of the
name (`pop3d.stores.maildir.names`) are held, packed.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import overload

from pop3core.maildrop import PackedOctets
from pop3d.stores.maildir.names import unique_part

__all__ = ["ByPlace", "UniqueIds"]


class ByPlace(Mapping[int, bytes]):
    """Octets by place, ascending, in two pieces of memory: a dictionary of a million holds 150 MiB, and whoever drops
    it waits a tenth of a second.
    """

    __slots__ = ("_octets", "_places")

    def __init__(self, places: array[int], octets: PackedOctets) -> None:
        self._places, self._octets = places, octets

    @classmethod
    def of(cls, found: Mapping[int, bytes]) -> ByPlace:
        """The same as a dictionary, whose keys ascend."""
        return found if isinstance(found, cls) else cls(array("Q", found), PackedOctets(found.values()))

    @property
    def packed(self) -> tuple[array[int], PackedOctets]:
        """The places, and what is there: to be kept."""
        return self._places, self._octets

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[int]:
        return iter(self._places)

    def __getitem__(self, place: int) -> bytes:
        at = bisect_left(self._places, place)
        if at == len(self._places) or self._places[at] != place:
            raise KeyError(place)
        return self._octets[at]


class UniqueIds(Sequence[bytes]):
    """Unique-ids, made from the names when they are asked for.

    ``others``, by place and ascending, are not the name's unique part.
    """

    __slots__ = ("_names", "_others")

    def __init__(self, names: PackedOctets, others: Mapping[int, bytes]) -> None:
        self._names = names
        self._others: Mapping[int, bytes] = ByPlace.of(others) if others else {}  # mostly none

    @property
    def others(self) -> Mapping[int, bytes]:
        """Those that are not the name's unique part, by place."""
        return self._others

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if index in self._others:
            return self._others[index]
        return unique_part(self._names[index])

    def __iter__(self) -> Iterator[bytes]:
        if not self._others:
            return map(unique_part, self._names)
        return self._mixed()

    def _mixed(self) -> Iterator[bytes]:
        others = iter(self._others.items())
        place, other = next(others, (-1, b""))
        for at, name in enumerate(self._names):
            if at == place:
                yield other
                place, other = next(others, (-1, b""))
            else:
                yield unique_part(name)
