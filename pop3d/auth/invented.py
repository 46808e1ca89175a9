"""What SCRAM's first message says of users who do not exist: iterations and salt as a user of this site has them.

A stored verifier has the iterations and the length of the salt that it was made with. A name that nobody has is given
those of one of the site's users, drawn by a hash of the name with the site's secret: always the same ones for a name,
and as often as users have them. When users come and go, no more names change than must (rendezvous hashing with
weights).
"""

from __future__ import annotations

import hmac
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

__all__ = ["USUAL", "InventedUsers", "Shape"]

Shape: TypeAlias = tuple[int, int]
"""Iterations, and octets of the salt."""

USUAL: Final[Shape] = (4096, 16)
"""What `pop3d user` makes."""

_SHAPES_MAX: Final = 16  # the most frequent ones; each costs some microseconds


class InventedUsers:
    """Salts and iterations for names, made from ``key``."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._shapes: list[tuple[Shape, int]] = [(USUAL, 1)]

    def learn(self, shapes: Mapping[Shape, int] | Iterable[Shape]) -> None:
        """What the site's users have, once for each, or how often; none: `USUAL`."""
        self._shapes = Counter(shapes).most_common(_SHAPES_MAX) or [(USUAL, 1)]

    def salt(self, name: str, octets: int = USUAL[1]) -> bytes:
        """A name's salt; a longer one begins with the shorter one."""
        block = hmac.digest(self._key, _octets(name), "sha256")
        salt = block
        while len(salt) < octets:
            block = hmac.digest(self._key, block + _octets(name), "sha256")
            salt += block
        return salt[:octets]

    def shape(self, name: str) -> Shape:
        """A name's iterations, and octets of its salt."""
        return min(self._shapes, key=lambda one: self._distance(name, *one))[0]

    def _distance(self, name: str, shape: Shape, users: int) -> float:
        drawn = hmac.digest(self._key, b"shape %d %d " % shape + _octets(name), "sha256")
        fraction = (int.from_bytes(drawn[:8]) + 1) / (2**64 + 1)
        return -math.log(fraction) / users


def _octets(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
