"""A few of the crashes of `python -m tests.crash`, and of its neighbours."""

import os
from typing import TYPE_CHECKING

import pytest

from tests.crash import imports, lmtp, sync
from tests.crash.site import Tally, crashes
from tests.interop.postfix import tool

if TYPE_CHECKING:
    from tests.postgres import Cluster


def test_nothing_is_lost_by_kill_9() -> None:
    tally = Tally()
    for tally in crashes(8, seed=7):
        assert tally.faults == 0, str(tally)
    assert tally.delivered > 50
    assert tally.confirmed > 10
    assert tally.worst_login < 10


def test_no_kill_9_of_sync_loses_or_doubles_a_message() -> None:
    tally = sync.Tally()
    for tally in sync.crashes(6, seed=3, repair_every=3):
        assert tally.faults == 0, str(tally)
    assert tally.kills > tally.late
    assert tally.delivered > 50


def test_no_kill_9_of_import_loses_or_doubles_a_message() -> None:
    for tally in imports.crashes(2, seed=5):
        assert tally.faults == 0, str(tally)
        assert tally.kills > tally.late
        assert tally.imported > 4 * imports.MESSAGES_A_KILL


def test_nor_one_of_import_into_postgresql(cluster: "Cluster") -> None:
    *_, tally = imports.crashes(1, seed=6, cluster=cluster)
    assert tally.faults == 0, str(tally)
    assert tally.imported > 4 * imports.MESSAGES_A_KILL


@pytest.mark.skipif(tool("postfix") is None, reason="missing: apt-get install postfix")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to start Postfix")
def test_no_kill_9_loses_mail_that_postfix_hands_over() -> None:
    *_, tally = lmtp.crashes(2, seed=8)
    assert tally.faults == 0, str(tally)
    assert tally.accepted > 50
