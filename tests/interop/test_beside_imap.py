"""A quarter of a minute of `tests.interop.beside_imap`."""

import tempfile
from pathlib import Path

import pytest

from tests.interop import beside_imap


@pytest.mark.skipif(beside_imap.missing() is not None, reason=str(beside_imap.missing()))
def test_nothing_is_lost_and_no_unique_id_changes() -> None:
    with tempfile.TemporaryDirectory(prefix="beside-imap-") as root:
        outcome = beside_imap.soak(Path(root), seconds=15)
    assert not outcome.wrong, str(outcome)
    assert len(outcome.record.delivered) == 3
    assert outcome.record.counts["POP3 sessions"] > 1
    assert outcome.record.counts["IMAP rounds"] > 1
