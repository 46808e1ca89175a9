"""What is to be done with a mailbox, from what the server lists and what is remembered. Nothing here does anything."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from pop3cli.mailbox.index import Index, Place
from pop3cli.sync.filters import Filter
from pop3cli.sync.state import Kind, LogEntry

__all__ = ["Plan", "SyncOptions", "due", "planned"]


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """What the user wants. ``delete_after``: seconds from fetching to deleting, None: never; ``max_size``: octets."""

    delete_after: float | None = None
    max_size: int | None = None
    headers_only: bool = False
    dry_run: bool = False
    filter: Filter | None = None


@dataclass(slots=True)
class Plan:
    """Unique-ids. ``too_large``: larger than `SyncOptions.max_size`."""

    fetch: list[str] = field(default_factory=list)
    """New, or perhaps another message than before."""
    delete: list[str] = field(default_factory=list)
    compare: list[str] = field(default_factory=list)
    """To be deleted once it has come again, and is what came before."""
    imported: list[str] = field(default_factory=list)
    """Would be deleted, but another program has fetched it, so nobody knows that it is in the destination."""
    too_large: list[str] = field(default_factory=list)


def planned(
    index: Index,
    entries: Mapping[str, LogEntry],
    wishes: SyncOptions,
    now: float,
    *,
    seen: Container[str] = (),
    trusting: bool = True,
) -> Plan:
    """What is to be done. ``now``: seconds of the Unix epoch.

    ``seen``: what came in this session, or came again as it was, so that it needs no comparing. ``trusting``: an id
    that the server has listed all along, with the same size, names the same message (RFC 1939 §7).
    """
    plan = Plan()
    for uid, place in index.places.items():
        entry = entries.get(uid)
        large = wishes.max_size is not None and place.octets > wishes.max_size
        if entry is None or _other(entry, place, wishes):
            (plan.too_large if large else plan.fetch).append(uid)
        elif due(entry, wishes, now):
            if entry.kind is Kind.IMPORTED:
                plan.imported.append(uid)
            elif uid in seen or (trusting and not _doubtful(entry)):
                plan.delete.append(uid)
            else:
                (plan.too_large if large else plan.compare).append(uid)
    return plan


def _other(entry: LogEntry, place: Place, wishes: SyncOptions) -> bool:
    """Whether what is remembered is not what is there now, or not all of it."""
    if wishes.headers_only and entry.kind in (Kind.FETCHED, Kind.ODD):
        return False  # its headers could not be compared; a run that fetches messages does that
    if entry.octets and entry.octets != place.octets:
        return True
    if entry.kind is Kind.SKIPPED and entry.away and wishes.delete_after is not None:
        return True  # else a new message under its id would be left there for ever, and nobody would see it
    return entry.kind is Kind.HEADERS and not wishes.headers_only


def _doubtful(entry: LogEntry) -> bool:
    # of what the filter does not want, nothing is in the destination that could make good a mistake
    return entry.away or entry.kind in (Kind.ODD, Kind.UNWANTED)


def due(entry: LogEntry, wishes: SyncOptions, now: float) -> bool:
    """Whether a message is to be deleted, by what was done with it and when."""
    if entry.kind is Kind.UNWANTED:
        return True
    if wishes.delete_after is None or entry.kind in (Kind.HEADERS, Kind.SKIPPED):
        return False
    return max(now - entry.time, 0) >= wishes.delete_after  # a clock may have been set back
