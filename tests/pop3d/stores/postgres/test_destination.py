"""An import into PostgreSQL: each message once, whatever is lost in between."""

import threading
import time
from pathlib import Path

import pytest

psycopg = pytest.importorskip("psycopg", reason="needs the extra postgres")

from pop3d.imports import run  # noqa: E402
from pop3d.imports.journal import ImportJournal  # noqa: E402
from pop3d.imports.run import ImportTally, import_messages  # noqa: E402
from pop3d.postgres import DatabaseFault  # noqa: E402
from pop3d.stores.mbox_source import MboxSource  # noqa: E402
from pop3d.stores.postgres.destination import PostgresDestination  # noqa: E402
from pop3d.stores.quota import OverQuota, Quota  # noqa: E402
from tests.postgres import execute  # noqa: E402


class Killed(BaseException):
    """Nothing happens any more."""


class Site:
    """Imports of one mbox into one mailbox."""

    def __init__(self, root: Path, database: str) -> None:
        self.root, self.database = root, database
        (root / "box").write_bytes(
            b"".join(
                b"From a Fri Jan  2 10:13:5%d 1970 +0000\nX-UIDL: %b\nSubject: %d\n\n.\n\n" % (number, uid, number)
                for number, uid in enumerate((b"a", b"b", b"a", b"no good", b"x" * 71, b"c"))
            )
        )

    def __call__(self, quota: Quota | None = None) -> ImportTally:
        tally, source = ImportTally(), MboxSource(self.root / "box", x_uidl=True)
        mailbox = PostgresDestination(self.database, "alice", quota or Quota(), 5)
        try:
            with ImportJournal(self.root / "keep", mailbox.name, source.identity, "*") as journal:
                import_messages(source, mailbox, journal, tally)
        finally:
            mailbox.close()
        return tally

    def there(self) -> list[tuple[object, ...]]:
        """Subject's number and unique-id (of four octets at most) of each message, in their order."""
        return execute(
            self.database,
            "select substring(content from position('Subject: '::bytea in content) + 9 for 1), left(uid, 4), "
            "length(uid) from pop3_messages where mailbox = 'alice' order by id",
        )

    def numbers(self) -> list[int]:
        return [int(bytes(row[0])) for row in self.there() if isinstance(row[0], bytes)]


@pytest.fixture
def site(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(run, "GROUP_MESSAGES", 2)
    return Site(tmp_path, database)


def test_messages_come_in_order_with_ids(site: Site) -> None:
    tally = site()
    assert (tally.imported, tally.kept, tally.double, tally.invalid) == (6, 3, 1, 2)
    assert site.numbers() == [0, 1, 2, 3, 4, 5]
    assert [row[1] if row[2] == 1 else row[2] for row in site.there()] == ["a", "b", 32, 32, 32, "c"]
    # they count as delivered now: what is old elsewhere does not expire here at once
    (first,) = execute(
        site.database, "select delivered > now() - interval '1 hour', content from pop3_messages limit 1"
    )
    assert first == (True, b"X-UIDL: a\r\nSubject: 0\r\n\r\n.\r\n")
    tally = site()
    assert (tally.imported, tally.before) == (0, 6)


@pytest.mark.parametrize("where", ["prepare", "begin", "publish", "end"])
@pytest.mark.parametrize("deleted", [False, True])
def test_each_message_comes_once_wherever_an_import_is_killed(
    site: Site, monkeypatch: pytest.MonkeyPatch, where: str, deleted: bool
) -> None:
    owner = ImportJournal if where in ("begin", "end") else PostgresDestination
    call, calls = getattr(owner, where), []

    def killed(*arguments: object) -> object:
        calls.append(where)
        if where == "end" and len(calls) == 2:
            raise Killed
        done = call(*arguments)
        if len(calls) == 2:
            raise Killed
        return done

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(owner, where, killed)
        # what a process that is gone cannot do
        patch.setattr(PostgresDestination, "drop", lambda _: None)
        site()
    came = site.numbers()
    assert came == {"prepare": [0, 1], "begin": [0, 1], "publish": [0, 1, 2, 3], "end": [0, 1, 2, 3]}[where]
    if deleted:
        execute(site.database, "delete from pop3_messages")
    tally = site()
    assert site.numbers() == (sorted({*range(6)} - {*came}) if deleted else [*range(6)])
    assert tally.imported + tally.before == 6


def test_a_connection_that_is_lost_at_the_commit(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = PostgresDestination.publish

    def lost(mailbox: PostgresDestination) -> None:
        commit(mailbox)
        raise DatabaseFault("the answer was lost")

    with monkeypatch.context() as patch, pytest.raises(DatabaseFault):
        patch.setattr(PostgresDestination, "publish", lost)
        site()
    assert site.numbers() == [0, 1]
    site()
    assert site.numbers() == [*range(6)]


def test_a_transaction_that_nobody_knows_is_told_by_its_ids(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a restored dump."""
    site()
    mailbox = PostgresDestination(site.database, "alice", Quota(), 5)
    for uid, there in (("a", [True, True]), ("z", [False, False])):
        assert mailbox.settle({"transaction": str(2**50), "uids": [uid, "y"]}, lately=True) == there
    assert mailbox.settle({"transaction": "3", "uids": ["y", "a"]}, lately=True) == [True, True]
    mailbox.close()


def test_a_transaction_under_way_is_waited_for(site: Site) -> None:
    mailbox = PostgresDestination(site.database, "alice", Quota(), 1)
    other = psycopg.connect(site.database)
    row = other.execute("select pg_current_xact_id()::text").fetchone()
    assert row is not None
    with pytest.raises(DatabaseFault, match="still under way"):
        mailbox.settle({"transaction": row[0], "uids": ["y"]}, lately=True)
    timer = threading.Timer(0.3, other.rollback)
    timer.start()
    started = time.monotonic()
    assert mailbox.settle({"transaction": row[0], "uids": ["y"]}, lately=True) == [False]
    assert time.monotonic() - started >= 0.2
    timer.join()
    other.close()
    mailbox.close()


def test_a_full_mailbox_ends_an_import_that_goes_on_later(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OverQuota, match="3 of 3 messages"):
        site(Quota(messages=3))
    assert site.numbers() == [0, 1, 2]
    with pytest.raises(OverQuota, match="the mailbox is full: 84 of 100 octets"):
        site(Quota(octets=100))
    # another one delivers while a group is on its way
    prepare = PostgresDestination.prepare

    def late(mailbox: PostgresDestination) -> object:
        execute(site.database, "insert into pop3_messages (mailbox, content) values ('alice', 'Subject: 9')")
        return prepare(mailbox)

    with monkeypatch.context() as patch, pytest.raises(OverQuota, match="4 of 5 messages"):
        patch.setattr(PostgresDestination, "prepare", late)
        site(Quota(messages=5))
    site()
    assert site.numbers() == [0, 1, 2, 9, 3, 4, 5]


def test_a_message_that_is_too_large_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from pop3d.stores.postgres import delivery

    monkeypatch.setattr(delivery, "MESSAGE_OCTETS_MAX", 10)
    tally = site()
    assert (tally.imported, len(tally.failed)) == (0, 6)
    assert "a message of more than 10 octets is not taken" in tally.failed[0]


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatabaseFault):
        PostgresDestination(f"host={tmp_path} dbname=none", "alice", Quota(), 5)
