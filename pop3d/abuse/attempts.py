"""A login on its way to be checked, and what it takes: a place, gates, and a count.

See `pop3d.abuse.login_throttle`, which decides what each login has to pass.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from pop3d.abuse.gates import FailureCount, Gate

__all__ = ["ENTRIES_MAX", "MINUTE", "Attempt", "AttemptPlace", "AttemptTable", "FailuresOfMinute", "KnownPlace"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MINUTE: Final = 60.0  # seconds

ENTRIES_MAX: Final = 100_000
"""Entries of each table. One has some 500 octets at most, so the five have 250 MB at most."""


class AttemptTable(OrderedDict[K, V], Generic[K, V]):
    """Of bounded size: the entry longest unused goes first."""

    def use(self, key: K, make: Callable[[], V]) -> V:
        """The value at ``key``, made if there is none."""
        if key in self:
            self.move_to_end(key)
            return self[key]
        self[key] = made = make()
        if len(self) > ENTRIES_MAX:
            self.popitem(last=False)
        return made


class AttemptPlace(FailureCount):
    """Of a user at an address. ``checking``: how many logins hold it; others wait."""

    __slots__ = ("checking", "waiting")

    def __init__(self) -> None:
        super().__init__()
        self.checking = 0
        self.waiting: list[Attempt] = []  # a deque, even an empty one, takes 600 octets


class KnownPlace(AttemptPlace):
    """Of a user who logged in there at ``since``."""

    __slots__ = ("since",)

    def __init__(self, since: float) -> None:
        super().__init__()
        self.since = since


class FailuresOfMinute:
    """Failures of a minute, which begins with the first one."""

    __slots__ = ("_began", "_failures")

    def __init__(self) -> None:
        self._began, self._failures = 0.0, 0

    def failures(self, now: float) -> int:
        """How many."""
        return self._failures if now - self._began < MINUTE else 0

    def add(self, now: float) -> None:
        """One more."""
        self._failures = self.failures(now) + 1
        if self._failures == 1:
            self._began = now


class Attempt:
    """A login. ``turn`` is set when it may be checked, which began then at ``begun``.

    ``counts``: keys of accounts against which a failure counts; ``strikes``: whose failures make it be told later.
    """

    __slots__ = ("_clock", "begun", "counts", "gates", "holds_a_place", "pair", "passes", "place", "strikes", "turn")

    def __init__(
        self,
        place: AttemptPlace,
        gates: tuple[Gate, ...],
        strikes: FailureCount | None,
        pair: bytes,
        counts: tuple[bytes, ...],
        clock: Callable[[], float],
    ) -> None:
        self.place, self.gates, self.strikes, self.pair, self.counts = place, gates, strikes, pair, counts
        self._clock = clock
        self.turn = asyncio.Event()
        self.begun = 0.0
        self.passes = 0  # gates that are behind it
        self.holds_a_place = False

    def passed(self) -> None:
        """A gate was passed."""
        self.passes += 1
        self.go_on()

    def go_on(self) -> None:
        """To the next gate; behind the last one, to be checked."""
        now = self._clock()
        if self.passes < len(self.gates):
            behind = self.gates[: self.passes]
            failures = self.place.failures(now) + sum(gate.failures(now) for gate in behind)
            # many at once from one place delay one from elsewhere by one of them, and not by all
            self.gates[self.passes].enter(self, failures + sum(gate.under_way for gate in behind))
        else:
            self.begun = now
            self.turn.set()
