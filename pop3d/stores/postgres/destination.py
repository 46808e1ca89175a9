"""A mailbox in PostgreSQL that messages are brought into by groups (`pop3d.stores.arriving`), each of them once.

A group is one transaction. Its number is recorded before the commit, and the database says afterwards what became of
it, also when the commit's answer, or this process, was lost in between.

Blocking code for a process of its own.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import psycopg

from pop3core.maildrop import is_unique_id
from pop3d.postgres import DURABLE, TIMEOUT, DatabaseFault, bounded, one_line, settings, silent, ways
from pop3d.stores.arriving import ArrivingMessage, Intent
from pop3d.stores.postgres.delivery import OCTETS_A_SECOND, check_quota, whole_text
from pop3d.stores.quota import Quota

__all__ = ["PostgresDestination"]

# `delivered` is now: how long a message has been here decides when it expires, and nothing else asks for it
_INSERT: Final = "insert into pop3_messages (mailbox, uid, content) values (%s, %s, %b)"
_POLLS: Final = 0.1  # seconds between two looks at a transaction whose client is gone
_UIDS_AT_ONCE: Final = 10_000  # read by one statement


@dataclass(frozen=True, slots=True)
class _Row:
    uid: bytes
    content: bytearray


class PostgresDestination:
    """The mailbox of a user in the database that ``conninfo`` names; see `pop3d.stores.arriving.MailDestination`.

    ``timeout``: seconds that the database may be silent. ``name``: of database and mailbox, for people and for what
    is recorded. Raises `DatabaseFault`.
    """

    def __init__(self, conninfo: str, mailbox: str, quota: Quota, timeout: float = TIMEOUT) -> None:
        self._mailbox, self._quota, self._timeout = mailbox, quota, timeout
        self._rows: list[_Row] = []
        self._group = 0  # octets
        self._open = False  # a transaction
        self._ids: set[bytes] = set()
        self._messages = self._octets = 0
        with _faults():
            self._connection = psycopg.connect(
                conninfo, application_name="pop3d import", autocommit=True, **ways(conninfo, timeout)
            )
        about = self._connection.info
        self.name = f"postgres {about.host} {about.port} {about.dbname} {mailbox}"
        try:
            with self._bounded():
                self._connection.execute(settings(timeout).encode())
            self._read()
        except BaseException:
            self._connection.close()
            raise

    def _read(self) -> None:
        """What is in the mailbox."""
        after = 0
        while True:
            with self._bounded():
                rows = self._connection.execute(
                    "select id, uid, octets from pop3_messages where mailbox = %s and id > %s order by id limit %s",
                    (self._mailbox, after, _UIDS_AT_ONCE),
                ).fetchall()
            for after, uid, octets in rows:  # noqa: B007 - the last one's
                self._ids.add(uid.encode("ascii"))
                self._octets += octets
            self._messages += len(rows)
            if len(rows) < _UIDS_AT_ONCE:
                return

    @contextlib.contextmanager
    def _bounded(self, octets: int = 0) -> Iterator[None]:
        """The database has its time for what is inside. Raises `DatabaseFault`."""
        late, seconds = threading.Event(), self._timeout + octets // OCTETS_A_SECOND
        with _faults(seconds, late), bounded(self._connection, seconds, late):
            yield

    def close(self) -> None:
        """Free what it holds; the group under way is gone."""
        self._connection.close()

    def can_keep(self, uid: bytes) -> bool:
        """See `pop3d.stores.arriving.MailDestination.can_keep`: the table has this rule, too."""
        return is_unique_id(uid)

    def has_id(self, uid: bytes) -> bool:
        """See `pop3d.stores.arriving.MailDestination.has_id`."""
        return uid in self._ids

    def stage(self, message: ArrivingMessage, uid: bytes | None) -> int:
        """See `pop3d.stores.arriving.MailDestination.stage`."""
        whole = whole_text(message.content())
        self._quota.check(self._messages, self._octets, len(whole))
        # the same form as the table's own
        row = _Row(uid or uuid.uuid4().hex.encode(), whole)
        self._rows.append(row)
        self._ids.add(row.uid)
        self._messages += 1
        self._octets += len(whole)
        self._group += len(whole)
        return len(whole)

    def prepare(self) -> Intent:
        """See `pop3d.stores.arriving.MailDestination.prepare`. Raises `pop3d.stores.quota.OverQuota` where another has
        taken the room.
        """
        with self._bounded(self._group):
            self._connection.execute(b"begin")
            self._open = True
            self._connection.execute(DURABLE.encode())
            check_quota(self._connection, self._mailbox, self._quota, len(self._rows), self._group)
            self._connection.cursor().executemany(
                _INSERT, ((self._mailbox, row.uid.decode("ascii"), row.content) for row in self._rows)
            )
            found = self._connection.execute("select pg_current_xact_id()::text").fetchone()
            assert found is not None
        return {"transaction": found[0], "uids": [row.uid.decode("ascii") for row in self._rows]}

    def publish(self) -> None:
        """See `pop3d.stores.arriving.MailDestination.publish`."""
        with self._bounded(self._group):
            ended = self._connection.execute(b"commit")
            if ended.statusmessage != "COMMIT":
                raise DatabaseFault("the delivery was rolled back")
        self._open, self._group = False, 0
        self._rows.clear()

    def drop(self) -> None:
        """See `pop3d.stores.arriving.MailDestination.drop`."""
        if self._open:
            with contextlib.suppress(DatabaseFault), self._bounded():
                self._connection.execute(b"rollback")
        self._ids.difference_update(row.uid for row in self._rows)
        self._messages -= len(self._rows)
        self._octets -= self._group
        self._open, self._group = False, 0
        self._rows.clear()

    def settle(self, intent: Intent, *, lately: bool) -> Sequence[bool]:
        """See `pop3d.stores.arriving.MailDestination.settle`."""
        uids = intent["uids"]
        until = time.monotonic() + self._timeout
        while (became := self._became(intent["transaction"])) == "in progress":
            if time.monotonic() > until:
                raise DatabaseFault("a delivery by an import that was killed is still under way")
            time.sleep(_POLLS)
        if became is None:  # it is too long ago, or this is another database, restored from the other
            return [any(uid.encode("ascii") in self._ids for uid in uids)] * len(uids)
        return [became == "committed"] * len(uids)

    def _became(self, transaction: str) -> str | None:
        """What became of a transaction; None where the database does not know."""
        try:
            with self._bounded():
                found = self._connection.execute("select pg_xact_status(%s::xid8)", (transaction,)).fetchone()
        except _Unknown:
            return None
        assert found is not None
        became: str | None = found[0]
        return became

    def tidy(self) -> None:
        """See `pop3d.stores.arriving.MailDestination.tidy`: nothing is left."""


class _Unknown(DatabaseFault):
    """The number of a transaction that this database has not reached."""


@contextlib.contextmanager
def _faults(seconds: float = TIMEOUT, late: threading.Event | None = None) -> Iterator[None]:
    try:
        yield
    except psycopg.errors.InvalidParameterValue as fault:
        raise _Unknown(one_line(fault)) from None
    except psycopg.Error as fault:
        raise DatabaseFault(silent(seconds) if late is not None and late.is_set() else one_line(fault)) from None
