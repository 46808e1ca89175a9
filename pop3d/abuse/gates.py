"""A gate that logins pass one behind the other, once there were too many failed ones.

Up to a load of so many, a gate lets everybody through at once. Beyond it, logins pass at intervals: first those that
come from where the fewest have failed and wait, and of these the one that came first. The load is the failures that are
not yet forgotten, and the logins that are being checked.

Bookkeeping only, with two exceptions: it looks at the clock, and calls itself later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

__all__ = ["FailureCount", "Gate", "GateRule", "WaitingLogin"]

_FORGIVEN: Final = 900.0
"""Seconds without a failure after which there has been none."""


class FailureCount:
    """What logins have failed at or from."""

    __slots__ = ("_failed_at", "_failures")

    def __init__(self) -> None:
        self._failures = 0
        self._failed_at = 0.0

    def failures(self, now: float) -> int:
        """How many, the last one within a quarter of an hour."""
        if self._failures and now - self._failed_at > _FORGIVEN:
            self._failures = 0
        return self._failures

    def add_failure(self, now: float) -> None:
        """One more."""
        self._failures = self.failures(now) + 1
        self._failed_at = now

    def take_back(self, failures: int) -> None:
        """So many of them were the user's own mistakes, who has logged in now."""
        self._failures = max(0, self._failures - failures)


class WaitingLogin(Protocol):
    """A login on its way."""

    def passed(self) -> None:
        """It goes on."""
        ...


@dataclass(slots=True)
class GateRule:
    """How gates of one kind work, in seconds. All gates of the kind have the same object, so it may be changed.

    ``free``: the load up to which nobody waits; ``forgotten``: failures a second that are forgotten; ``load_max``: no
    more are remembered; ``interval``: between two logins, for each one of the load, up to ``interval_max``.
    """

    free: int
    forgotten: float
    load_max: float
    interval: float
    interval_max: float
    clock: Callable[[], float]
    later: Callable[[float, Callable[[], None]], object]


class Gate(FailureCount):
    """Logins `enter`; each that was let pass must `release`."""

    __slots__ = ("_called", "_load", "_loaded_at", "_opens", "_rule", "_under_way", "_waiting")

    def __init__(self, rule: GateRule) -> None:
        super().__init__()
        self._rule = rule
        self._load, self._loaded_at = 0.0, 0.0
        self._under_way = 0
        self._opens = 0.0
        self._called = False
        self._waiting: dict[WaitingLogin, int] = {}

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def under_way(self) -> int:
        """How many have passed, and have not left."""
        return self._under_way

    def enter(self, login: WaitingLogin, behind: int) -> None:
        """Let it pass now or later. ``behind``: how many others it lets go first; those with fewer do."""
        self._waiting[login] = behind
        self._open()

    def withdraw(self, login: WaitingLogin) -> None:
        """It waits no more, if it does."""
        self._waiting.pop(login, None)

    def release(self) -> None:
        """One that had passed was checked, or gave up."""
        self._under_way -= 1
        self._open()

    def add_load(self, failures: float) -> None:
        """So many failures more; or, of what was taken back, fewer."""
        now = self._rule.clock()
        load = self._load_at(now) + failures
        self._load, self._loaded_at = max(0.0, min(load, self._rule.load_max)), now

    def _load_at(self, now: float) -> float:
        return max(0.0, self._load - (now - self._loaded_at) * self._rule.forgotten)

    def _open(self) -> None:
        rule = self._rule
        while self._waiting:
            now = rule.clock()
            load = self._load_at(now) + self._under_way
            if load >= rule.free and now < self._opens:
                self._call(self._opens - now)
                return
            login = min(self._waiting, key=self._waiting.__getitem__)  # the first of those with the fewest
            del self._waiting[login]
            self._under_way += 1
            self._opens = now + min(rule.interval * (load + 1), rule.interval_max)
            login.passed()

    def _call(self, seconds: float) -> None:
        if not self._called:
            self._called = True
            self._rule.later(seconds, self._again)

    def _again(self) -> None:
        self._called = False
        self._open()
