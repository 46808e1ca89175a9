"""What is to be done with a mailbox, from what the server lists and what is remembered. Nothing here does anything."""

from __future__ import annotations

from dataclasses import dataclass, field

from pop3cli.opening import Index
from pop3cli.sync.filters import Filter
from pop3cli.sync.state import Entry, Kind

__all__ = ["Plan", "Wishes", "due", "planned"]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user wants. ``delete_after``: seconds from fetching to deleting, None: never; ``max_size``: octets."""

    delete_after: float | None = None
    max_size: int | None = None
    headers_only: bool = False
    dry_run: bool = False
    filter: Filter | None = None


@dataclass(slots=True)
class Plan:
    """Unique-ids. ``too_large``: more than `Wishes.max_size`; ``octets``: of what is fetched, as announced."""

    fetch: list[str] = field(default_factory=list)
    delete: list[str] = field(default_factory=list)
    confirm: list[str] = field(default_factory=list)
    """To be deleted once they have come a second time as they came the first time."""
    changed: list[str] = field(default_factory=list)
    """Would be deleted, but have another size now than when they were fetched: perhaps other messages."""
    too_large: list[str] = field(default_factory=list)
    octets: int = 0


def planned(index: Index, entries: dict[str, Entry], wishes: Wishes, now: float) -> Plan:
    """What is to be done. ``now``: seconds of the Unix epoch."""
    plan = Plan()
    for uid, place in index.places.items():
        entry = entries.get(uid)
        if entry is None or (entry.kind is Kind.HEADERS and not wishes.headers_only):
            if wishes.max_size is not None and place.octets > wishes.max_size:
                plan.too_large.append(uid)
            else:
                plan.fetch.append(uid)
                plan.octets += 0 if wishes.headers_only else place.octets
        elif due(entry, wishes, now):
            if entry.octets and entry.octets != place.octets:
                plan.changed.append(uid)
            elif entry.kind is Kind.ODD:
                plan.confirm.append(uid)
            else:
                plan.delete.append(uid)
    return plan


def due(entry: Entry, wishes: Wishes, now: float) -> bool:
    """Whether a message is to be deleted, by what was done with it and when."""
    if entry.kind is Kind.UNWANTED:
        return True
    if wishes.delete_after is None or entry.kind in (Kind.HEADERS, Kind.SKIPPED):
        return False
    return max(now - entry.time, 0) >= wishes.delete_after  # a clock may have been set back
