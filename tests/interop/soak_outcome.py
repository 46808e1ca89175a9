"""What several programs did to one mailbox, and whether anything was lost or changed by it."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class SoakRecord:
    """What the programs did and saw, by the subject of each message, which no other has."""

    delivered: Counter[str] = field(default_factory=Counter)
    """Messages by program."""
    subjects: set[bytes] = field(default_factory=set)
    """Of all that were delivered."""
    removed: set[bytes] = field(default_factory=set)
    """Of what a client expunged, moved away or deleted, and was told so."""
    uids: dict[bytes, bytes] = field(default_factory=dict)
    """The unique-id of each, as a POP3 client was told it first."""
    subject_of: dict[bytes, bytes] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    changed: list[str] = field(default_factory=list)
    """Unique-ids that are not what they were."""
    failed: list[str] = field(default_factory=list)
    """Programs that ended with an error."""

    def told(self, uid: bytes, subject: bytes) -> None:
        """A unique-id, and the message that it stands for."""
        if self.uids.setdefault(subject, uid) != uid:
            self.changed.append(f"{subject!r} was {self.uids[subject]!r} and is {uid!r}")
        if self.subject_of.setdefault(uid, subject) != subject:
            self.changed.append(f"{uid!r} was {self.subject_of[uid]!r} and is {subject!r}")


@dataclass(frozen=True)
class SoakOutcome:
    record: SoakRecord
    left: set[bytes]
    """Subjects in the mailbox at the end, by POP3."""
    numbered_later: int
    """Messages that POP3 told of before Dovecot gave them a number."""

    @property
    def lost(self) -> set[bytes]:
        return self.record.subjects - self.record.removed - self.left

    @property
    def back(self) -> set[bytes]:
        """Removed, and there again."""
        return self.left & self.record.removed

    @property
    def wrong(self) -> bool:
        return bool(self.lost or self.back or self.record.changed or self.record.failed)

    def __str__(self) -> str:
        record = self.record
        lines = [f"delivered: {', '.join(f'{count} by {name}' for name, count in record.delivered.items())}"]
        lines += [f"{what}: {count}" for what, count in sorted(record.counts.items())]
        lines += [
            f"messages that POP3 told of before Dovecot numbered them: {self.numbered_later}",
            f"left in the mailbox: {len(self.left)}",
            f"lost: {len(self.lost)}, back again: {len(self.back)}, unique-ids changed: {len(record.changed)}",
        ]
        return "\n".join([*lines, *record.changed[:10], *record.failed[:10]])
