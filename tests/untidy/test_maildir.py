"""A short run of `python -m tests.untidy maildir`, and that it finds each mistake that is planted in the store."""

import logging
import os
from collections.abc import Iterator

import pytest

from tests.untidy.__main__ import hunt
from tests.untidy.maildir import Maildir
from tests.untidy.planted import MISTAKES, Mistake

RUNS = int(os.environ.get("POP3_EXAMPLES", "40"))
SEEDS = 60  # tried for a planted mistake, each with 25 runs: most are found by the first ones

# what a killed process leaves open is closed by the collector, which says so
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_nothing_is_lost_in_an_untidy_maildir() -> None:
    hunt(Maildir, 1, RUNS, steps=25)


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_a_planted_mistake_is_found(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    mistake.plant(monkeypatch)
    machine = type("Planted", (Maildir,), {"kinds": mistake.kinds, "options": mistake.options})
    with pytest.raises(mistake.kinds):
        for seed in range(1, SEEDS):
            hunt(machine, seed, 25, shrink=False)
