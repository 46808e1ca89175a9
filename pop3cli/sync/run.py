"""One account, once: log in, list, fetch what is new, delete what is due, quit.

The order is what matters. A message is deleted when it is recorded, recorded when its name is durable, and has its
name when its octets are; `Writer` and the destinations keep the first part of that, `_delete` the last. Whatever
happens, the worst is that a message stays on the server.

RETR and DELE are said ahead, where the server announces PIPELINING, so that a message costs no round trip. When the
connection is cut, what has come to its end is kept, and the rest is fetched over another one.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, TypeVar

from pop3cli.errors import ConnectionCut, MailError, OutputFailed, ServerBroken, ServerDown, TimedOut, TryLater, refusal
from pop3cli.opening import Index, Place, Reconnect, read_index
from pop3cli.session import Session
from pop3cli.sync.draft import LineEnds
from pop3cli.sync.plan import Plan, Wishes, planned
from pop3cli.sync.state import Entry, Kind, State
from pop3cli.sync.writer import Begin, Collector, Destination, End, Outcome, Writer
from pop3cli.trace import Trace
from pop3core.commands import Command, Dele, Retr, Top
from pop3core.events import ContentEnded, ContentReceived, Replied

__all__ = ["Meter", "Report", "Run"]

PROBLEMS_MAX: Final = 20
"""Problems that are told one by one; of more, only how many."""

_ABOVE: Final = 64 * 1024 * 1024
"""Octets that a message may have above twice what LIST announced: else a server could fill the disk."""

_T = TypeVar("_T")


class Meter(Protocol):
    """Is told how far the work is, in octets, and may show it."""

    def expect(self, more: int) -> None:
        """So much is to be fetched, beside what was expected before."""

    def advance(self, more: int) -> None:
        """So much more has come."""


@dataclass(slots=True)
class Report:
    """How a run went. Numbers of messages; ``octets``: of what was fetched; ``problems``: one line each.

    ``would_fetch``, ``would_delete``: unique-ids, of a dry run. ``error``: why it ended early.
    """

    account: str
    fetched: int = 0
    octets: int = 0
    deleted: int = 0
    skipped: int = 0
    too_large: int = 0
    left: int = 0
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    would_fetch: list[str] = field(default_factory=list)
    would_delete: list[str] = field(default_factory=list)
    error: MailError | None = None

    def problem(self, text: str) -> None:
        """A message could not be dealt with, and stays on the server."""
        self.left += 1
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(text)


class Run:
    """One run. ``account``: what the state is keyed by; ``log_in``: connects a session and logs it in.

    ``imported``: unique-ids that another program has fetched, and when (seconds of the Unix epoch, 0 when unknown).
    ``new_trace``: of each connection, if any.
    """

    def __init__(
        self,
        account: str,
        log_in: Callable[[Session], Awaitable[None]],
        destination: Destination,
        state: Path,
        wishes: Wishes,
        meter: Meter,
        *,
        imported: Mapping[str, int] | None = None,
        reconnect: Reconnect | None = None,
        new_trace: Callable[[], Trace | None] = lambda: None,
    ) -> None:
        self.report = Report(account)
        self._log_in, self._destination, self._state_path = log_in, destination, state
        self._wishes, self._meter, self._reconnect = wishes, meter, reconnect or Reconnect()
        self._imported, self._new_trace = imported or {}, new_trace
        self._thread = ThreadPoolExecutor(1, "sync")  # one: what it does is in order
        self._state: State
        self._uids: dict[int, str] = {}  # by number, of the session under way
        self._logged_in = False
        self._recovered = False

    async def run(self) -> Report:
        """Do it. What failed is in the report; only a cancelled task raises."""
        try:
            with ExitStack() as stack:
                opened = State.opened(self._state_path, self.report.account, read_only=self._wishes.dry_run)
                try:
                    self._state = await self._do(lambda: stack.enter_context(opened))
                    await self._sessions()
                except OSError as fault:
                    raise OutputFailed(str(self._destination.path), fault) from fault
        except MailError as fault:
            self.report.error = fault
        finally:
            self._thread.shutdown(wait=False)
        return self.report

    async def _do(self, work: Callable[[], _T]) -> _T:
        # what has begun in the thread is waited for, also when this task is cancelled
        done = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            await asyncio.wait([done])
            raise

    async def _sessions(self) -> None:
        pauses = self._reconnect.pauses()
        while True:
            before = self.report.fetched
            try:
                return await self._one_session()
            except (ConnectionCut, ServerDown, TimedOut, TryLater) as fault:
                if not self._logged_in:
                    raise
                if self.report.fetched > before:
                    pauses = self._reconnect.pauses()
                seconds = next(pauses, None)
                if seconds is None:
                    raise
                self.report.remarks.append(f"{fault}; trying again")
                await asyncio.sleep(seconds)

    async def _one_session(self) -> None:
        async with Session(trace=self._new_trace()) as session:
            await self._log_in(session)
            self._logged_in = True
            index = await read_index(session)
            if self._wishes.dry_run:
                self._tell(planned(index, self._taken_over() | self._state.entries, self._wishes, time.time()))
                await session.quit()
                return
            await self._do(lambda: self._prepare(index))
            plan = planned(index, self._state.entries, self._wishes, time.time())
            self._note(index, plan)
            if plan.fetch:
                await self._fetch(session, index, plan)
            deleted = await self._delete(session, index)
            await session.quit()  # RFC 1939 §6: only its +OK says that what was marked is deleted
            self.report.deleted += len(deleted)
            await self._do(lambda: self._finish(index, deleted))

    # --- before and after, in the thread ---

    def _taken_over(self) -> dict[str, Entry]:
        now = int(time.time())  # for want of better: it was fetched before
        return {
            uid: Entry(Kind.IMPORTED, when or now, 0)
            for uid, when in self._imported.items()
            if uid not in self._state.entries
        }

    def _prepare(self, index: Index) -> None:
        if not self._recovered:
            self._destination.prepare()
            listed = ((uid, place.octets) for uid, place in index.places.items())
            if remark := self._destination.recover(self._state, listed):
                self.report.remarks.append(remark)
            if taken_over := self._taken_over():
                self._state.record(taken_over.items())
            self._recovered = True
        self._state.listed([*index.places, *index.shared], int(time.time()))

    def _finish(self, index: Index, deleted: list[str]) -> None:
        now = int(time.time())
        self._state.end_run()
        self._state.listed({*index.places, *index.shared}.difference(deleted), now)
        self._state.shorten(now)

    def _tell(self, plan: Plan) -> None:
        self.report.would_fetch = plan.fetch
        self.report.would_delete = [*plan.delete, *plan.confirm]
        self.report.too_large = len(plan.too_large)

    def _note(self, index: Index, plan: Plan) -> None:
        self.report.too_large = len(plan.too_large)
        self.report.left, self.report.problems = 0, []
        for uid in sorted(index.shared):
            self.report.problem(f"several messages have the unique-id {uid}, and stay on the server (RFC 1939 §7)")
        for _ in range(min(index.nameless, PROBLEMS_MAX)):
            self.report.problem("a message has no unique-id, or a too long one, and stays on the server (RFC 1939 §7)")

    # --- fetching ---

    async def _fetch(self, session: Session, index: Index, plan: Plan) -> None:
        headers = self._wishes.headers_only
        self._uids = {index.places[uid].number: uid for uid in plan.fetch}
        self._meter.expect(plan.octets)
        kind = Kind.HEADERS if headers else Kind.FETCHED
        writer = Writer(self._destination, self._state, kind, self._wishes.filter)
        collector = Collector(writer, self._thread, self._became)
        commands: Iterator[Command] = (Top(n, 0) if headers else Retr(n) for n in self._uids)
        try:
            octets = most = 0
            async for said in session.pipeline(commands):
                match said:
                    case ContentReceived(data):
                        octets += len(data)
                        if octets > most:
                            raise _endless(session)
                        self._meter.advance(len(data))
                        enough = collector.add(data)
                    case Replied(Retr(number) | Top(number), ok):
                        uid = self._uids[number]
                        if not ok:
                            self.report.problem(str(refusal(session.where, said)))
                            continue
                        announced = index.places[uid].octets
                        octets, most = 0, _most(announced)
                        enough = collector.add(Begin(uid, announced))
                    case ContentEnded(_, octets):
                        enough = collector.add(End(octets))
                    case _:
                        continue
                if enough:
                    await collector.hand_over()
            await collector.finish()
        except BaseException:
            await asyncio.shield(collector.leave())
            raise
        await self._do(self._state.end_run)

    def _became(self, outcome: Outcome) -> None:
        match outcome.kind:
            case None:
                self.report.problem(str(outcome.fault))
            case Kind.SKIPPED | Kind.UNWANTED:
                self.report.skipped += 1
            case _:
                self.report.fetched += 1
                self.report.octets += outcome.octets

    # --- deleting ---

    async def _delete(self, session: Session, index: Index) -> list[str]:
        """Mark what is due; which unique-ids that are. They are deleted by the QUIT that follows."""
        plan = planned(index, self._state.entries, self._wishes, time.time())
        for uid in plan.changed:
            self.report.problem(f"message {uid} has another size than when it was fetched, and stays on the server")
        wanted = plan.delete
        for uid in plan.confirm:
            if await self._comes_again(session, index.places[uid], self._state.entries[uid].digest):
                wanted.append(uid)
            else:
                self.report.problem(f"message {uid} is not as LIST announced, nor as it came before; it stays there")
        if not wanted:
            return []
        uids = {index.places[uid].number: uid for uid in wanted}
        async for said in session.pipeline(Dele(number) for number in uids):
            if isinstance(said, Replied) and isinstance(said.command, Dele) and not said.ok:
                self.report.problem(str(refusal(session.where, said)))
                del uids[said.command.number]
        return list(uids.values())

    async def _comes_again(self, session: Session, place: Place, digest: str) -> bool:
        """Whether a message of another size than announced comes as it came the first time: then LIST was wrong."""
        seen, line_ends, octets = hashlib.sha256(), LineEnds(), 0
        async for piece in session.retrieve(place.number):
            seen.update(line_ends.feed(piece))
            octets += len(piece)
            if octets > _most(place.octets):
                raise _endless(session)
        seen.update(line_ends.finish())
        return seen.hexdigest() == digest


def _most(announced: int) -> int:
    return 2 * announced + _ABOVE


def _endless(session: Session) -> ServerBroken:
    return ServerBroken(session.where, "a message does not end", "it was not kept")
