"""A short run of `python -m tests.untidy maildir`, and that it finds each mistake that is planted in the store."""

import logging
import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis.errors import FlakyFailure

from tests.untidy.hunting import hunt, narrowed
from tests.untidy.maildir import Maildir
from tests.untidy.planted import MISTAKES, Mistake

RUNS = int(os.environ.get("POP3_EXAMPLES", "40"))
RUNS_UNTIL_FOUND = 2000  # most planted mistakes are found in the first hundred

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="open descriptors are looked for in /proc"),
    # what a killed process leaves open is closed by the collector, which says so
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_nothing_is_lost_in_an_untidy_maildir() -> None:
    hunt(Maildir, number=1, runs=RUNS)


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_a_planted_mistake_is_found(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    mistake.plant(monkeypatch)
    machine = narrowed(Maildir, mistake.kinds, mistake.steps, mistake.options)
    with pytest.raises((*mistake.kinds, FlakyFailure)) as caught:
        hunt(machine, number=1, runs=RUNS_UNTIL_FOUND, shrink=False)
    found = caught.value.exceptions if isinstance(caught.value, FlakyFailure) else (caught.value,)
    assert any(isinstance(fault, mistake.kinds) for fault in found)
