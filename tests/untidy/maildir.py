"""The untidy world of a Maildir, as a state machine for Hypothesis.

Steps of ours (sessions, deliveries, undelete) and of other programs come in any order. What must hold:

- Octets that nobody marked are lost only by what another program does itself; those marked when `deleted` is on, never.
- What a confirmed QUIT had marked is gone. A QUIT that fails names what may be there; one that is cut may have done any
  part of its work.
- RETR gives the octets of the message that was listed, or of that very file when it was changed in place, or an error.
- A listing is complete, or an error. Its sizes are exact, but for a file that was changed in place since it was counted.
- A unique-id once told stays with its message, and never stands for another one, unless that has taken the place of the
  message: the file was changed in place, or replaced, or the one came and the other went between two sessions.
- Nothing of another user is listed, read, changed or removed, nothing of ours lies in a Maildir, no descriptor stays.
- When the trouble is over, the next session lists and reads everything.
"""

import asyncio
import errno
import os
import shutil
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from pop3d.store_contract import ALICE
from pop3d.stores import MaildropBusy, RemovalFailed, StoreError
from pop3d.stores.maildir import MaildirMaildrop, MaildirOptions, MaildirStore
from pop3d.stores.maildir_delivery import deliver
from pop3d.stores.maildir_removal import put_back
from tests.untidy.content import SHAPES, Content, as_sent
from tests.untidy.kinds import (
    Crashed,
    Fault,
    Intruded,
    Leaked,
    Lost,
    NotRefused,
    Refused,
    Resurrected,
    WrongMessage,
)
from tests.untidy.process import CHANGING, Killed, OurProcess, open_below
from tests.untidy.session import Entry, Group, IdBook, Reading, Session
from tests.untidy.world import File, World

T = TypeVar("T")

_FILES_MAX: Final = 8
_PIECES_MAX: Final = 100

WHICH = st.integers(0, 7)
FLAGS = st.sampled_from(["S", "", "RS", "F"])
PLACES = st.one_of(st.none(), FLAGS)  # new/, or cur/ with flags
KILLS = st.one_of(st.none(), st.integers(1, 12))


def step(needs: Callable[["Maildir"], bool] = lambda _: True, **strategies: Any) -> Callable[[Any], Any]:
    """A rule that can be left out (`Maildir.steps`), and whose faults can be passed over (`Maildir.kinds`)."""

    def decorate(function: Callable[..., None]) -> Any:
        @wraps(function)
        def run(self: "Maildir", **drawn: Any) -> None:
            self.run_step(function, drawn)

        def possible(self: "Maildir") -> bool:
            return not self.over and (self.steps is None or function.__name__ in self.steps) and needs(self)

        return precondition(possible)(rule(**strategies)(run))

    return decorate


def others(needs: Callable[["Maildir"], bool] = lambda _: True, **strategies: Any) -> Callable[[Any], Any]:
    """A step of another program on a file, while the folders are in their places."""
    return step(lambda self: bool(self.world.orderly and self.world.files and needs(self)), **strategies)


def room(self: "Maildir") -> bool:
    return self.world.orderly and len(self.world.files) < _FILES_MAX


def in_session(self: "Maildir") -> bool:
    return self.session is not None


def has_messages(self: "Maildir") -> bool:
    return self.session is not None and bool(self.session.entries)


class Maildir(RuleBasedStateMachine):
    """See above. Class attributes narrow it down, to hunt for one thing."""

    steps: ClassVar[frozenset[str] | None] = None
    """Names of the steps that are taken; None: all."""
    kinds: ClassVar[tuple[type[Fault], ...]] = (Fault,)
    """Faults that are told; a run that meets another one ends quietly."""
    options: ClassVar[dict[str, bool] | None] = None
    """Fixed options: ``mark_seen``, ``deleted``, ``clock_ahead``; None: any."""
    runs: ClassVar[int] = 0
    taken: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).runs += 1
        self.over = False
        self.loop = asyncio.new_event_loop()
        self.world = World()
        self.session: Session | None = None
        self.ids = IdBook()
        self.seen_before = False

    @initialize(mark_seen=st.booleans(), deleted=st.booleans(), clock_ahead=st.booleans())
    def start(self, mark_seen: bool, deleted: bool, clock_ahead: bool) -> None:
        fixed = self.options or {}
        self.deleted = fixed.get("deleted", deleted)
        self.process = OurProcess(clock_ahead=fixed.get("clock_ahead", clock_ahead))
        kept = f"{self.world.base}/deleted/{{user}}" if self.deleted else ""
        self.store_options = MaildirOptions(mark_seen=fixed.get("mark_seen", mark_seen), deleted=kept)
        self.stores = [self.new_store(), self.new_store()]

    def new_store(self) -> MaildirStore:
        return MaildirStore(f"{self.world.mail}/{{user}}", Path(self.world.state), self.store_options)

    def run_step(self, function: Callable[..., None], drawn: dict[str, Any]) -> None:
        type(self).taken += 1
        try:
            function(self, **drawn)
        except Fault as fault:
            self.over = True
            if isinstance(fault, self.kinds):
                raise

    @precondition(lambda self: self.over)
    @rule()
    def nothing_more(self) -> None:
        """The run is over."""

    def teardown(self) -> None:
        try:
            if not self.over:
                self.run_step(Maildir.all_is_well_again, {})
        finally:
            if self.session is not None:
                self.loop.run_until_complete(self.session.drop.close())
            self.loop.close()
            self.world.close()

    # --- running steps of ours ---

    def ours(self, work: Coroutine[Any, Any, T] | Callable[[], T], kill: int | None = None) -> T:
        """Do something as pop3d. Raises what it raises, and `Crashed` for what no caller expects."""
        try:
            with self.process.running(kill):
                return self.loop.run_until_complete(work) if isinstance(work, Coroutine) else work()
        except (StoreError, OSError, Killed):
            raise
        except Exception as bug:
            raise Crashed(f"{type(bug).__name__}: {bug}") from bug

    def died(self) -> None:
        """The process is dead: what it held is free, and others are started."""
        if self.session is not None:
            session, self.session = self.session, None
            try:
                with self.process.running(1):
                    self.loop.run_until_complete(session.drop.close())
            except (Killed, OSError, StoreError):
                pass
        for descriptor in open_below(self.world.base):
            os.close(descriptor)
        self.stores = [self.new_store(), self.new_store()]

    # --- steps of ours: a session ---

    def _opened(self, store: int) -> MaildirMaildrop | StoreError:
        try:
            return self.ours(self.stores[store].open(ALICE, utf8=False))
        except StoreError as fault:
            return fault
        except OSError as bug:
            raise Crashed(f"open: {bug!r}") from bug

    @step(lambda self: self.session is None, store=st.integers(0, 1))
    def open(self, store: int) -> None:
        drop, world = self._opened(store), self.world
        if isinstance(drop, StoreError):
            self.world.account()
            self._no_leak()
            if isinstance(drop, MaildropBusy) or not (world.away or world.swapped):
                raise Refused(f"open: {drop.text}: {drop.detail}")
            return
        try:
            self._check_opened(drop)
        except BaseException:
            self.loop.run_until_complete(drop.close())
            raise

    def _check_opened(self, drop: MaildirMaildrop) -> None:
        world = self.world
        if world.away:
            if self.seen_before or len(drop.messages):
                raise NotRefused(f"the {world.away} is gone, and the mailbox shows {len(drop.messages)} messages")
            self.loop.run_until_complete(drop.close())
            world.account()
            return
        bobs = {len(stored) for _, stored in world.bobs.values()}
        if world.swapped - {"tmp"}:
            if any(size in self._bobs_sizes() for size in drop.messages.sizes) or "box" in world.swapped:
                raise Intruded(f"through a link, {list(drop.messages.uids)} are listed; bob's have {bobs} octets")
            raise NotRefused(f"{world.swapped} cannot be listed, and the mailbox shows {len(drop.messages)} messages")
        session = Session(drop, world.files)
        self.session = session
        world.account()
        steady = not self.process.failing
        self.ids.check(session.groups, world.ancestors, binding=steady)
        self.seen_before = self.seen_before or steady

    def _bobs_sizes(self) -> set[int]:
        return {len(as_sent(stored)) for _, stored in self.world.bobs.values()}

    @step(in_session, store=st.integers(0, 1))
    def open_while_in_use(self, store: int) -> None:
        drop = self._opened(store)
        if isinstance(drop, MaildirMaildrop):
            self.loop.run_until_complete(drop.close())
        if self.world.orderly and not isinstance(drop, MaildropBusy):
            raise NotRefused("two sessions at once")
        self.world.account()

    @step(has_messages, which=WHICH, now=st.booleans(), top=st.booleans())
    def retrieve(self, which: int, now: bool, top: bool) -> None:
        """RETR, whole; or TOP, which asks for no more than the first piece."""
        self._release()
        entry = self._session.entry_of(which)
        self._session.reading = Reading(entry, b"")
        for _ in range(_PIECES_MAX):
            if self._piece(now=now) or top:
                break
        else:
            raise WrongMessage(f"message {entry.number} never ends")
        self._release()

    @step(has_messages, which=WHICH, now=st.booleans())
    def begin(self, which: int, now: bool) -> None:
        """RETR, the first piece."""
        self._release()
        self._session.reading = Reading(self._session.entry_of(which), b"")
        if self._piece(now=now):
            self._release()

    @step(lambda self: bool(self.session and self.session.reading), now=st.booleans())
    def go_on(self, now: bool) -> None:
        """The next piece of that."""
        if self._piece(now=now):
            self._release()

    @property
    def _session(self) -> Session:
        assert self.session is not None
        return self.session

    def _release(self) -> None:
        if self._session.reading is not None:
            self._session.drop.release(self._session.reading.entry.number)
            self._session.reading = None

    async def _read(self, number: int, offset: int, now: bool) -> Any:
        drop = self._session.drop
        piece = drop.read_now(number, offset) if now else None
        return piece if piece is not None else await drop.read(number, offset)

    def _piece(self, *, now: bool, must: bool = False) -> bool:
        """Read on; whether that was all. ``must``: there is no reason for an error."""
        session, reading = self._session, self._session.reading
        assert reading is not None
        entry = reading.entry
        try:
            piece = self.ours(self._read(entry.number, len(reading.data), now))
        except StoreError as fault:
            self.world.account()
            if must or self._must_be_readable(entry):
                raise Refused(f"RETR {entry.number}: {fault.text}: {fault.detail}") from None
            return True
        except OSError as bug:
            raise Crashed(f"RETR: {bug!r}") from bug
        self.world.account()
        reading.data += piece.data
        if not (piece.data or piece.last):
            raise WrongMessage("an empty piece that is not the last one")
        self._check_read(entry, reading, last=piece.last)
        if piece.last:
            session.drop.retrieved(entry.number)
            session.seen.add(entry.number)
            session.exact |= {file for file in entry.files if file.content.sent == reading.data}
        return bool(piece.last)

    def _check_read(self, entry: Entry, reading: Reading, *, last: bool) -> None:
        data = reading.data
        if reading.torn or (data in entry.texts if last else any(text.startswith(data) for text in entry.texts)):
            return
        if any(as_sent(stored).startswith(data) for _, stored in self.world.bobs.values()):
            raise Intruded(f"RETR {entry.number} gives bob's {data[:14]!r}")
        listed = sorted(text[:14] for text in entry.texts)
        raise WrongMessage(f"RETR {entry.number}, which is {listed}, gives {data[:14]!r}, {len(data)} octets")

    def _must_be_readable(self, entry: Entry) -> bool:
        """No reason for an error: its file is there, as it was, and no other one has a name like that."""
        world = self.world
        if len(entry.files) > 1 or entry.changed or not world.orderly or entry.files[0] not in world.files:
            return False
        return self._alone(entry.files[0])

    def _alone(self, file: File) -> bool:
        return not any(other is not file and other.unique == file.unique for other in self.world.files)

    @step(has_messages, which=WHICH)
    def dele(self, which: int) -> None:
        self._session.marked.add(self._session.entry_of(which).number)

    @step(in_session)
    def rset(self) -> None:
        self._session.marked.clear()

    @step(in_session, kill=KILLS)
    def drop(self, kill: int | None) -> None:
        """The connection is lost: nothing is removed."""
        self._end(frozenset(), kill)

    @step(in_session, kill=KILLS)
    def quit(self, kill: int | None) -> None:
        self._end(frozenset(self._session.marked), kill)

    async def _quit(self, drop: MaildirMaildrop, numbers: frozenset[int]) -> set[int]:
        """What could not be removed."""
        left: set[int] = set()
        try:
            if numbers:
                await drop.remove(sorted(numbers))
        except RemovalFailed as failed:
            left = set(failed.left)
            assert left
            assert left <= numbers
        finally:
            await drop.close()
        return left

    def _end(self, marked: frozenset[int], kill: int | None) -> None:
        self._release()
        session = self._session
        killed = False
        left: set[int] = set()
        try:
            with self.world.tick():
                left = self.ours(self._quit(session.drop, marked), kill)
        except Killed:
            killed = True
            self.died()
        except (StoreError, OSError) as bug:
            raise Crashed(f"QUIT: {bug!r}") from bug
        finally:
            self.session = None
        if not killed:
            self._no_leak()
        touched = [group for group in session.groups if any(entry.number in marked for entry in group.entries)]
        may_go = [file for group in touched for file in self._files_of(group)]
        seen = [file for entry in session.entries if entry.number in session.seen for file in entry.files + entry.heirs]
        there = set(self.world.files)
        gone = self.world.account(
            may_go, seen if self.store_options.mark_seen else (), soft=self.deleted and bool(marked)
        )
        for group in touched:
            numbers = {entry.number for entry in group.entries}
            self._check_removed(group, numbers & marked, numbers & left, there, gone, killed=killed)
        if not killed and not self.process.failing:
            for file in session.exact & set(self.world.files):
                file.stale = set()

    @staticmethod
    def _files_of(group: Group) -> list[File]:
        return group.files + [heir for entry in group.entries for heir in entry.heirs]

    def _check_removed(
        self, group: Group, marked: set[int], left: set[int], there: set[File], gone: set[File], *, killed: bool
    ) -> None:
        """``there``: files before; ``gone``: those that the removal took away."""
        names = [sorted(file.names) for file in group.files]
        taken = [file for file in group.files if file in gone]
        if len(taken) > len(marked):
            raise Lost(f"{len(marked)} of {names} are marked, and {len(taken)} are gone")
        if killed:
            return
        confirmed = len(marked) - len(left)
        alive = [file for file in group.files if file in there and file not in gone]
        every = confirmed == len(group.entries)
        if every and alive or len(group.entries) == len(group.files) and len(alive) > len(group.files) - confirmed:
            raise Resurrected(f"{names}: {confirmed} removals were confirmed, and {len(alive)} are still there")
        if left and not self.process.failing and self.world.orderly:
            for entry in group.entries:
                if entry.number in left and self._must_be_readable(entry):
                    raise Refused(f"{names}: not removed, for no reason")
        texts = {file.content.sent for file in group.files}
        copies = {file.content.sent for file in self.world.files if file not in group.files}
        if len(texts) == 1 and not texts & copies:
            for entry in group.entries:
                if entry.number in marked - left:
                    self.ids.removed(entry.uid, min(texts))

    def _no_leak(self) -> None:
        if found := open_below(self.world.base):
            raise Leaked(f"descriptors {found} are still open")

    # --- steps of ours: others ---

    @step(lambda self: not self.world.away, shape=st.sampled_from(SHAPES), kill=KILLS, flags=PLACES)
    def deliver(self, shape: str, kill: int | None, flags: str | None) -> None:
        """By `pop3d deliver`."""
        content, files = self.world.mint.make(shape), len(self.world.files)
        delivered: bytes | None = None
        try:
            with self.world.tick():
                box = f"{self.world.mail}/alice"
                delivered = self.ours(lambda: deliver(box, [content.stored], flags=flags), kill)
        except Killed:
            self.died()
            self.world.account(arriving=content)
            return
        except OSError:
            if self.world.orderly and not self.process.failing:
                raise
        self.world.account(arriving=content)
        if len(self.world.files) - files != (delivered is not None) and "unlink" not in self.process.failing:
            raise Lost(f"a delivery said {delivered!r}, and {len(self.world.files) - files} messages have come")

    @step(lambda self: self.deleted and not self.world.away, kill=KILLS)
    def undelete(self, kill: int | None) -> None:
        """By `pop3d undelete`."""
        try:
            with self.world.tick():
                box, kept = f"{self.world.mail}/alice", self.world.deleted
                self.ours(lambda: put_back(box, kept), kill)
        except Killed:
            self.died()
            self._returned()
            return
        except OSError as fault:
            if self.world.orderly and not self.process.failing:
                raise Refused(f"undelete: {fault}") from None
            self._returned()
            return
        self._returned()
        if self.world.kept:
            raise Refused("undelete has left some, and said nothing")

    def _returned(self) -> None:
        kept = list(self.world.kept.values())
        self.world.account(returning=True)
        for content in kept:
            self.ids.came_back(content.sent)

    @step(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        """Another process on the same state."""
        self.stores[which] = self.new_store()

    @step()
    def remove_cache(self) -> None:
        """The administrator removes what may be removed at any time."""
        for name in os.listdir(self.world.state) if os.path.isdir(self.world.state) else ():
            if name != "keep":
                shutil.rmtree(f"{self.world.state}/{name}")

    @step(
        lambda self: not self.process.failing,
        calls=st.one_of(st.just(frozenset(CHANGING)), st.sampled_from(CHANGING).map(lambda name: frozenset([name]))),
        number=st.sampled_from([errno.ENOSPC, errno.EIO]),
    )
    def disk_fails(self, calls: frozenset[str], number: int) -> None:
        """From now on, our calls fail."""
        self.process.failing, self.process.number = calls - {"unlink"} if number == errno.ENOSPC else calls, number

    @step(lambda self: bool(self.process.failing))
    def disk_is_well(self) -> None:
        self.process.failing = frozenset()

    # --- other programs ---

    @step(room, shape=st.sampled_from(SHAPES), to=PLACES)
    def arrive(self, shape: str, to: str | None) -> None:
        """An MTA delivers, or an IMAP server saves a message with flags."""
        name = self.world.free_name(self.world.new_unique(), to)
        assert name is not None
        self.world.create(self.world.mint.make(shape), name)

    def _file(self, which: int) -> File:
        return self.world.files[which % len(self.world.files)]

    @others(which=WHICH, to=PLACES)
    def move(self, which: int, to: str | None) -> None:
        """Flags are set, or it is moved between new/ and cur/."""
        file = self._file(which)
        if (name := self.world.free_name(file.unique, to)) is not None:
            self.world.rename(file, name)

    @others(room, which=WHICH, to=PLACES, same=st.booleans(), old=st.booleans())
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

    @others(which=WHICH)
    def replace(self, which: int) -> None:
        """By a rename over it."""
        self.world.replace(self._file(which), self.world.mint.make())

    @others(which=WHICH, how=st.sampled_from(["same length", "longer", "shorter"]))
    def rewrite(self, which: int, how: str) -> None:
        """In place."""
        file, mint = self._file(which), self.world.mint
        old = file.content
        make = {"same length": mint.same_length, "longer": mint.longer, "shorter": mint.shorter}[how]
        if not old.compressed and (content := make(old)) is not None and content.stored != old.stored:
            self.world.rewrite(file, content)
            if self.session is not None:
                self.session.changed_in_place(file)

    @others(which=WHICH)
    def unlink(self, which: int) -> None:
        self.world.unlink(self._file(which))

    @others(which=WHICH, to=PLACES)
    def link(self, which: int, to: str | None) -> None:
        """A program was killed between its link and its unlink."""
        file = self._file(which)
        if (name := self.world.free_name(file.unique, to)) is not None:
            self.world.link(file, name)

    @others(which=WHICH, flags=FLAGS)
    def compress(self, which: int, flags: str) -> None:
        file = self._file(which)
        name = self.world.free_name(file.unique, f"{flags}Z")
        if name is not None and not file.content.compressed and len(file.names) == 1:
            made = self.world.compress(file, name)
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
        self.world.unmount(what, mount_point)

    @step(lambda self: bool(self.world.away))
    def mount(self) -> None:
        self.world.mount()

    # --- the end ---

    @step()
    def all_is_well_again(self) -> None:
        """Every trouble is over: a session by a new process lists everything, and reads it."""
        self.process.failing = frozenset()
        if self.world.swapped:
            self.world.swap_back()
        if self.world.away:
            self.world.mount()
        if self.session is not None:
            self._end(frozenset(), None)
        self.stores[0] = self.new_store()
        drop = self._opened(0)
        if isinstance(drop, StoreError):
            raise Refused(f"open: {drop.text}: {drop.detail}")
        try:
            self._check_opened(drop)
        except BaseException:
            self.loop.run_until_complete(drop.close())
            raise
        for entry in self._session.entries:
            self._session.reading = Reading(entry, b"")
            while not self._piece(now=True, must=True):
                pass
            self._release()
        self._end(frozenset(), None)
