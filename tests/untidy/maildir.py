"""The untidy world of a Maildir, as a state machine for Hypothesis.

Steps of ours (sessions, deliveries, undelete) and of other programs come in any order. What must hold:

- Octets that nobody marked are lost only by what another program does itself; those marked when `deleted` is on, never.
- What a confirmed QUIT had marked is gone. A QUIT that fails names what may be there; one that is cut may have done any
  part of its work.
- RETR gives the octets of the message that was listed, or of that very file when it was changed in place, or an error.
- A listing is complete, or an error. Its sizes are exact, but for a file that was once changed in place.
- A unique-id once told stays with its message, and never stands for another one, unless that has taken the place of the
  message: the file was changed in place, or replaced, or the one came and the other went between two sessions.
- Nothing of another user is listed, read, changed or removed, nothing of ours lies in a Maildir, no descriptor stays.
- When the trouble is over, the next session lists and reads everything.
"""

import errno
import os
import shutil

from hypothesis import strategies as st

from pop3d.stores.maildir.deleted import put_back
from pop3d.stores.maildir.delivery import deliver
from tests.untidy.content import SHAPES
from tests.untidy.kinds import Lost, Refused
from tests.untidy.machine import KILLS, PLACES, step
from tests.untidy.others import OtherPrograms
from tests.untidy.process import CHANGING, Killed
from tests.untidy.sessions import Sessions


class Maildir(Sessions, OtherPrograms):
    """See above."""

    @step(lambda self: not self.world.away, shape=st.sampled_from(SHAPES), kill=KILLS, flags=PLACES)
    def deliver(self, shape: str, kill: int | None, flags: str | None) -> None:
        """By `pop3d deliver`."""
        world = self.world
        content, files = world.mint.make(shape), len(world.files)
        delivered: bytes | None = None
        try:
            with self.another_process(), world.tick():
                delivered = self.ours(lambda: deliver(f"{world.mail}/alice", [content.stored], flags=flags), kill)
        except Killed:
            world.account(arriving=content)
            return
        except OSError as fault:
            if world.orderly and not self.process.failing:
                raise Refused(f"deliver: {fault}") from None
        world.account(arriving=content)
        if len(world.files) - files != (delivered is not None) and "unlink" not in self.process.failing:
            raise Lost(f"a delivery said {delivered!r}, and {len(world.files) - files} messages have come")

    @step(lambda self: self.deleted and not self.world.away, kill=KILLS)
    def undelete(self, kill: int | None) -> None:
        """By `pop3d undelete`."""
        world, failed = self.world, None
        try:
            with self.another_process(), world.tick():
                failed = self.ours(lambda: put_back(f"{world.mail}/alice", world.deleted, 0).failed, kill)
        except Killed:
            pass
        except OSError as fault:
            in_use = self.session is not None and isinstance(fault, BlockingIOError)
            if world.orderly and not self.process.failing and not in_use:
                raise Refused(f"undelete: {fault}") from None
        self._returned()
        if failed and not self.process.failing:
            raise Refused(f"undelete: {failed}")
        if failed == [] and world.kept:
            raise Lost("undelete has left some, and said nothing")

    def _returned(self) -> None:
        kept = list(self.world.kept.values())
        self.world.account(returning=True)
        for content in kept:
            self.ids.came_back(content.sent)

    @step(which=st.integers(0, 1), without_cache=st.booleans())
    def restart(self, which: int, without_cache: bool) -> None:
        """Another process on the same state, from which the administrator may have removed what may be removed."""
        if without_cache and os.path.isdir(self.world.state):
            for name in set(os.listdir(self.world.state)) - {"keep"}:
                shutil.rmtree(f"{self.world.state}/{name}")
            self.ids.cache_removed()
        self.stores[which] = self.new_store()

    @step(calls=st.sampled_from([CHANGING, (), *((name,) for name in CHANGING)]), full=st.booleans())
    def disk(self, calls: tuple[str, ...], full: bool) -> None:
        """From now on these calls of ours fail: the disk is ``full``, or sick; without any, it is well again."""
        self.process.failing = frozenset(calls) - ({"unlink", "rmdir"} if full else set())
        self.process.number = errno.ENOSPC if full else errno.EIO

    @step()
    def all_is_well_again(self) -> None:
        """Every trouble is over: a session of a new process lists everything, and reads it."""
        self.finish()

    def finish(self) -> None:
        self.process.failing = frozenset()
        if self.world.swapped:
            self.world.swap_back()
        if self.world.away:
            self.world.mount()
        if self.session is not None:
            self.lose_connection()
        self.stores[0] = self.new_store()
        self.read_all(0)
