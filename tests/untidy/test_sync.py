"""A short run of `python -m tests.untidy.sync`, and that it finds each repair that is taken back."""

import os

import pytest

from tests.untidy.sync import walk
from tests.untidy.undone import UNDO

WALKS = int(os.environ.get("POP3_EXAMPLES", "60"))

# what a crash of this process leaves open is closed by the collector, which says so
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


def test_nothing_is_lost_in_an_untidy_world() -> None:
    walk(1, examples=WALKS, steps=25)


@pytest.mark.parametrize("name", UNDO)
def test_a_repair_that_is_taken_back_is_missed(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    UNDO[name](monkeypatch)
    with pytest.raises((AssertionError, RuntimeError, ExceptionGroup)):
        for first in range(40):  # seeds: one of the first few is enough
            walk(first, examples=25, steps=20, shrink=False)
