"""How long ago each account logged in: LOGIN-DELAY (RFC 2449 §6.5)."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

__all__ = ["LoginDelays"]

_ACCOUNTS_MAX: Final = 100_000  # each costs some 200 octets; of more, those that logged in first are forgotten


class LoginDelays:
    """Of this process alone, and until it ends. ``clock``: seconds that only go forward."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: OrderedDict[str, tuple[float, float]] = OrderedDict()  # by account: when, and when it is forgotten

    def is_too_soon(self, account: str, delay: float) -> bool:
        """Whether the last login is less than ``delay`` seconds ago."""
        if not delay:
            return False
        last = self._last.get(account)
        return last is not None and self._clock() < last[0] + delay

    def logged_in(self, account: str, delay: float) -> None:
        """A login was let in. ``delay``: of this account; 0: nothing is kept."""
        if not delay:
            return
        now = self._clock()
        self._last[account] = now, now + delay
        self._last.move_to_end(account)
        while self._last:
            first = next(iter(self._last))
            if self._last[first][1] > now and len(self._last) <= _ACCOUNTS_MAX:
                break
            del self._last[first]
