"""Locks of mailboxes in PostgreSQL: advisory locks, which hold for all nodes, and end with their holder's session.

A node keeps one connection for all its locks. Who has lost the connection has lost the locks, and removes nothing. A
removal that was begun before that may still be running, on another connection: it has a lock of its own, and while that
is held nobody takes the mailbox's.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections import Counter
from typing import Final

from pop3d.postgres import Database, DatabaseConnection, DatabaseFault, silent
from pop3d.stores import MaildropBusy

__all__ = ["Locks", "key", "removal_key"]

log = logging.getLogger("pop3d.postgres")

_LOCK_PATIENCE: Final = 0.04  # seconds that a dying holder gets before the mailbox counts as in use

_TAKE: Final = (
    # CASE: the second lock is tried only with the first one taken. It is free again at the end of the statement
    "select case when not pg_try_advisory_lock(%s::bigint) then 'held'"
    " when pg_try_advisory_xact_lock(%s::bigint) then 'taken' else 'removing' end"
)


def key(mailbox: str) -> int:
    """The number of the mailbox's lock, for PostgreSQL; also of others, once in 2**64."""
    digest = hashlib.sha256(b"pop3core mailbox\0" + mailbox.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def removal_key(mailbox: str) -> int:
    """The number of the lock that a removal has while it runs."""
    return key(f"{mailbox}\0removal")


class Locks:
    """The locks that this process holds, on a connection of their own.

    When that says nothing, the next lock is taken by a new one. The old one keeps its locks until it is known to be
    lost, for it may only be slow.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._newest: DatabaseConnection | None = None
        self._held: Counter[DatabaseConnection] = Counter()  # how many locks a connection holds
        self._connecting = asyncio.Lock()
        self._asking: set[asyncio.Task[bool]] = set()

    async def take(self, mailbox: str, deadline: float) -> DatabaseConnection:
        """Returns the connection that holds the lock now. Raises `MaildropBusy` and `DatabaseFault`."""
        for pause in (_LOCK_PATIENCE, None):
            connection = await self._connected(deadline)
            with connection.until(deadline) as lease:
                cursor = await lease.raw.execute(_TAKE, (key(mailbox), removal_key(mailbox)))
                row = await cursor.fetchone()
            assert row is not None
            if row[0] != "held":
                self._held[connection] += 1
                if row[0] == "taken":
                    return connection
                await self.free(connection, mailbox, deadline)
            if pause is not None:
                await asyncio.sleep(pause)
        raise MaildropBusy

    async def _connected(self, deadline: float) -> DatabaseConnection:
        try:
            async with asyncio.timeout_at(deadline):
                await self._connecting.acquire()
        except TimeoutError:
            raise DatabaseFault(silent(self._database.timeout)) from None
        try:
            if self._newest is not None:
                if await self._is_there(self._newest):
                    return self._newest
                log.warning("the connection that holds the locks of mailboxes does not answer; a new one is made")
                self._newest = None
            self._newest = await self._database.connect(deadline)
            return self._newest
        finally:
            self._connecting.release()

    async def _is_there(self, connection: DatabaseConnection) -> bool:
        """Whether it answers soon. One with locks is given up only when it is closed, or stays silent."""
        asking = asyncio.create_task(connection.answers(self._database.deadline()))
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        answered, _ = await asyncio.wait({asking}, timeout=self._database.soon() - asyncio.get_running_loop().time())
        if answered and asking.result():
            return True
        if answered or not self._held[connection]:
            connection.give_up()
        return False

    async def free(self, connection: DatabaseConnection, mailbox: str, deadline: float) -> None:
        """Let the next session in; of a lost connection, the database has done it, or does it soon."""
        try:
            with contextlib.suppress(DatabaseFault), connection.until(deadline) as lease:
                await lease.raw.execute("select pg_advisory_unlock(%s::bigint)", (key(mailbox),))
        finally:
            self._held[connection] -= 1
            if not self._held[connection]:
                del self._held[connection]
                if connection is not self._newest:
                    connection.close()
