"""Messages from the event loop to the disk, in batches, so that the disk and the network do not wait for each other.

What arrives is collected until it is worth a thread's while; while one batch is written and synced, the next is
collected, unless that is done in no time anyway. So no more than two batches are in memory, however large a message is:
one that is larger than a batch is written in pieces, and gets its name when its end has come.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol, TypeAlias

from pop3cli.errors import FilterFailed
from pop3cli.sync.filters import Filter, FilterVerdict
from pop3cli.sync.spool import Spool
from pop3cli.sync.state import Kind, LogEntry, SyncState

__all__ = ["Begin", "Collector", "Destination", "End", "WriteOutcome", "Writer"]

BATCH_OCTETS: Final = 2 * 1024 * 1024
"""Content that is worth a batch."""

BATCH_MESSAGES: Final = 64
"""Messages that are worth a batch: so many are synced together."""

BATCH_SECONDS: Final = 0.2
"""Over a slow line a message waits no longer than this for others, or until the batch before is written."""

_QUICK: Final = 0.04
"""Seconds to collect a batch from a server that is quicker than most disks; the most that doing one by one may cost."""


@dataclass(frozen=True, slots=True)
class Begin:
    """A message begins. ``octets``: as LIST announced, or 0 when that says nothing about what comes."""

    uid: str
    octets: int


@dataclass(frozen=True, slots=True)
class End:
    """Its terminator was seen. ``octets``: as received."""

    octets: int


Piece: TypeAlias = Begin | bytes | End


@dataclass(frozen=True, slots=True)
class WriteOutcome:
    """What became of a message. ``kind``: None when ``problem`` says why nothing did.

    ``as_before``: whether its text is the one that came under this unique-id before; None when that is not known.
    """

    uid: str
    kind: Kind | None
    octets: int
    problem: str = ""
    as_before: bool | None = None


class Destination(Protocol):
    """Where messages are kept. All methods block, and raise OSError."""

    path: Path

    def prepare(self) -> None:
        """Make what is missing, clear away what is left of a crash."""

    def begin(self, uid: str) -> Spool:
        """A message that is about to come."""
        ...

    def store(self, drafts: Sequence[Spool], state: SyncState, done: Sequence[tuple[str, LogEntry]]) -> None:
        """Keep messages, durably, and record what was done."""

    def recover(self, state: SyncState, listed: Iterable[tuple[str, int]]) -> str | None:
        """Make good what a crash has left; a remark when it cannot be. ``listed``: unique-ids and octets."""


class Writer:
    """Writes batches into a destination. Its methods block; they are called from one thread."""

    def __init__(self, destination: Destination, state: SyncState, kind: Kind, judge: Filter | None) -> None:
        self._destination, self._state, self._kind, self._filter = destination, state, kind, judge
        self._draft: Spool | None = None
        self._begun = Begin("", 0)

    def write(self, pieces: Sequence[Piece]) -> list[WriteOutcome]:
        """Write a batch: what of it is whole is durable, and recorded, when this returns. Raises OSError."""
        drafts: list[Spool] = []
        done: list[tuple[str, LogEntry]] = []
        outcomes: list[WriteOutcome] = []
        try:
            for piece in pieces:
                match piece:
                    case Begin(uid):
                        self._begun, self._draft = piece, self._destination.begin(uid)
                    case End(octets):
                        assert self._draft is not None
                        self._draft.finish()
                        drafts.append(self._draft)
                        self._draft = None
                        self._decide(drafts, octets, done, outcomes)
                    case data:
                        assert self._draft is not None
                        self._draft.write(data)
            if done:
                self._destination.store(drafts, self._state, done)
            return outcomes
        except BaseException:
            for draft in drafts:
                draft.discard()
            raise

    def _decide(
        self, drafts: list[Spool], octets: int, done: list[tuple[str, LogEntry]], outcomes: list[WriteOutcome]
    ) -> None:
        """What becomes of the last of ``drafts``."""
        uid, announced, draft = self._begun.uid, self._begun.octets, drafts[-1]
        digest, before = draft.digest(), self._before(uid)
        if before is not None and before.digest == digest:
            drafts.pop().discard()
            kind = self._kind_of(octets) if before.kind in (Kind.FETCHED, Kind.ODD) else before.kind
            done.append((uid, replace(before, kind=kind, octets=announced, gone=0, away=False)))
            outcomes.append(WriteOutcome(uid, kind, octets, as_before=True))
            return
        if before is not None and before.kind is Kind.ODD and before.octets == announced and not before.away:
            drafts.pop().discard()  # some servers change a message each time it is read: one copy of it is enough
            why = f"message {uid} is not as LIST announced, nor as it came before; it stays on the server"
            outcomes.append(WriteOutcome(uid, None, octets, why))
            return
        try:
            verdict = FilterVerdict.KEEP if self._filter is None else self._filter.judge(draft.fileno())
        except FilterFailed as fault:
            drafts.pop().discard()
            outcomes.append(WriteOutcome(uid, None, octets, str(fault)))
            return
        kind = self._kind_of(octets)
        if verdict is not FilterVerdict.KEEP:
            drafts.pop().discard()
            kind = Kind.SKIPPED if verdict is FilterVerdict.SKIP else Kind.UNWANTED
        done.append((uid, LogEntry(kind, int(time.time()), announced, digest)))
        outcomes.append(WriteOutcome(uid, kind, octets, as_before=None if before is None else False))

    def _before(self, uid: str) -> LogEntry | None:
        """What came under a unique-id before, as far as this can be compared with it."""
        entry = self._state.entries.get(uid)
        if entry is None or not entry.digest or (entry.kind is Kind.HEADERS) != (self._kind is Kind.HEADERS):
            return None
        return entry

    def _kind_of(self, octets: int) -> Kind:
        return Kind.ODD if self._kind is Kind.FETCHED and octets != self._begun.octets else self._kind

    def discard(self) -> None:
        """Let go of a message whose end has not come."""
        if self._draft is not None:
            self._draft.discard()
            self._draft = None


class Collector:
    """The loop's side. ``told`` is called with what became of each message, in the loop."""

    def __init__(self, writer: Writer, thread: ThreadPoolExecutor, told: Callable[[WriteOutcome], None]) -> None:
        self._writer, self._thread, self._told = writer, thread, told
        self._pieces: list[Piece] = []
        self._octets = self._ends = 0
        self._since = time.monotonic()  # this batch is collected
        self._writing_seconds = 0.0  # that the batch before took
        self._writing: asyncio.Future[list[WriteOutcome]] | None = None

    def add(self, piece: Piece) -> bool:
        """Take a piece; whether it is time to `hand_over`."""
        self._pieces.append(piece)
        if isinstance(piece, bytes):
            self._octets += len(piece)
        elif isinstance(piece, End):
            self._ends += 1
        if self._octets >= BATCH_OCTETS or self._ends >= BATCH_MESSAGES:
            return True
        idle = self._writing is None or self._writing.done()
        return self._ends > 0 and idle and time.monotonic() - self._since > BATCH_SECONDS

    async def hand_over(self) -> None:
        """Wait for the batch before, and begin with this one. Raises OSError."""
        seconds = time.monotonic() - self._since
        await self._written()
        if self._pieces:
            pieces, self._pieces, self._octets, self._ends = self._pieces, [], 0, 0
            self._writing = asyncio.get_running_loop().run_in_executor(self._thread, self._write, pieces)
            # Where a batch is there in no time, to collect meanwhile gains nothing, and two threads that take the
            # interpreter from each other need a sixth more.
            if seconds < min(_QUICK, self._writing_seconds):
                await self._written()
        self._since = time.monotonic()

    def _write(self, pieces: Sequence[Piece]) -> list[WriteOutcome]:
        """In the thread."""
        began = time.monotonic()
        try:
            return self._writer.write(pieces)
        finally:
            self._writing_seconds = time.monotonic() - began

    async def finish(self) -> None:
        """All that has come to its end is written, and recorded. Raises OSError."""
        await self.hand_over()
        await self._written()

    async def leave(self) -> None:
        """The same behind an error, which is the one to be told; a message without an end is let go."""
        with contextlib.suppress(OSError):
            await self.finish()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._writer.discard)

    async def _written(self) -> None:
        if self._writing is not None:
            # a thread goes on when its waiter is cancelled, and what it has done must be known
            outcomes = await asyncio.shield(self._writing)
            self._writing = None
            for outcome in outcomes:
                self._told(outcome)
