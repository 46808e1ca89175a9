"""A few runs of `python -m tests.untidy maildir`, and whether the machine finds what it is made to find."""

import sys

import pytest
from hypothesis.errors import FlakyFailure

from tests.untidy.hunting import hunt, narrowed
from tests.untidy.maildir import Maildir
from tests.untidy.planted import MISTAKES, Mistake

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="descriptors are looked for in /proc")

RUNS_UNTIL_FOUND = 2000


def test_nothing_is_lost_in_an_untidy_maildir() -> None:
    hunt(Maildir, number=1, runs=60)


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_the_machine_finds_a_planted_mistake(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    mistake.plant(monkeypatch)
    machine = narrowed(Maildir, mistake.kinds, mistake.steps, mistake.options)
    with pytest.raises((*mistake.kinds, FlakyFailure)) as caught:
        hunt(machine, number=1, runs=RUNS_UNTIL_FOUND, shrink=False)
    found = caught.value.exceptions if isinstance(caught.value, FlakyFailure) else (caught.value,)
    assert any(isinstance(fault, mistake.kinds) for fault in found)
