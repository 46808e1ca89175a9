"""A short run of `python -m tests.untidy.sync`, and that it finds each repair that is taken back."""

import os

import pytest

from tests.untidy.sync import walk
from tests.untidy.undone import UNDO

SEEDS = {"mbox-room": 1, "reused-ids": 1, "refused-deletions": 0, "quit-in-doubt": 3, "lost-state": 6}
"""Where the search begins: each is found within the first walks. Further seeds follow, if the rules have changed."""

WALKS = int(os.environ.get("POP3_EXAMPLES", "60"))

# what a crash of this process leaves open is closed by the collector, which says so
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


def test_nothing_is_lost_in_an_untidy_world() -> None:
    walk(1, examples=WALKS, steps=25)


@pytest.mark.parametrize("name", UNDO)
def test_a_repair_that_is_taken_back_is_missed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    UNDO[name](monkeypatch)
    with pytest.raises((AssertionError, RuntimeError, ExceptionGroup)):
        for first in range(SEEDS[name], SEEDS[name] + 40):
            walk(first, examples=25, steps=20, shrink=False)
