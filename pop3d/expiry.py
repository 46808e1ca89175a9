"""What goes at the QUIT of a session without a DELE, where `expire` says so (RFC 2449 §6.7, RFC 1939 §8).

Off unless configured. Nothing goes but at a QUIT that enters the UPDATE state, and then only what stood in that
session's listing: the client was told of it. A user who never logs in keeps all mail.

The time of day decides about mail here, so it is not believed blindly: a clock that jumps ahead while the daemon runs
makes no message older.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection
from typing import Final, cast

from pop3d.stores import KnowsAges, Maildrop, StoreError

__all__ = ["Expiry", "SteadyClock"]

log = logging.getLogger("pop3d.expiry")

_DAY: Final = 86_400.0
_DRIFT: Final = 3_600.0
"""Seconds that the time of day may gain in all: NTP sets a clock right by less, a fault by more."""


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class SteadyClock:
    """The time of day, in seconds since 1970; but no later than the clock that nobody sets says it can be.

    ``wall``: the time of day; ``steady``: seconds that only go forward, also while the machine sleeps.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = _since_boot) -> None:
        self._wall, self._steady = wall, steady
        self._began = wall() - steady()
        self._told = False

    def now(self) -> float:
        """Seconds since 1970."""
        wall, most = self._wall(), self._began + self._steady() + _DRIFT
        if wall > most and not self._told:
            self._told = True
            log.warning(
                "the clock has jumped ahead by %.0f seconds: messages expire by the time before that until pop3d is "
                "started again",
                wall - most + _DRIFT,
            )
        return min(wall, most)


class Expiry:
    """Of one session. ``days``: 0: what was retrieved goes; else what is older."""

    __slots__ = ("_clock", "_days", "_drop", "_retrieved")

    def __init__(self, days: float, drop: Maildrop, clock: SteadyClock) -> None:
        self._days, self._drop, self._clock = days, drop, clock
        self._retrieved: set[int] = set()

    def retrieved(self, number: int) -> None:
        """Message ``number`` was sent to its end by RETR."""
        self._retrieved.add(number)

    async def due(self, marked: Collection[int]) -> list[int]:
        """What goes besides the ``marked`` messages, ascending. What cannot be known goes another time."""
        if self._days == math.inf:
            return []
        try:
            if self._days:
                drop = cast("KnowsAges", self._drop)
                due = await drop.older_than(self._clock.now() - self._days * _DAY)
            else:
                due = self._retrieved
        except StoreError as fault:
            log.error("messages did not expire: %s", fault.detail or fault.text)
            return []
        return sorted(number for number in due if number not in marked)
