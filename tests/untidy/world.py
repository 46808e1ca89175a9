"""Mailboxes on a disk, other programs that act on them, and an account of every file.

The account is kept by inode: what a file holds says which message it is, and between two looks only those act that are
known here. So after each step of ours all that has gone, come or changed its name is either what that step was for, or
a fault.
"""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.untidy.content import Content, Mint, compressed
from tests.untidy.kinds import Intruded, Littered, Lost
from tests.untidy.process import wait_for_tick

FOLDERS: Final = ("new", "cur")
ALICE_ID, BOB_ID = 1001, 1002  # who owns the mailboxes, where the tests run as root


@dataclass(eq=False)
class File:
    """A message's file. ``names``: below the mailbox; more than one for hard links."""

    content: Content
    inode: int
    names: set[str]
    unique: str
    """The unique part of all its names, also when it has none any more."""
    told: bool = False
    """Its message was listed to a client, from this very file and with this content."""
    rewritten: bool = False
    """It was changed in place."""
    stale: set[int] = field(default_factory=set)
    """Sizes of before it was changed in place, which a cache may still have; and of another file that had the same name
    and inode number once, for a listing does not look at the files."""


Found = dict[int, tuple[set[str], bytes]]
"""Names and octets by inode."""


def unique_of(name: str) -> str:
    """As maildir(5) has it; a field behind a comma, as `pop3d deliver` puts it, never differs here."""
    return name.partition("/")[2].partition(":")[0]


class World:
    """Alice's mailbox, which is served, bob's beside it, and what is deleted."""

    def __init__(self) -> None:
        self.base = tempfile.mkdtemp(prefix="untidy-")
        self.mail, self.bob = f"{self.base}/mail", f"{self.base}/mail/bob"
        self.state, self.deleted = f"{self.base}/state", f"{self.base}/deleted/alice"
        self.home = f"{self.mail}/alice"  # where alice's mailbox really lies now
        self.swapped: set[str] = set()  # folders in whose place there are links
        self.away = ""  # what was unmounted: "box", "root" or nothing
        self.mint = Mint()
        self.files: list[File] = []
        self.kept: dict[int, Content] = {}  # by inode: what lies in `deleted`
        self.past: list[tuple[Content, str, int]] = []  # content, unique part and time: what a backup has
        self.focus = ""  # the unique part that was shared last
        self.shared: set[str] = set()  # unique parts that more than one file has had
        self.ancestors: dict[bytes, set[bytes]] = {}  # what stood in a message's file before it
        self._names = 0
        self._sizes: dict[tuple[str, int], set[int]] = {}  # that a file of that unique part and inode number had
        self._listed = 0  # when a process of ours looked at the mailbox last, in nanoseconds
        self._left_in_tmp: set[str] = set()
        for box in (self.home, self.bob):
            for folder in ("tmp", *FOLDERS):
                os.makedirs(f"{box}/{folder}")
        os.makedirs(f"{self.base}/aside")
        self._own(self.home, ALICE_ID)
        self._own(self.bob, BOB_ID)
        self.bobs = self._tree(self.bob)

    def close(self) -> None:
        shutil.rmtree(self.base)

    @staticmethod
    def _own(box: str, owner: int) -> None:
        if os.geteuid() == 0:
            for path in (box, *(f"{box}/{folder}" for folder in ("tmp", *FOLDERS))):
                os.chown(path, owner, owner)

    # --- the account ---

    def folder(self, name: str) -> str:
        """Where alice's folder of that name really lies now."""
        return f"{self.base}/aside/{name}" if name in self.swapped else f"{self.home}/{name}"

    def look(self) -> Found:
        """All files of the mailbox, as they are now."""
        return self._files({name: self.folder(name) for name in FOLDERS})

    def look_deleted(self) -> Found:
        """All files that are kept of deleted messages."""
        return self._files({name: f"{self.deleted}/{name}" for name in FOLDERS})

    @staticmethod
    def _files(folders: dict[str, str]) -> Found:
        found: Found = {}
        for folder, path in folders.items():
            with contextlib.suppress(FileNotFoundError), os.scandir(path) as entries:
                for entry in entries:
                    names, _ = found.setdefault(entry.inode(), (set(), Path(entry.path).read_bytes()))
                    names.add(f"{folder}/{entry.name}")
        return found

    @staticmethod
    def _tree(root: str) -> dict[str, tuple[int, bytes]]:
        return {
            f"{folder}/{name}": (os.stat(f"{folder}/{name}").st_ino, Path(folder, name).read_bytes())
            for folder, _, names in os.walk(root)
            for name in names
        }

    def account(
        self,
        may_go: Collection[File] = (),
        may_be_renamed: Collection[File] = (),
        arriving: Content | None = None,
        returning: bool = False,
        soft: bool = False,
    ) -> set[File]:
        """Compare the disk with what is known, behind a step of ours; the files that have gone from the mailbox.

        ``may_go``: files that may have; with ``soft`` to what is kept of deleted messages. ``arriving``: a delivery;
        ``returning``: what was kept may have come home.
        """
        home, kept = self.look(), self.look_deleted()
        gone: set[File] = set()
        for file in self.files:
            now = home.pop(file.inode, None)
            if now is not None and now[1] != file.content.stored:
                raise Lost(f"{sorted(file.names)}: not the octets that were there")
            if now is None:
                if file not in may_go:
                    raise Lost(f"{sorted(file.names)}: nobody marked it, and it is gone")
                if soft and (file.inode not in kept or kept[file.inode][1] != file.content.stored):
                    raise Lost(f"{sorted(file.names)}: neither in the mailbox nor among the deleted ones")
                gone.add(file)
            elif now[0] != file.names:
                linked_again = returning and file.inode in self.kept  # a kill had left it in both places
                if not (file in may_be_renamed or (file in may_go and now[0] < file.names) or linked_again):
                    raise Littered(f"{sorted(file.names)} is called {sorted(now[0])} now")
                file.names = now[0]
        for inode, content in self.kept.items():
            self._check_kept(inode, content, home, kept, returning)
        self._arrivals(home, arriving, returning)
        known = {file.inode: file.content for file in [*self.files, *gone]} | self.kept
        if strangers := kept.keys() - known.keys():
            raise Littered(f"{[kept[inode][0] for inode in strangers]} among the deleted ones")
        self.kept = {inode: known[inode] for inode in kept}
        self.files = [file for file in self.files if file not in gone]
        self._surroundings(arriving is not None)
        return gone

    def _check_kept(self, inode: int, content: Content, home: Found, kept: Found, returning: bool) -> None:
        """What was deleted and kept is there still, or back in the mailbox, or an equal file is there already."""
        back = inode in home or any(file.inode == inode for file in self.files)
        equal = returning and any(stored == content.stored for _, stored in self.look().values())
        if not (back or equal) and (inode not in kept or kept[inode][1] != content.stored):
            raise Lost(f"{content.stored[:14]!r}: it was deleted and kept, and is nowhere now")

    def _arrivals(self, home: Found, arriving: Content | None, returning: bool) -> None:
        known = {file.inode for file in self.files}
        for inode, (names, stored) in home.items():
            if inode in known:
                continue
            if returning and inode in self.kept and stored == self.kept[inode].stored:
                content = self.kept[inode]
            elif arriving is not None and stored == arriving.stored:
                content = arriving
            else:
                raise Littered(f"{sorted(names)} was made by nobody: {stored[:30]!r}")
            self._add(content, inode, names)

    def _surroundings(self, delivering: bool) -> None:
        if self._tree(self.bob) != self.bobs:
            raise Intruded("another user's mailbox has changed")
        if found := set(os.listdir(self.home)) - {*FOLDERS, "tmp"}:
            raise Littered(f"in the mailbox: {found}")
        if not delivering and (found := set(os.listdir(self.folder("tmp"))) - self._left_in_tmp):
            raise Littered(f"in tmp: {found}")
        self._left_in_tmp = set(os.listdir(self.folder("tmp")))
        mounted = {"": {"alice", "bob"}, "box": {"bob"}, "root": set[str]()}[self.away]
        if os.path.isdir(self.mail) and (found := set(os.listdir(self.mail)) - mounted):
            raise Littered(f"in the folder of all mailboxes: {found}")

    def _add(self, content: Content, inode: int, names: set[str]) -> File:
        file = File(content, inode, names, unique_of(min(names)))
        file.stale = self._sizes.setdefault((file.unique, inode), set()) - {len(content.sent)}
        self._sizes[file.unique, inode].add(len(content.sent))
        if any(other.unique == file.unique for other in self.files):
            self.shared.add(file.unique)
            self.focus = file.unique
        self.files.append(file)
        if all(old.stored != content.stored for old, _, _ in self.past):
            name = min(names)
            self.past.append((content, file.unique, os.stat(self._path(name)).st_mtime_ns))
        return file

    # --- other programs ---

    @property
    def orderly(self) -> bool:
        """Every folder is in its place."""
        return not (self.swapped or self.away)

    def listed(self) -> None:
        """Note that a process of ours has looked at the mailbox."""
        self._listed = time.time_ns()

    @contextlib.contextmanager
    def tick(self) -> Iterator[None]:
        """Around each change: the clock of files' times has gone on since the last look, so that the change shows."""
        wait_for_tick(self._listed)
        yield

    def _path(self, name: str) -> str:
        folder, _, base = name.partition("/")
        return f"{self.folder(folder)}/{base}"

    def free_name(self, unique: str, flags: str | None) -> str | None:
        """In cur/ with ``flags``, or in new/ where that is None; None when a file has that name."""
        name = f"new/{unique}" if flags is None else f"cur/{unique}:2,{flags}"
        return None if os.path.lexists(self._path(name)) else name

    def create(self, content: Content, name: str, modified: int | None = None) -> File:
        """A program delivers, copies or restores: the file is there at once, by a rename from tmp/."""
        beside = f"{self.folder('tmp')}/by-others"
        with self.tick():
            Path(beside).write_bytes(content.stored)
            if modified is not None:
                os.utime(beside, ns=(modified, modified))
            os.rename(beside, self._path(name))
            return self._add(content, os.stat(self._path(name)).st_ino, {name})

    def arrive(self, shape: str, flags: str | None) -> None:
        """A new message, named as an MTA does."""
        self._names += 1
        name = self.free_name(f"17000000{self._names:02}.M{self._names}P1.host", flags)
        assert name is not None
        self.create(self.mint.make(shape), name)

    def modified(self, file: File) -> int:
        """When it was, in nanoseconds."""
        return os.stat(self._path(min(file.names))).st_mtime_ns

    def rename(self, file: File, name: str) -> None:
        """Flags are set, or it is moved from new/ to cur/ or back."""
        old = min(file.names)
        with self.tick():
            os.rename(self._path(old), self._path(name))
        file.names = file.names - {old} | {name}

    def link(self, file: File, name: str) -> None:
        """Another program was killed between its link and its unlink."""
        with self.tick():
            os.link(self._path(min(file.names)), self._path(name))
        file.names = file.names | {name}
        self.focus = file.unique

    def unlink(self, file: File) -> None:
        """One of its names goes."""
        name = min(file.names)
        with self.tick():
            os.unlink(self._path(name))
        self._without(file, name)

    def _without(self, file: File, name: str) -> None:
        file.names = file.names - {name}
        if not file.names:
            self.files.remove(file)

    def replace(self, file: File, content: Content) -> File:
        """Another file takes its name."""
        name = min(file.names)
        self.descends(content, file.content)
        self._without(file, name)
        return self.create(content, name)

    def rewrite(self, file: File, content: Content) -> None:
        """It is changed in place."""
        with self.tick(), open(self._path(min(file.names)), "r+b") as stream:
            stream.write(content.stored)
            stream.truncate()
        self.descends(content, file.content)
        file.stale = file.stale | {len(file.content.sent)}
        self._sizes[file.unique, file.inode].add(len(content.sent))
        file.content, file.told, file.rewritten = content, False, True
        if file.inode in self.kept:  # a kill has left it in both places
            self.kept[file.inode] = content
        self.past.append((content, file.unique, self.modified(file)))

    def compress(self, file: File, name: str) -> File:
        """As Dovecot does it: a new file with the flag Z and the old one's time, then the old one goes."""
        modified, unique = self.modified(file), file.unique
        alone = unique not in self.shared
        made = self.create(compressed(file.content), name, modified)
        self.unlink(file)
        if alone:
            self.shared.discard(unique)
            made.told = file.told
        return made

    def descends(self, content: Content, old: Content) -> None:
        """Note that one content has taken the place of another."""
        self.ancestors[content.sent] = {old.sent, *self.ancestors.get(old.sent, ())}

    # --- folders that go, and links in their place ---

    def swap(self, what: str) -> None:
        """Put a link to bob's folder in the place of a folder, or of the whole mailbox ("box").

        Bob gets files of the same names: whoever follows the link finds what it looks for.
        """
        with self.tick():
            if what == "box":
                os.rename(self.home, f"{self.base}/aside/alice")
                os.symlink("bob", self.home)
                self._swapped_owner(self.home)
                self.home = f"{self.base}/aside/alice"
            else:
                link, target = f"{self.home}/{what}", "cur" if what == "tmp" else what
                os.rename(link, f"{self.base}/aside/{what}")
                os.symlink(f"../bob/{target}", link)
                self._swapped_owner(link)
            self.swapped.add(what)
            for file in self.files:
                for name in file.names:
                    if not os.path.lexists(f"{self.bob}/{name}"):
                        Path(self.bob, name).write_bytes(self.mint.make().stored)
                        long_ago = time.time() - 3 * 86_400
                        os.utime(f"{self.bob}/{name}", (long_ago, long_ago))
        self.bobs = self._tree(self.bob)

    @staticmethod
    def _swapped_owner(link: str) -> None:
        if os.geteuid() == 0:
            os.chown(link, ALICE_ID, ALICE_ID, follow_symlinks=False)

    def swap_back(self) -> None:
        """Put back what a link stands for."""
        with self.tick():
            for what in sorted(self.swapped):
                link = f"{self.mail}/alice" if what == "box" else f"{self.home}/{what}"
                os.unlink(link)
                os.rename(f"{self.base}/aside/{'alice' if what == 'box' else what}", link)
                if what == "box":
                    self.home = link
            self.swapped.clear()

    def unmount(self, what: str, mount_point: bool) -> None:
        """Take away the mailbox ("box"), or the folder of all ("root") and leave its empty ``mount_point`` or not."""
        with self.tick():
            self.away = what
            if what == "box":
                os.rename(self.home, f"{self.base}/aside/alice")
                self.home = f"{self.base}/aside/alice"
                return
            os.rename(self.mail, f"{self.base}/aside/mail")
            self.home, self.bob = f"{self.base}/aside/mail/alice", f"{self.base}/aside/mail/bob"
            if mount_point:
                os.mkdir(self.mail)
        self.bobs = self._tree(self.bob)

    def mount(self) -> None:
        """Bring it back."""
        with self.tick():
            if self.away == "box":
                os.rename(self.home, f"{self.mail}/alice")
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.rmdir(self.mail)
                os.rename(f"{self.base}/aside/mail", self.mail)
            self.away = ""
            self.home, self.bob = f"{self.mail}/alice", f"{self.mail}/bob"
        self.bobs = self._tree(self.bob)
