"""Sessions of a client in an untidy Maildir, as steps of a state machine, and what must hold of them."""

from typing import Any, Final

from hypothesis import strategies as st

from pop3d.store_contract import ALICE
from pop3d.stores import MaildropBusy, RemovalFailed, StoreError
from pop3d.stores.maildir.store import MaildirMaildrop
from tests.untidy.content import as_sent
from tests.untidy.kinds import Crashed, Fault, Intruded, Lost, NotRefused, Refused, Resurrected, WrongMessage
from tests.untidy.machine import KILLS, WHICH, Machine, pick, step
from tests.untidy.process import Killed
from tests.untidy.session import Entry, Group, Reading, Session
from tests.untidy.world import File

_PIECES_MAX: Final = 100


def no_session(self: Machine) -> bool:
    return self.session is None


def in_session(self: Machine) -> bool:
    return self.session is not None


def has_messages(self: Machine) -> bool:
    return self.session is not None and bool(self.session.entries)


class Sessions(Machine):
    """Logins, RETR, DELE, QUIT, lost connections and kills."""

    def __init__(self) -> None:
        super().__init__()
        self._seen_before = False  # the mailbox, by a process that could remember it

    # --- opening ---

    def _opened(self, store: int) -> MaildirMaildrop | StoreError:
        try:
            return self.ours(self.stores[store].open(ALICE, utf8=False))
        except StoreError as fault:
            return fault
        except OSError as bug:
            raise Crashed(f"open: {bug!r}") from bug
        finally:
            self.world.listed()

    @step(no_session, store=st.integers(0, 1))
    def open(self, store: int) -> None:
        """A client logs in, and asks for UIDL and LIST."""
        self._open(store)

    def _open(self, store: int) -> None:
        drop, world = self._opened(store), self.world
        if isinstance(drop, StoreError):
            world.account()
            self.check_closed()
            if isinstance(drop, MaildropBusy) or not (world.away or world.swapped):
                raise Refused(f"open: {drop.text}: {drop.detail}")
            return
        try:
            self._check_opened(drop)
        finally:
            if self.session is None:
                self.loop.run_until_complete(drop.close())
        world.account()

    def _check_opened(self, drop: MaildirMaildrop) -> None:
        world = self.world
        if world.away:
            if self._seen_before or len(drop.messages):
                raise NotRefused(f"the {world.away} is gone, and the mailbox shows {len(drop.messages)} messages")
            return
        if linked := world.swapped - {"tmp"}:
            bobs = {len(as_sent(stored)) for _, stored in world.bobs.values()}
            if "box" in linked or bobs & set(drop.messages.sizes):
                raise Intruded(f"through a link, {list(drop.messages.uids)} are listed")
            raise NotRefused(f"{linked} cannot be listed, and the mailbox shows {len(drop.messages)} messages")
        self.session = Session(drop, world.files)
        steady = not self.process.failing  # else a process cannot remember what it has seen and told
        try:
            self.ids.check(self.session.groups, world, binding=steady)
        except Fault as fault:
            if isinstance(fault, self.kinds):
                raise  # else the run goes on: all other accounts are in order
        self._seen_before = self._seen_before or steady

    @step(in_session, store=st.integers(0, 1))
    def open_while_in_use(self, store: int) -> None:
        drop = self._opened(store)
        if not isinstance(drop, StoreError):
            self.loop.run_until_complete(drop.close())
        if self.world.orderly and not isinstance(drop, MaildropBusy):
            raise NotRefused("two sessions at once")
        self.world.account()

    @step(has_messages, which=WHICH, now=st.booleans(), top=st.booleans())
    def retrieve(self, which: int, now: bool, top: bool) -> None:
        """RETR, whole; or TOP, which asks for no more than the first piece."""
        self._fetch(self._entry(which), now=now, top=top)

    def _fetch(self, entry: Entry, *, now: bool = True, top: bool = False, must: bool = False) -> None:
        self._release()
        self._session.reading = Reading(entry, b"")
        for _ in range(_PIECES_MAX):
            if self._piece(now=now, must=must) or top:
                break
        else:
            raise WrongMessage(f"message {entry.number} never ends")
        self._release()

    @step(has_messages, which=WHICH, now=st.booleans())
    def begin(self, which: int, now: bool) -> None:
        """RETR, the first piece."""
        self._release()
        self._session.reading = Reading(self._entry(which), b"")
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

    def _entry(self, which: int) -> Entry:
        return pick(self._session.entries, lambda entry: {file.unique for file in entry.files}, self.world.focus, which)

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

    @step(has_messages, which=WHICH, reset=st.booleans())
    def dele(self, which: int, reset: bool) -> None:
        """DELE, and perhaps RSET before it."""
        if reset:
            self._session.marked.clear()
        self._session.marked.add(self._entry(which).number)

    @step(no_session, store=st.integers(0, 1), which=WHICH, kill=KILLS)
    def visit(self, store: int, which: int, kill: int | None) -> None:
        """A short session, of which no other program notices anything: one message is fetched and deleted."""
        self._open(store)
        if self.session is None:
            return
        if self.session.entries:
            entry = self._entry(which)
            self._fetch(entry)
            self.session.marked.add(entry.number)
        self._end(frozenset(self.session.marked), kill)

    def read_all(self, store: int) -> None:
        """A session that fetches everything: there is no reason for an error."""
        self._open(store)
        assert self.session is not None
        for entry in self.session.entries:
            self._fetch(entry, must=True)
        self._end(frozenset(), None)

    @step(in_session, kill=KILLS)
    def drop(self, kill: int | None) -> None:
        """The connection is lost: nothing is removed."""
        self.lose_connection(kill)

    def lose_connection(self, kill: int | None = None) -> None:
        """The end of a session without QUIT."""
        self._end(frozenset(), kill)

    @step(in_session, more=st.lists(WHICH, max_size=3), kill=KILLS)
    def quit(self, more: list[int], kill: int | None) -> None:
        """Perhaps some more DELE, then QUIT."""
        if self._session.entries:
            self._session.marked |= {self._entry(which).number for which in more}
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
            self.check_closed()
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
        if (every and alive) or (len(group.entries) == len(group.files) and len(alive) > len(group.files) - confirmed):
            raise Resurrected(f"{names}: {confirmed} removals were confirmed, and {len(alive)} are still there")
        if left and not self.process.failing and self.world.orderly:
            for entry in group.entries:
                # while it is listed with a size of before a change in place, nobody can tell it apart
                if entry.number in left and self._must_be_readable(entry) and not entry.files[0].stale:
                    raise Refused(f"{names}: not removed, for no reason")
        texts = {file.content.sent for file in group.files}
        copies = {file.content.sent for file in self.world.files if file not in group.files}
        if len(texts) == 1 and not texts & copies:
            for entry in group.entries:
                if entry.number in marked - left and entry.binding:
                    self.ids.removed(entry.uid, min(texts))
