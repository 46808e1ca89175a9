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

    def check(self, messages: int, octets: int, more: int, count: int = 1) -> None:
        """Raises `OverQuota` where a mailbox with so many ``messages`` and ``octets`` has no room for ``count`` more,
        of ``more`` octets.
        """
        if self.messages and messages + count > self.messages:
            raise OverQuota(f"the mailbox is full: {messages} of {self.messages} messages")
        if self.octets and octets + more > self.octets:
            what = "this message has" if count == 1 else "these messages have"
            raise OverQuota(f"the mailbox is full: {octets} of {self.octets} octets, and {what} {more}")


def quota_of(octets: int, messages: int, limits: UserLimits) -> Quota:
    """A user's own ``limits`` in place of what is configured for all: ``octets`` and ``messages``, each by itself."""
    return Quota(
        octets if limits.quota_octets is None else limits.quota_octets,
        messages if limits.quota_messages is None else limits.quota_messages,
    )
