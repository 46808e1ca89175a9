"""What goes at QUIT without a DELE, and what never does."""

import logging
import math
from collections.abc import Collection

import pytest

from pop3core.maildrop import Listing
from pop3d.expiry import Expiry, SteadyClock
from pop3d.stores import StoreError


class Drop:
    """Says what it is told to say."""

    messages = Listing()

    def __init__(self, old: Collection[int] | StoreError = ()) -> None:
        self.old, self.asked = old, list[float]()

    async def older_than(self, when: float) -> Collection[int]:
        self.asked.append(when)
        if isinstance(self.old, StoreError):
            raise self.old
        return self.old


def clock(now: float = 1e9) -> SteadyClock:
    return SteadyClock(lambda: now, lambda: 0.0)


async def test_what_is_older_goes_unless_it_is_marked_already() -> None:
    drop = Drop([3, 1, 2])
    assert await Expiry(30, drop, clock()).due({2}) == [1, 3]  # type: ignore[arg-type]
    assert drop.asked == [1e9 - 30 * 86_400]


async def test_with_no_days_what_was_retrieved_goes() -> None:
    drop = Drop([1])
    expiry = Expiry(0, drop, clock())  # type: ignore[arg-type]
    assert await expiry.due([]) == []
    for number in (5, 2, 5):
        expiry.retrieved(number)
    assert await expiry.due([5]) == [2]
    assert drop.asked == []


async def test_for_ever_and_where_nobody_knows_nothing_goes(caplog: pytest.LogCaptureFixture) -> None:
    assert await Expiry(math.inf, Drop([1]), clock()).due([]) == []  # type: ignore[arg-type]
    with caplog.at_level(logging.ERROR):
        assert await Expiry(1, Drop(StoreError("no", detail="the disk")), clock()).due([]) == []  # type: ignore[arg-type]
    assert "messages did not expire: the disk" in caplog.text


def test_a_clock_that_jumps_ahead_makes_nothing_older(caplog: pytest.LogCaptureFixture) -> None:
    now = {"wall": 1e9, "steady": 50.0}
    steady = SteadyClock(lambda: now["wall"], lambda: now["steady"])
    now["wall"] += 1800
    now["steady"] += 10
    assert steady.now() == 1e9 + 1800  # as NTP may
    now["wall"] += 365 * 86_400
    for _ in range(2):
        assert steady.now() == 1e9 + 10 + 3600
    assert caplog.text.count("the clock has jumped ahead by ") == 1
    now["wall"] = 5e8
    assert steady.now() == 5e8  # back: all is younger
    now["wall"], now["steady"] = 1e9 + 86_400, 50 + 86_400
    assert steady.now() == 1e9 + 86_400
