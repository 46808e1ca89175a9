"""What guessing passwords costs: failed logins are told late, and later each time.

A login passes what it needs to, in this order, and is checked then:

- the place of its user at its address: once that pair has failed, one login at a time, and a refusal holds the place
  until it was told, whether or not the client still waits for it, so that many connections gain nothing;
- the gate of its address (of IPv6: its /64), which slows down guesses of many users' passwords;
- the gate of its network (of IPv6: its /56), so that one host with many addresses is no faster than a few;
- the gate of all, which bounds guesses from everywhere. Gates let those pass first who come from where the fewest
  failed, so an attack from elsewhere keeps no new user out. See `pop3d.abuse.gates`.

A user who logged in lately from the same address is known there, and needs only that place: neither strangers behind
the same address nor an attack on all hold him up. Trusted addresses have no places and no gate of their own, but the
limit of an account holds for them. Failures of one account are counted for a minute; beyond the limit its logins are
refused unchecked, with a code that says it will pass, but for those of users known where they come from, and the first
from where nobody has failed: nobody is locked out by somebody else's guesses.

A good login takes back what the same user has failed at the same address.

All tables are bounded in octets: names and addresses are kept as hashes of 16 octets, and who was there longest ago is
forgotten first. Bookkeeping only, with two exceptions: it looks at the clock, and frees a place later.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
import time
from collections.abc import Callable, Iterable
from typing import Final

from pop3d.abuse.addresses import Trusted, network_of, source_of
from pop3d.abuse.attempts import MINUTE, Attempt, AttemptPlace, AttemptTable, FailuresOfMinute, KnownPlace
from pop3d.abuse.gates import Gate, GateRule
from pop3d.config import Limits

__all__ = ["KNOWN_FOR", "LoginThrottle", "TooMany"]

_TOGETHER: Final = 4
"""Logins checked at a time where none has failed: people behind one router, or a guess of four."""

_WAITING_MAX: Final = 50
"""Logins of one address, and of one user there, that wait for their turn."""

KNOWN_FOR: Final = 7 * 24 * 3600.0
"""Seconds for which a login makes its user known at an address: whoever was there last week."""

_RENEWED: Final = 3600.0
"""Seconds after which a login makes it known anew: who asks every minute changes nothing."""


class TooMany(Exception):
    """A login is refused unchecked; the text says of what there were too many."""


class LoginThrottle:
    """Of one server. ``trusted``: addresses of many users, see above; ``key``: for the hashes, the same for ever where
    known users are kept; ``clock``: monotonic seconds; ``later``: calls a function after so many seconds.
    """

    def __init__(
        self,
        limits: Limits,
        trusted: Trusted | None = None,
        key: bytes = b"",
        *,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], None]], object] | None = None,
    ) -> None:
        self._limits, self._clock = limits, clock
        self._trusted = trusted or Trusted()
        self._later = later or (lambda seconds, call: asyncio.get_running_loop().call_later(seconds, call))
        self._key = hashlib.sha256(key or os.urandom(32)).digest()
        self._places: AttemptTable[bytes, AttemptPlace] = AttemptTable()
        self._known: AttemptTable[bytes, KnownPlace] = AttemptTable()
        self._sources: AttemptTable[bytes, Gate] = AttemptTable()
        self._networks: AttemptTable[bytes, Gate] = AttemptTable()
        self._accounts: AttemptTable[bytes, FailuresOfMinute] = AttemptTable()
        self._of_source, self._of_network, self._of_all = self._rules()
        self._all = Gate(self._of_all)
        self.changed = False
        """Who is known has changed; whoever keeps it sets this back."""

    def _rules(self) -> tuple[GateRule, GateRule, GateRule]:
        longest, step = self._limits.auth_penalty_max, self._limits.auth_penalty / 2
        total, at_once = self._limits.auth_failures_total, max(1, self._limits.auth_failures_total // 60)
        each = 1.1 * MINUTE / total  # a tenth more, so that with what passes at once it stays below the limit
        clock, later = self._clock, self._later
        remembered = max(2 * _TOGETHER, int(longest / step) if step else 0)
        return (
            # of an address, longer with each user whose password was guessed there; forgotten one a minute
            GateRule(_TOGETHER, 1 / MINUTE, remembered, step, longest, clock, later),
            # of a network, a guess a second
            GateRule(_TOGETHER, 1 / step if step else 1.0, 2 * _TOGETHER, step, step, clock, later),
            # of all, so many a minute, and of these a second's worth at once
            GateRule(at_once, 1 / each, 2 * at_once, each, each, clock, later),
        )

    def take(self, limits: Limits, trusted: Trusted) -> None:
        """Other limits for what comes; whatever was counted, and who is known, stays."""
        self._limits, self._trusted = limits, trusted
        for rule, other in zip((self._of_source, self._of_network, self._of_all), self._rules(), strict=True):
            for field in dataclasses.fields(GateRule):
                setattr(rule, field.name, getattr(other, field.name))

    # --- a login ---

    def begin(self, address: str, name: str, *, served: bool = True) -> Attempt:
        """A login wants to be checked; it waits for its `Attempt.turn`. Raises `TooMany`.

        ``name``: of the account; empty for a token, whose failures are not of one account. Not ``served``: by a
        mechanism that the account cannot use, which does not count against its other ways to log in.
        What was begun must end: `accepted`, `failed` or `release`.
        """
        source = source_of(address)
        pair = self._hash(source, name)
        account = (self._hash("account" if served else "unserved", name),) if name else ()
        known = self._known.get(pair)
        if known is not None and self._clock() - known.since >= KNOWN_FOR:
            known = None
        if address in self._trusted:
            attempt = self._trusted_attempt(pair, account, known)
        elif known is not None:
            attempt = Attempt(known, (), known, pair, account, self._clock)
        else:
            attempt = self._stranger(source, network_of(address), pair, account)
        if len(attempt.place.waiting) >= _WAITING_MAX:
            raise TooMany("too many logins from this address wait")
        attempt.place.waiting.append(attempt)
        self._next(attempt.place)
        return attempt

    def _trusted_attempt(self, pair: bytes, account: tuple[bytes, ...], known: KnownPlace | None) -> Attempt:
        # of who is known there, what was guessed elsewhere does not count: an attack from there must not reach here
        limiting = account if known is None else account and (pair,)
        self._check_limit(limiting)
        gates = (self._all,) if known is None else ()
        return Attempt(AttemptPlace(), gates, None, pair, tuple({*account, *limiting}), self._clock)

    def _stranger(self, source: str, network: str, pair: bytes, account: tuple[bytes, ...]) -> Attempt:
        gate = self._sources.use(self._hash("source", source), lambda: Gate(self._of_source))
        gates: tuple[Gate, ...] = (gate,)
        if network != source:
            gates += (self._networks.use(self._hash("network", network), lambda: Gate(self._of_network)),)
        now = self._clock()
        if any(one.failures(now) or one.under_way or one.waiting for one in gates):
            self._check_limit(account)
        if gate.waiting >= _WAITING_MAX:
            raise TooMany("too many logins from this address wait")
        place = self._places.use(pair, AttemptPlace)
        return Attempt(place, (*gates, self._all), gate, pair, account, self._clock)

    def _check_limit(self, account: tuple[bytes, ...]) -> None:
        for key in account:
            minute = self._accounts.get(key)
            if minute is not None and minute.failures(self._clock()) >= self._limits.auth_failures_per_account:
                raise TooMany("too many failed logins of this user")

    def accepted(self, attempt: Attempt, address: str, name: str) -> None:
        """The login was good: its user is known at this address; what the same user failed there is taken back.

        ``name``: of the account that it is.
        """
        now = self._clock()
        for pair in {attempt.pair, self._hash(source_of(address), name)}:
            known = self._known.use(pair, lambda: KnownPlace(-KNOWN_FOR))
            if now - known.since >= _RENEWED:
                known.since, self.changed = now, True
        failures = attempt.place.failures(now)
        attempt.place.take_back(failures)
        if failures and attempt.gates:
            for gate in attempt.gates[:-1]:
                gate.take_back(failures)
            attempt.gates[0].add_load(-1)
        self.release(attempt)

    def failed(self, attempt: Attempt) -> float:
        """The login was refused; seconds until this may be told. The place is free again then."""
        now, limits = self._clock(), self._limits
        penalty = 0.0
        if attempt.strikes is not None:
            # an exponent of 30 is beyond any maximum, and 2.0 ** 1024 would be too large to compute
            strikes = min(attempt.strikes.failures(now), 30)
            penalty = min(limits.auth_penalty * 2.0**strikes, limits.auth_penalty_max)
        for number, gate in enumerate(attempt.gates):
            gate.add_failure(now)
            # one user with an old password is not many that are guessed: at an address each counts once
            gate.add_load(0 if number == 0 and gate is not self._all and attempt.place.failures(now) else 1)
        attempt.place.add_failure(now)
        for key in attempt.counts:
            self._accounts.use(key, FailuresOfMinute).add(now)
        self._release_gates(attempt)
        wait = max(0.0, attempt.begun + penalty - now)
        self._later(wait, lambda: self._release_place(attempt))
        return wait

    def release(self, attempt: Attempt) -> None:
        """The login needs its place no more, or does not wait for one."""
        self._release_gates(attempt)
        self._release_place(attempt)

    def _release_gates(self, attempt: Attempt) -> None:
        gates, attempt.gates = attempt.gates, ()
        passes, attempt.passes = attempt.passes, 0
        for number, gate in enumerate(gates):
            if number < passes:
                gate.release()
            else:
                gate.withdraw(attempt)

    def _release_place(self, attempt: Attempt) -> None:
        place = attempt.place
        if attempt.holds_a_place:
            attempt.holds_a_place = False
            place.checking -= 1
            self._next(place)
        elif attempt in place.waiting:
            place.waiting.remove(attempt)

    def _next(self, place: AttemptPlace) -> None:
        places = 1 if place.failures(self._clock()) and self._limits.auth_penalty else _TOGETHER
        while place.waiting and place.checking < places:
            attempt = place.waiting.pop(0)
            place.checking += 1
            attempt.holds_a_place = True
            attempt.go_on()

    def _hash(self, *parts: str) -> bytes:
        text = "\0".join(parts).encode("utf-8", "surrogateescape")
        return hashlib.blake2b(text, digest_size=16, key=self._key).digest()

    # --- who is known ---

    def remember(self, known: Iterable[tuple[bytes, float]]) -> None:
        """Users known before a restart: hash, and seconds since they logged in; the oldest first."""
        now = self._clock()
        for pair, age in known:
            self._known.use(pair, lambda: KnownPlace(-KNOWN_FOR)).since = now - age

    def known(self) -> list[tuple[bytes, float]]:
        """What `remember` takes. For any thread: what takes long is done on a copy, which is made in one step."""
        known, now = list(self._known.items()), self._clock()
        return [(pair, now - one.since) for pair, one in known]
