"""A client that vanishes without a word frees its mailbox; one that lives is left alone."""

from pathlib import Path

import pytest

from tests.interop.lost_client import KEPT, LOST, Refused, measured


def test_the_lock_of_a_client_that_vanished_is_free_soon(tmp_path: Path) -> None:
    """With small limits; `python -m tests.interop.lost_client` measures the real ones."""
    try:
        # octets that nobody acknowledges are given up 5 seconds behind write_timeout
        outcome = measured(tmp_path, "lost_after = 3\nwrite_timeout = 1\n", pause=0.5, patience=30.0)
    except Refused as fault:
        pytest.skip(str(fault))
    assert outcome.seconds.keys() == LOST.keys(), outcome
    assert outcome.seconds["silent"] > 2  # it was not cut for another reason
    assert outcome.log.count('reason="the client answers no more"') >= 2, outcome.log
    assert outcome.kept.keys() == KEPT.keys()
    assert outcome.kept["idle"].startswith("+OK"), outcome
    assert outcome.kept["slow"] == "whole", outcome
