"""What users are told of how often they may log in and how long mail is kept, and no other than what is done.

LOGIN-DELAY (RFC 2449 §6.5) and EXPIRE (RFC 2449 §6.7). Before the login a client is told what holds for every user: the
longest delay and the shortest time, with the token USER where they differ; behind it, the user's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from pop3d.auth.user_limits import UserLimits
from pop3d.config import Config

__all__ = ["Policy"]


@dataclass(frozen=True, slots=True)
class Policy:
    """Of a site. ``login_delay``: seconds; ``expire``: days, `math.inf` for ever; None: the store keeps no such time,
    and nothing is promised. ``delay_max``, ``expire_min``: of all users. A user's own never goes beyond these.
    """

    login_delay: int = 0
    expire: float | None = None
    delay_max: int = 0
    expire_min: float = math.inf
    delays_differ: bool = False
    expires_differ: bool = False

    @classmethod
    def of(cls, config: Config, own: Iterable[UserLimits] = ()) -> Policy:
        """As configured, for users who have those limits of their ``own``."""
        own = list(own)
        delay, expire = config.limits.login_delay, config.store.expire_days
        delays = [one.login_delay for one in own if one.login_delay is not None]
        expires = [one.expire for one in own if one.expire is not None]
        return cls(
            delay,
            expire,
            max((delay, *delays)),
            min((math.inf if expire is None else expire, *expires)),
            any(one != delay for one in delays),
            any(one != expire for one in expires),
        )

    def delay_of(self, limits: UserLimits) -> int:
        """A user's seconds between two logins."""
        return self.login_delay if limits.login_delay is None else min(limits.login_delay, self.delay_max)

    def expire_of(self, limits: UserLimits) -> float | None:
        """A user's days; None where the store keeps no such time."""
        if self.expire is None or limits.expire is None:
            return self.expire
        return max(limits.expire, self.expire_min)

    @property
    def announced_delay(self) -> str:
        """LOGIN-DELAY's argument in the AUTHORIZATION state; empty: it is not announced."""
        if not self.delay_max:
            return ""
        return f"{self.delay_max}{' USER' if self.delays_differ else ''}"

    @property
    def announced_expire(self) -> str:
        """EXPIRE's argument in the AUTHORIZATION state; empty: it is not announced."""
        if self.expire is None:
            return ""
        return f"{_argument(self.expire_min)}{' USER' if self.expires_differ else ''}"

    def own_delay(self, limits: UserLimits) -> str:
        """LOGIN-DELAY's argument for one user; empty where nobody has any."""
        return str(self.delay_of(limits)) if self.delay_max else ""

    def own_expire(self, limits: UserLimits) -> str:
        """EXPIRE's argument for one user."""
        expire = self.expire_of(limits)
        return "" if expire is None else _argument(expire)


def _argument(days: float) -> str:
    return "NEVER" if days == math.inf else str(int(days))
