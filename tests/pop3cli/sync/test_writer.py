"""When batches are written: beside the network while that is slow, else in turns with it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from pop3cli.sync.state import Kind
from pop3cli.sync.writer import Begin, Collector, End, Piece, WriteOutcome, Writer


class Disk:
    """A writer that takes until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.batches: list[list[Piece]] = []

    def write(self, pieces: Sequence[Piece]) -> list[WriteOutcome]:
        assert self.go.wait(30)
        self.batches.append(list(pieces))
        return [WriteOutcome(piece.uid, Kind.FETCHED, 3) for piece in pieces if isinstance(piece, Begin)]


async def test_a_batch_that_came_in_no_time_and_is_slow_to_write_is_waited_for() -> None:
    disk, told = Disk(), list[str]()
    with ThreadPoolExecutor(1) as thread:
        collector = Collector(cast(Writer, disk), thread, lambda outcome: told.append(outcome.uid))

        def add(uid: str) -> None:
            for piece in (Begin(uid, 3), b"abc", End(3)):
                collector.add(piece)

        async with asyncio.timeout(30):
            add("first")
            await collector.hand_over()  # nothing is known of the disk yet
            add("second")
            while collector._writing_seconds == 0:
                await asyncio.sleep(0.05)
                disk.go.set()
            await collector.hand_over()  # it took long to come: what follows is collected meanwhile
            assert told == ["first"]
            disk.go.clear()
            collector._writing_seconds = 3600
            add("third")
            second = asyncio.create_task(collector.hand_over())
            await asyncio.sleep(0.05)
            assert not second.done()
            disk.go.set()
            await second
            assert told == ["first", "second", "third"]
            await collector.finish()
    assert [[piece.uid for piece in batch if isinstance(piece, Begin)] for batch in disk.batches] == [
        ["first"],
        ["second"],
        ["third"],
    ]
