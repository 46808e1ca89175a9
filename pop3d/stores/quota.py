"""What a mailbox may hold, whatever store it is in."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["OverQuota", "Quota"]


class OverQuota(Exception):
    """The mailbox has no room for the message; one line that says how much there is."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What a mailbox may hold; 0: no limit. ``octets``: as stored."""

    octets: int = 0
    messages: int = 0
