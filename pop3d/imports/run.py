"""One import: from a source into a destination, with a journal in between."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from pop3d.imports.journal import ImportJournal
from pop3d.stores.arriving import ArrivingMessage, MailDestination, MailSource, MessageCut, SourceEnded
from pop3d.stores.maildir.compressed import NotMail
from pop3d.stores.quota import OverQuota

__all__ = ["ImportTally", "import_messages"]

GROUP_MESSAGES: Final = 256
"""Messages that become durable and visible together: so many files are open, and so many wait for one another."""

GROUP_OCTETS: Final = 8 * 1024 * 1024
"""Octets likewise, but for a single message: a database takes a group from memory, a few times."""


@dataclass(slots=True)
class ImportTally:
    """What an import came to. Messages: ``imported``, ``before`` (by earlier runs), and of the imported ones ``kept``
    the unique-id that they had; ``invalid``, ``double``: theirs could not be kept. ``octets``: imported, as stored.
    ``failed``, ``remarks``: one line each.
    """

    imported: int = 0
    before: int = 0
    kept: int = 0
    invalid: int = 0
    double: int = 0
    octets: int = 0
    failed: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def import_messages(
    source: MailSource,
    destination: MailDestination,
    journal: ImportJournal,
    tally: ImportTally,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Bring all messages that are missing; ``tally`` grows meanwhile. ``advance``: called now and then.

    A message that cannot be read is told in the tally, and tried again on the next run. Raises `SourceEnded`,
    `OverQuota`, OSError, and what else the destination raises: what came before is imported.
    """
    if journal.in_doubt:
        assert journal.last is not None
        journal.settle(destination.settle(journal.last, lately=journal.lately))
    destination.tidy()
    tally.before = len(journal)
    group = _Group(destination, journal, tally)
    try:
        for message in source.messages(journal):
            try:
                group.add(message)
            except MessageCut:
                continue
            except (_Unreadable, ValueError) as fault:
                tally.failed.append(f"{message.place}: {fault}")
            except OverQuota:
                group.publish()  # what there was room for
                raise
            if group.is_full:
                group.publish()
                advance()
        group.publish()
    except SourceEnded:
        group.publish()
        raise
    finally:
        with contextlib.suppress(OSError):
            destination.drop()
        tally.failed += source.failed
        tally.remarks += source.remarks
        advance()


class _Unreadable(Exception):
    """The source has the message, and it cannot be read."""


class _Group:
    """Messages that become visible together."""

    def __init__(self, destination: MailDestination, journal: ImportJournal, tally: ImportTally) -> None:
        self._destination, self._journal, self._tally = destination, journal, tally
        self._keys: list[bytes] = []
        self._octets = 0
        self._kept = 0

    @property
    def is_full(self) -> bool:
        return len(self._keys) >= GROUP_MESSAGES or self._octets >= GROUP_OCTETS

    def add(self, message: ArrivingMessage) -> None:
        uid = message.uid
        invalid = uid is not None and not self._destination.can_keep(uid)
        double = uid is not None and not invalid and self._destination.has_id(uid)
        if invalid or double:
            uid = None
        readable = replace(message, content=lambda: _reported(message))
        self._octets += self._destination.stage(readable, uid)
        self._keys.append(message.key)
        self._kept += uid is not None
        self._tally.invalid += invalid
        self._tally.double += double

    def publish(self) -> None:
        if not self._keys:
            return
        intent = self._destination.prepare()
        self._journal.begin(self._keys, intent)
        self._destination.publish()
        self._journal.end()
        self._tally.imported += len(self._keys)
        self._tally.kept += self._kept
        self._tally.octets += self._octets
        self._keys, self._octets, self._kept = [], 0, 0


def _reported(message: ArrivingMessage) -> Iterator[bytes]:
    """A message's content. Faults of the source are told from those of the destination, which end an import."""
    try:
        yield from message.content()
    except OSError as fault:
        raise _Unreadable(fault.strerror or str(fault)) from None
    except NotMail as fault:
        raise _Unreadable(str(fault)) from None
