"""What other programs do in an untidy Maildir, as steps of a state machine."""

import os
from collections.abc import Callable
from typing import Any, Final

from hypothesis import strategies as st

from tests.untidy.content import SHAPES, Content
from tests.untidy.machine import FLAGS, PLACES, WHICH, Machine, pick, step
from tests.untidy.world import File

_FILES_MAX: Final = 8


def room(self: Machine) -> bool:
    """The folders are in their places, and there are not many messages yet: what is untidy is so with few."""
    return self.world.orderly and len(self.world.files) < _FILES_MAX


def on_file(needs: Callable[[Any], bool] = lambda _: True, **strategies: Any) -> Callable[[Any], Any]:
    """A step on a file, while the folders are in their places."""
    return step(lambda self: bool(self.world.orderly and self.world.files and needs(self)), which=WHICH, **strategies)


class OtherPrograms(Machine):
    """MTAs, IMAP servers, mail readers, backups, administrators."""

    def _file(self, which: int) -> File:
        return pick(self.world.files, lambda file: {file.unique}, self.world.focus, which)

    @step(room, shape=st.sampled_from(SHAPES), to=PLACES)
    def arrive(self, shape: str, to: str | None) -> None:
        """An MTA delivers, or an IMAP server saves a message with flags."""
        self.world.arrive(shape, to)

    @on_file(to=PLACES)
    def move(self, which: int, to: str | None) -> None:
        """Flags are set, or it is moved between new/ and cur/."""
        file = self._file(which)
        if (name := self.world.free_name(file.unique, to)) is not None:
            self.world.rename(file, name)

    @on_file(room, to=PLACES, same=st.booleans(), old=st.booleans())
    def copy(self, which: int, to: str | None, same: bool, old: bool) -> None:
        """Beside a message, another file has the same unique part: the same message, or another one."""
        file = self._file(which)
        if (name := self.world.free_name(file.unique, to)) is not None:
            content = file.content if same else self.world.mint.make()
            self._put(content, name, self.world.modified(file) if old else None)

    @step(lambda self: room(self) and bool(self.world.past), which=st.integers(0, 20), to=PLACES)
    def restore(self, which: int, to: str | None) -> None:
        """A backup is put back, beside what is there."""
        content, unique, modified = self.world.past[which % len(self.world.past)]
        if (name := self.world.free_name(unique, to)) is not None:
            self._put(content, name, modified)

    def _put(self, content: Content, name: str, modified: int | None) -> None:
        self.world.create(content, name, modified)
        self.ids.came_back(content.sent)

    @on_file()
    def replace(self, which: int) -> None:
        """By a rename over it."""
        self.world.replace(self._file(which), self.world.mint.make())

    @on_file(how=st.sampled_from(["same length", "longer", "shorter"]))
    def rewrite(self, which: int, how: str) -> None:
        """In place."""
        file, mint = self._file(which), self.world.mint
        make = {"same length": mint.same_length, "longer": mint.longer, "shorter": mint.shorter}[how]
        if not file.content.compressed and (content := make(file.content)) is not None:
            self.world.rewrite(file, content)
            if self.session is not None:
                self.session.changed_in_place(file)

    @on_file()
    def unlink(self, which: int) -> None:
        """Another client deletes it."""
        self.world.unlink(self._file(which))

    @on_file(to=PLACES)
    def link(self, which: int, to: str | None) -> None:
        """A program was killed between its link and its unlink."""
        file = self._file(which)
        if (name := self.world.free_name(file.unique, to)) is not None:
            self.world.link(file, name)

    @on_file(flags=FLAGS)
    def compress(self, which: int, flags: str) -> None:
        """As Dovecot's mail_compress does."""
        file = self._file(which)
        name = self.world.free_name(file.unique, f"{flags}Z")
        if name is not None and not file.content.compressed and len(file.names) == 1:
            before = {content.stored for content, _, _ in self.world.past}
            made = self.world.compress(file, name)
            if made.content.stored in before:  # an equal file that was removed, and came back, looks the same
                self.ids.came_back(made.content.sent)
            if self.session is not None:
                self.session.heir(file, made)

    @step(lambda self: self.world.orderly, what=st.sampled_from(["cur", "new", "tmp", "box"]))
    def swap(self, what: str) -> None:
        """A link to another user's folder takes the place of one of the mailbox, or of the mailbox."""
        if what != "box" or os.geteuid() == 0:  # without root, all belongs to one user: no link leads to somebody else
            self.world.swap(what)

    @step(lambda self: bool(self.world.swapped))
    def swap_back(self) -> None:
        self.world.swap_back()

    @step(lambda self: self.world.orderly, what=st.sampled_from(["box", "root"]), mount_point=st.booleans())
    def unmount(self, what: str, mount_point: bool) -> None:
        """The mailbox is gone, or the folder of all mailboxes."""
        self.world.unmount(what, mount_point)

    @step(lambda self: bool(self.world.away))
    def mount(self) -> None:
        self.world.mount()
