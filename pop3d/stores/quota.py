"""What a mailbox may hold, whatever store it is in."""

from __future__ import annotations

from dataclasses import dataclass

from pop3d.auth.user_limits import UserLimits

__all__ = ["OverQuota", "Quota", "quota_of"]


class OverQuota(Exception):
    """The mailbox has no room for the message; one line that says how much there is."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What a mailbox may hold; 0: no limit. ``octets``: as stored."""

    octets: int = 0
    messages: int = 0


def quota_of(octets: int, messages: int, limits: UserLimits) -> Quota:
    """A user's own ``limits`` in place of what is configured for all: ``octets`` and ``messages``, each by itself."""
    return Quota(
        octets if limits.quota_octets is None else limits.quota_octets,
        messages if limits.quota_messages is None else limits.quota_messages,
    )
