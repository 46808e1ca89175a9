"""One account, once: log in, list, fetch what is new, delete what is due, quit.

The order is what matters. A message is deleted when it is recorded, recorded when its name is durable, and has its
name when its octets are; `Writer` and the destinations keep the first part of that, `_delete` the last. What is to be
deleted by its unique-id alone, though that may name another message now, is fetched again first (`Plan.compare`): only
what comes as it is in the destination is deleted, and what does not is kept as the new message that it is. Whatever
happens, the worst is that a message stays on the server.

RETR and DELE are said ahead, where the server announces PIPELINING, so that a message costs no round trip. When the
connection is cut, what has come to its end is kept, and the rest is fetched over another one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, TypeVar

from pop3cli.errors import ConnectionCut, MailError, OutputFailed, ServerBroken, ServerDown, TimedOut, TryLater, refusal
from pop3cli.mailbox.index import Index, Reconnect, read_index
from pop3cli.net.session import Session
from pop3cli.net.trace import Trace
from pop3cli.sync.plan import Plan, SyncOptions, planned
from pop3cli.sync.state import Kind, LogEntry, SyncState
from pop3cli.sync.writer import Begin, Collector, Destination, End, WriteOutcome, Writer
from pop3core.commands import Command, Dele, Retr, Top
from pop3core.events import ContentEnded, ContentReceived, Replied

__all__ = ["SyncMeter", "SyncReport", "SyncRun"]

PROBLEMS_MAX: Final = 20
"""Problems that are told one by one; of more, only how many."""

_ABOVE: Final = 64 * 1024 * 1024
"""Octets that a message may have above twice what LIST announced: else a server could fill the disk."""

_T = TypeVar("_T")


class SyncMeter(Protocol):
    """Is told how far the work is, in octets, and may show it."""

    def expect(self, more: int) -> None:
        """So much is to be fetched, beside what was expected before."""

    def advance(self, more: int) -> None:
        """So much more has come."""


@dataclass(slots=True)
class SyncReport:
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


class SyncRun:
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
        wishes: SyncOptions,
        meter: SyncMeter,
        *,
        imported: Mapping[str, int] | None = None,
        reconnect: Reconnect | None = None,
        new_trace: Callable[[], Trace | None] = lambda: None,
    ) -> None:
        self.report = SyncReport(account)
        self._log_in, self._destination, self._state_path = log_in, destination, state
        self._wishes, self._meter, self._reconnect = wishes, meter, reconnect or Reconnect()
        self._imported, self._new_trace = imported or {}, new_trace
        self._thread = ThreadPoolExecutor(1, "sync")  # one: what it does is in order
        self._state: SyncState
        self._uids: dict[int, str] = {}  # by number, of the session under way
        self._seen: set[str] = set()  # came in the session under way, so the unique-id needs no trust
        self._trusting = True  # no unique-id has turned out to name another message than before
        self._logged_in = False
        self._recovered = False

    async def run(self) -> SyncReport:
        """Do it. What failed is in the report; only a cancelled task raises."""
        try:
            with ExitStack() as stack:
                opened = SyncState.opened(self._state_path, self.report.account, read_only=self._wishes.dry_run)
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
                entries = self._taken_over(index) | self._state.entries
                self._tell(planned(index, entries, self._wishes, time.time()))
                await session.quit()
                return
            await self._do(lambda: self._prepare(index))
            plan = await self._fetch_all(session, index)
            deleted = await self._delete(session, index, plan.delete)
            if deleted:  # whatever becomes of the answer to QUIT
                await self._do(lambda: self._state.leaving(deleted, int(time.time())))
            await session.quit()  # RFC 1939 §6: only its +OK says that what was marked is deleted
            self.report.deleted += len(deleted)
            if plan.imported:
                self.report.remarks.append(
                    f"messages that another program has fetched stay on the server: {len(plan.imported):,}; nobody"
                    " knows whether they are in the destination"
                )
            await self._do(lambda: self._finish(deleted))

    # --- before and after, in the thread ---

    def _taken_over(self, index: Index) -> dict[str, LogEntry]:
        now = int(time.time())  # for want of better: it was fetched before
        octets = {uid: place.octets for uid, place in index.places.items()}
        return {
            uid: LogEntry(Kind.IMPORTED, when or now, octets.get(uid, 0))
            for uid, when in self._imported.items()
            if uid not in self._state.entries
        }

    def _prepare(self, index: Index) -> None:
        if not self._recovered:
            self._destination.prepare()
            listed = ((uid, place.octets) for uid, place in index.places.items())
            if remark := self._destination.recover(self._state, listed):
                self.report.remarks.append(remark)
            if taken_over := self._taken_over(index):
                self._state.record(taken_over.items())
            self._recovered = True
        # an id that several messages have counts as gone: which of them has it later is not known
        self._state.listed(index.places, int(time.time()))

    def _finish(self, deleted: list[str]) -> None:
        now = int(time.time())
        self._state.end_run()
        self._state.forget(deleted, now)
        self._state.shorten(now)

    def _tell(self, plan: Plan) -> None:
        self.report.would_fetch = plan.fetch
        self.report.would_delete = [*plan.delete, *plan.compare]
        self.report.too_large = len(plan.too_large)

    def _note(self, index: Index, plan: Plan) -> None:
        self.report.too_large = len(plan.too_large)
        self.report.left, self.report.problems = 0, []
        for uid in sorted(index.shared):
            self.report.problem(f"several messages have the unique-id {uid}, and stay on the server (RFC 1939 §7)")
        for _ in range(min(index.nameless, PROBLEMS_MAX)):
            self.report.problem("a message has no unique-id, or a too long one, and stays on the server (RFC 1939 §7)")

    # --- fetching ---

    def _planned(self, index: Index) -> Plan:
        entries, now = self._state.entries, time.time()
        return planned(index, entries, self._wishes, now, seen=self._seen, trusting=self._trusting)

    async def _fetch_all(self, session: Session, index: Index) -> Plan:
        """Fetch what is new, and again what has to be compared before it is deleted; what is to be done then."""
        self._seen.clear()
        plan = self._planned(index)
        self._note(index, plan)
        if plan.fetch:
            await self._fetch(session, index, plan.fetch)
            plan = self._planned(index)
        tried: set[str] = set()
        while again := [uid for uid in plan.compare if uid not in tried]:
            tried.update(again)
            await self._fetch(session, index, again)
            plan = self._planned(index)
        return plan

    async def _fetch(self, session: Session, index: Index, uids: list[str]) -> None:
        headers = self._wishes.headers_only
        self._uids = {index.places[uid].number: uid for uid in uids}
        self._meter.expect(0 if headers else sum(index.places[uid].octets for uid in uids))
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

    def _became(self, outcome: WriteOutcome) -> None:
        if outcome.as_before or outcome.kind in (Kind.FETCHED, Kind.UNWANTED):
            self._seen.add(outcome.uid)
        if outcome.as_before:
            return
        if outcome.as_before is False:
            self._trusting = False  # it gives unique-ids to other messages: so no other id is taken at its word
        match outcome.kind:
            case None:
                self.report.problem(outcome.problem)
            case Kind.SKIPPED | Kind.UNWANTED:
                self.report.skipped += 1
            case _:
                self.report.fetched += 1
                self.report.octets += outcome.octets

    # --- deleting ---

    async def _delete(self, session: Session, index: Index, uids: list[str]) -> list[str]:
        """Mark messages; which of them the server has marked. They are deleted by the QUIT that follows."""
        marked: list[str] = []
        by_number = {index.places[uid].number: uid for uid in uids}
        async for said in session.pipeline(Dele(number) for number in by_number):
            match said:
                case Replied(Dele(number), True):
                    marked.append(by_number[number])
                case Replied(Dele(), False):
                    self.report.problem(str(refusal(session.where, said)))
                case _:
                    pass
        return marked


def _most(announced: int) -> int:
    return 2 * announced + _ABOVE


def _endless(session: Session) -> ServerBroken:
    return ServerBroken(session.where, "a message does not end", "it was not kept")
