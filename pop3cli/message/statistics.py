"""What fills a mailbox: counted from LIST and the headers, one message after the other, in bounded memory."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from pop3cli.message.reading import MessageSummary

__all__ = ["SIZES", "Share", "Statistics"]

SIZES: Final = (
    ("below 10 KiB", 10 * 1024),
    ("below 100 KiB", 100 * 1024),
    ("below 1 MiB", 1024 * 1024),
    ("below 10 MiB", 10 * 1024 * 1024),
    ("larger", 1 << 64),
)
"""Names of the classes of size, and the octets each ends at."""

_SENDERS_MAX: Final = 20_000  # different ones that are told apart; the others are one
_MONTHS_MAX: Final = 6_000  # 500 years: dates are the senders' own
_SENDER_MAX: Final = 200  # characters
_LARGEST: Final = 10

_OTHERS: Final = "(others)"
_NOBODY: Final = "(no sender)"
_NO_DATE: Final = "(no date)"


@dataclass(slots=True)
class Share:
    """A part of the mailbox."""

    messages: int = 0
    octets: int = 0

    def add(self, octets: int) -> None:
        """One message more."""
        self.messages += 1
        self.octets += octets


@dataclass(slots=True)
class Statistics:
    """Sums by sender, month and class of size, and the largest messages (octets, number, sender, subject).

    Names of senders and subjects are foreign text.
    """

    total: Share = field(default_factory=Share)
    senders: dict[str, Share] = field(default_factory=dict[str, Share])
    months: dict[str, Share] = field(default_factory=dict[str, Share])
    sizes: dict[str, Share] = field(default_factory=lambda: {name: Share() for name, _ in SIZES})
    largest: list[tuple[int, int, str, str]] = field(default_factory=list[tuple[int, int, str, str]])

    def add(self, number: int, octets: int, summary: MessageSummary | None) -> None:
        """Count a message. ``summary``: None where its headers were refused."""
        seen = summary or MessageSummary("", "", None, "")
        sender = _sender(seen.sender)
        self.total.add(octets)
        _of(self.senders, sender, _SENDERS_MAX).add(octets)
        month = f"{seen.date:%Y-%m}" if seen.date is not None else _NO_DATE
        _of(self.months, month, _MONTHS_MAX).add(octets)
        self.sizes[next(name for name, end in SIZES if octets < end or end == SIZES[-1][1])].add(octets)
        entry = (octets, -number, sender, seen.subject[:_SENDER_MAX])
        if len(self.largest) < _LARGEST:
            heapq.heappush(self.largest, entry)
        else:
            heapq.heappushpop(self.largest, entry)

    def by_octets(self, count: int) -> list[tuple[str, Share]]:
        """The senders of most octets, and all others as one."""
        ordered = sorted(self.senders.items(), key=lambda one: (-one[1].octets, one[0]))
        first, rest = ordered[:count], ordered[count:]
        return [*first, (_OTHERS, _sum(share for _, share in rest))] if rest else first

    def by_month(self, count: int) -> list[tuple[str, Share]]:
        """The last months with mail, oldest first; before them those that went before as one, and what has no date."""
        dated = sorted(month for month in self.months if month[:1].isdigit())
        earlier = _sum(self.months[month] for month in dated[:-count])
        found = [(month, self.months[month]) for month in dated[-count:]]
        if earlier.messages:
            found.insert(0, ("(earlier)", earlier))
        undated = [(month, share) for month, share in self.months.items() if not month[:1].isdigit()]
        return [*undated, *found]

    def biggest(self) -> list[tuple[int, int, str, str]]:
        """The largest messages as (number, octets, sender, subject), largest first."""
        return [(-number, octets, sender, subject) for octets, number, sender, subject in sorted(self.largest)[::-1]]

    def as_json(self) -> dict[str, Any]:
        """All of it as one value."""

        def shares(found: Iterable[tuple[str, Share]], name: str) -> list[dict[str, Any]]:
            return [{name: key, "messages": share.messages, "octets": share.octets} for key, share in found]

        return {
            "messages": self.total.messages,
            "octets": self.total.octets,
            "senders": shares(self.by_octets(_SENDERS_MAX), "sender"),
            "months": shares(sorted(self.months.items()), "month"),
            "sizes": shares(self.sizes.items(), "size"),
            "largest": [
                {"number": number, "octets": octets, "sender": sender, "subject": subject}
                for number, octets, sender, subject in self.biggest()
            ],
        }


def _sender(text: str) -> str:
    address = _address(text)
    return address.strip().lower()[:_SENDER_MAX] or _NOBODY


def _address(text: str) -> str:
    """The address in a From, or all of it. The library's parser goes one call deeper for each parenthesis."""
    _, bracket, behind = text.rpartition("<")
    if bracket:
        return behind.partition(">")[0]
    words = re.split(r"[\s(),;:\"]+", text)
    return next((word for word in words if "@" in word), text)


def _of(shares: dict[str, Share], key: str, most: int) -> Share:
    if key not in shares and len(shares) >= most:
        key = _OTHERS
    return shares.setdefault(key, Share())


def _sum(shares: Iterable[Share]) -> Share:
    total = Share()
    for share in shares:
        total.messages += share.messages
        total.octets += share.octets
    return total
