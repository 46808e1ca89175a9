"""A few of the crashes of `python -m tests.crash`, and of its neighbours."""

from typing import TYPE_CHECKING

from tests.crash import imports, sync
from tests.crash.site import Tally, crashes

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
