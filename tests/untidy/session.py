"""What a client was told in a session: for each number of the listing, which file it is, and under which unique-id."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from pop3core.maildrop import is_unique_id
from pop3d.stores.maildir.store import MaildirMaildrop
from tests.untidy.kinds import Resurrected, UniqueIdMoved, WrongListing, WrongSize
from tests.untidy.world import File, World


@dataclass(eq=False)
class Entry:
    """One number of a listing. ``files``: those it may stand for, by its size."""

    number: int
    uid: bytes
    size: int
    files: list[File]
    texts: set[bytes] = field(default_factory=set)
    """What RETR may give."""
    heirs: list[File] = field(default_factory=list)
    """Other files that hold the same message now: removing those too is right."""
    binding: bool = False
    """Its unique-id was told by a process that could remember it."""
    changed: bool = False
    """A file was changed in place since."""


@dataclass(eq=False)
class Group:
    """Entries that cannot be told apart by their sizes, mostly one; and their files when they were listed."""

    entries: list[Entry]
    files: list[File]


@dataclass(eq=False)
class Reading:
    """A message under way."""

    entry: Entry
    data: bytes
    torn: bool = False
    """Its file was changed meanwhile: a mixture of both is right."""


class Session:
    """A maildrop that is open, and its listing, checked against the files that are there. Raises `Fault`."""

    def __init__(self, drop: MaildirMaildrop, files: Iterable[File]) -> None:
        self.drop = drop
        self.marked: set[int] = set()
        self.seen: set[int] = set()  # retrieved whole
        self.reading: Reading | None = None
        self.entries = _entries(drop, list(files))
        self.groups = _groups(self.entries)

    def changed_in_place(self, file: File) -> None:
        """Note that another program did so."""
        for entry in self.entries:
            if file in entry.files:
                entry.texts.add(file.content.sent)
                entry.changed = True
                if self.reading is not None and self.reading.entry is entry:
                    self.reading.torn = True

    def heir(self, old: File, new: File) -> None:
        """Note that a message lies in another file now."""
        for entry in self.entries:
            if old in entry.files or old in entry.heirs:
                entry.heirs.append(new)


def _entries(drop: MaildirMaildrop, files: list[File]) -> list[Entry]:
    uids, sizes = list(drop.messages.uids), list(drop.messages.sizes)
    assert len(uids) == len(sizes)
    entries: list[Entry] = []
    for number, (uid, size) in enumerate(zip(uids, sizes, strict=True), 1):
        by_size = [file for file in files if size == len(file.content.sent) or size in file.stale]
        if not by_size:
            raise WrongSize(f"message {number}, {uid!r}, has {size} octets in the listing, and no file has that size")
        texts = {file.content.sent for file in by_size}
        entries.append(Entry(number, uid, size, by_size, texts))
    if missing := [file for file in files if not any(file in entry.files for entry in entries)]:
        raise WrongListing(f"not listed: {[sorted(file.names) for file in missing]}")
    for group in _groups(entries):
        if not len(group.files) <= len(group.entries) <= sum(len(file.names) for file in group.files):
            names = [sorted(file.names) for file in group.files]
            raise WrongListing(
                f"{names} are listed {len(group.entries)} times: {[entry.uid for entry in group.entries]}"
            )
    if len(set(uids)) < len(uids) or not all(map(is_unique_id, uids)):
        raise UniqueIdMoved(f"not unique, or not well formed: {uids}")
    return entries


def _groups(entries: list[Entry]) -> list[Group]:
    groups: list[Group] = []
    for entry in entries:
        same = [group for group in groups if any(file in group.files for file in entry.files)]
        merged = Group([entry], list(entry.files))
        for group in same:
            groups.remove(group)
            merged.entries += group.entries
            merged.files += [file for file in group.files if file not in merged.files]
        groups.append(merged)
    return groups


class IdBook:
    """Which unique-ids were told for which messages."""

    def __init__(self) -> None:
        self._told: dict[bytes, set[bytes]] = {}
        self._owner: dict[bytes, bytes] = {}
        self._gone: dict[bytes, bytes] = {}
        self._unsure: set[bytes] = set()  # told before the cache was removed

    def check(self, groups: list[Group], world: World, *, binding: bool) -> None:
        """Compare a listing with those before it. ``binding``: it will be held against those to come."""
        everything = [file for group in groups for file in group.files]
        survivors = {file.content.sent for file in everything if file.told}
        for group in groups:
            texts = {file.content.sent for file in group.files}
            names = {file.unique for file in group.files}
            # one that undelete has put back under another unique part left its own, and the id, to whoever is there now
            present = survivors | {file.content.sent for file in everything if file.unique in names}
            if len(texts) == 1:
                self._check(group, texts.pop(), present, survivors, world, binding=binding)

    def _check(
        self, group: Group, text: bytes, present: set[bytes], survivors: set[bytes], world: World, *, binding: bool
    ) -> None:
        uids = {entry.uid for entry in group.entries}
        known = self._told.get(text, set())
        what = f"{[sorted(file.names) for file in group.files]}, listed as {sorted(uids)}"
        if len(known & uids) < sum(file.told for file in group.files):
            raise UniqueIdMoved(f"{what}: it was {sorted(known)}")
        for uid in uids:
            owner = self._owner.get(uid, text)
            if (
                owner != text
                and owner not in world.ancestors.get(text, ())
                and uid not in known
                and (known or owner in (survivors if uid in self._unsure else present))
            ):
                raise UniqueIdMoved(f"{what}: {uid!r} stood for another message, {owner[:14]!r}")
            if self._gone.get(uid) == text:
                raise Resurrected(f"{what}: its removal as {uid!r} was confirmed")
        for entry in group.entries:
            entry.binding = binding
        if binding:
            self._told[text] = known | uids
            self._owner.update(dict.fromkeys(uids, text))
            for file in group.files:
                # a change in place is noticed later, and then the id that was told for the old content is not its own
                file.told = not (file.rewritten and file.unique in world.shared)

    def cache_removed(self) -> None:
        """Nobody knows any more who had an id, but for the file itself, which is older than others of its name."""
        self._unsure.update(self._owner)

    def removed(self, uid: bytes, text: bytes) -> None:
        """A removal was confirmed, of the only files that held the message."""
        self._gone[uid] = text

    def came_back(self, text: bytes) -> None:
        """Another program has put a message there, perhaps again."""
        self._gone = {uid: gone for uid, gone in self._gone.items() if gone != text}
