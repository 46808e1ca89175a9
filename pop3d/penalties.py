"""What guessing passwords costs: failed logins are told late, and later each time.

An address (of IPv6: its /64) that has failed lately is checked one login at a time, and a refusal takes its time: the
place is held until it was told, whether or not the client still waits for it, so that many connections gain nothing.
Whoever logged in lately from the same address counts as an address of his own, and the first logins of an address that
has not failed are checked at once: an attack from elsewhere, or from the neighbour, keeps nobody out.

Failures of one account and in all are counted for a minute. Beyond their limits logins are refused unchecked, with a
code that says it will pass; they are no failures, so that nobody is locked out by them.

Bookkeeping only, with two exceptions: it looks at the clock, and frees a place later. All tables are bounded: who was
there longest ago is forgotten first.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from pop3d.config import Limits

__all__ = ["Attempt", "Penalties", "TooMany", "source_of"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_TOGETHER: Final = 4
"""Logins checked at a time of an address that has not failed: people behind one router, or a guess of four."""

_WAITING_MAX: Final = 50
"""Logins of one address that wait for their turn."""

_FORGIVEN: Final = 900.0
"""Seconds without a failure after which an address has not failed."""

_LATELY: Final = 24 * 3600.0
"""Seconds for which a login makes its user known at an address."""

_MINUTE: Final = 60.0

_ENTRIES_MAX: Final = 100_000
"""Entries of each table; some 300 octets each."""


class TooMany(Exception):
    """A login is refused unchecked; the text says of what there were too many."""


class _Table(OrderedDict[K, V], Generic[K, V]):
    """Of bounded size: the entry longest unused goes first."""

    def use(self, key: K, make: Callable[[], V]) -> V:
        if key in self:
            self.move_to_end(key)
            return self[key]
        self[key] = made = make()
        if len(self) > _ENTRIES_MAX:
            self.popitem(last=False)
        return made


@dataclass(slots=True, eq=False)
class Attempt:
    """A login. ``turn`` is set when it may be checked, which began then at ``begun``."""

    source: _Source
    known_as: tuple[str, str]
    turn: asyncio.Event = field(default_factory=asyncio.Event)
    begun: float = 0.0
    holds_a_place: bool = False


@dataclass(slots=True, eq=False)
class _Source:
    """An address. ``checking``: how many logins hold a place; others wait."""

    failures: int = 0
    failed_at: float = 0.0
    checking: int = 0
    waiting: list[Attempt] = field(default_factory=list)  # a deque, even an empty one, takes 600 octets


@dataclass(slots=True, eq=False)
class _Known:
    """A user who logged in at an address at ``since``, and is no more held up by what others do there."""

    since: float = 0.0
    source: _Source = field(default_factory=_Source)


class Penalties:
    """Of one server. ``clock``: monotonic seconds; ``later``: calls a function after so many seconds."""

    def __init__(
        self,
        limits: Limits,
        *,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], None]], object] | None = None,
    ) -> None:
        self._limits, self._clock = limits, clock
        self._later = later or (lambda seconds, call: asyncio.get_running_loop().call_later(seconds, call))
        self._sources: _Table[str, _Source] = _Table()
        self._known: _Table[tuple[str, str], _Known] = _Table()
        self._failed_of: _Table[str, deque[float]] = _Table()
        self._failed: deque[float] = deque(maxlen=limits.auth_failures_total)

    def begin(self, address: str, username: str) -> Attempt:
        """A login wants to be checked; it waits for its `Attempt.turn`. Raises `TooMany`.

        What was begun must end: `accepted`, `failed` or `leave`.
        """
        now, key = self._clock(), source_of(address)
        known = self._known.get((key, username))
        if known is not None and now - known.since < _LATELY:
            source = known.source
        else:
            source = self._sources.use(key, _Source)
            if self._is_full(self._failed, now):
                raise TooMany("too many failed logins")
            fresh = not source.failures and not source.checking
            # without a name: by a token, whose failures are not of one account
            if username and not fresh and self._is_full(self._failed_of.get(username), now):
                raise TooMany("too many failed logins of this user")
        if source.failures and now - source.failed_at > _FORGIVEN:
            source.failures = 0
        attempt = Attempt(source, (key, username))
        if len(source.waiting) >= _WAITING_MAX:
            raise TooMany("too many logins from this address wait")
        source.waiting.append(attempt)
        self._next(source)
        return attempt

    def accepted(self, attempt: Attempt) -> None:
        """The login was good: its user is known at this address, and as one of its own there."""
        self._known.use(attempt.known_as, _Known).since = self._clock()
        self.leave(attempt)

    def failed(self, attempt: Attempt) -> float:
        """The login was refused; seconds until this may be told. The place is free again then."""
        now, source = self._clock(), attempt.source
        # an exponent of 30 is beyond any maximum, and 2.0 ** 1024 would be too large to compute
        penalty = min(self._limits.auth_penalty * 2.0 ** min(source.failures, 30), self._limits.auth_penalty_max)
        source.failures += 1
        source.failed_at = now
        self._failed.append(now)
        _, username = attempt.known_as
        limit = self._limits.auth_failures_per_account
        self._failed_of.use(username, lambda: deque(maxlen=limit)).append(now)
        wait = max(0.0, attempt.begun + penalty - now)
        self._later(wait, lambda: self.leave(attempt))
        return wait

    def leave(self, attempt: Attempt) -> None:
        """The login needs its place no more, or does not wait for one."""
        source = attempt.source
        if attempt.holds_a_place:
            attempt.holds_a_place = False
            source.checking -= 1
            self._next(source)
        elif attempt in source.waiting:
            source.waiting.remove(attempt)

    def _next(self, source: _Source) -> None:
        places = 1 if source.failures and self._limits.auth_penalty else _TOGETHER
        while source.waiting and source.checking < places:
            self._start(source.waiting.pop(0))

    def _start(self, attempt: Attempt) -> None:
        attempt.begun, attempt.holds_a_place = self._clock(), True
        attempt.source.checking += 1
        attempt.turn.set()

    @staticmethod
    def _is_full(failures: deque[float] | None, now: float) -> bool:
        return failures is not None and len(failures) == failures.maxlen and now - failures[0] < _MINUTE


@functools.lru_cache(maxsize=4096)
def source_of(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 of an IPv6 one."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
