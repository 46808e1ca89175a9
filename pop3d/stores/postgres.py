"""Mail in PostgreSQL: one database, and any number of nodes in front of it.

*Lock.* An advisory lock of the mailbox's name, held by a connection that this process keeps for nothing else: it holds
across nodes, and dies with its holder. Within the process a set of names does the same, for one connection may take a
lock twice. Who has lost that connection has lost the lock, and removes nothing any more.

*Listing.* One query, answered from an index; frozen, since rows are never changed. *Reading.* Small messages come many
at a time, for those that follow are nearly always asked for next; large ones a piece at a time. *Removal.* One
statement: all or nothing, and on the disk before it returns (``synchronous_commit``), so before anybody says +OK.

What is stored should have CRLF at the end of every line, as `deliver` makes it; whatever it has, a client gets CRLF.
The tables are in ``examples/postgres/schema.sql``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from array import array
from collections.abc import AsyncIterator, Collection, Iterable
from typing import Final

import psycopg

from pop3core.answers import Content
from pop3core.framing import CrlfNormalizer
from pop3core.limits import DEFAULT_LIMITS
from pop3core.maildrop import Listing, PackedOctets
from pop3d.auth import Account
from pop3d.postgres import Connection, Database, DatabaseFault, alive, one_line
from pop3d.stores import MaildropBusy, RemovalFailed, StoreError
from pop3d.stores.hops import hop
from pop3d.stores.maildir_delivery import OverQuota, Quota

__all__ = ["MESSAGE_OCTETS_MAX", "PostgresMaildrop", "PostgresStore", "deliver"]

log = logging.getLogger("pop3d.postgres")

MESSAGE_OCTETS_MAX: Final = 256 * 1024 * 1024
"""The largest message that `deliver` takes: PostgreSQL wants it in memory, a few times."""

_CONNECTIONS: Final = 8  # for reading; a query takes less than a millisecond
_PIECE: Final = DEFAULT_LIMITS.content_octets_max
_FETCH: Final = 256 * 1024  # octets of a large message in one query, and of small ones read ahead
_AHEAD_MESSAGES: Final = 128
_ROWS: Final = 1_000  # of a listing at a time: the event loop is held up for two milliseconds
_LOCK_PATIENCE: Final = 0.04  # seconds that a dying holder gets before the mailbox counts as in use
_REMOVAL: Final = 600  # seconds a removal may take

_DURABLE: Final = (
    b"select set_config('synchronous_commit', 'on', true)"
    b" where current_setting('synchronous_commit') in ('off', 'local')"
)


def _key(mailbox: str) -> int:
    """The number of the mailbox's lock; also of others, once in 2**64."""
    digest = hashlib.sha256(b"pop3core mailbox\0" + mailbox.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


class _Locks:
    """The locks that this process holds, on a connection of their own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()

    async def take(self, mailbox: str) -> Connection:
        """Returns the connection that holds the lock now. Raises `MaildropBusy` and `DatabaseFault`."""
        for pause in (_LOCK_PATIENCE, None):
            connection = await self._connected()
            try:
                cursor = await connection.execute("select pg_try_advisory_lock(%s::bigint)", (_key(mailbox),))
                row = await cursor.fetchone()
            except psycopg.Error as fault:
                raise DatabaseFault(one_line(fault)) from None
            if row is not None and row[0]:
                return connection
            if pause is not None:
                await asyncio.sleep(pause)
        raise MaildropBusy

    async def _connected(self) -> Connection:
        async with self._connecting:
            if self._connection is not None:
                if await alive(self._connection):
                    return self._connection
                log.warning("the connection that holds the locks of mailboxes was lost; a new one is made")
                await self._connection.close()
                self._connection = None
            self._connection = await self._database.connect()
            return self._connection

    @staticmethod
    async def free(connection: Connection, mailbox: str) -> None:
        """Let the next session in; of a lost connection, the database has done it."""
        with contextlib.suppress(psycopg.Error):
            await connection.execute("select pg_advisory_unlock(%s::bigint)", (_key(mailbox),))

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()


class PostgresStore:
    """Mailboxes in the database that ``conninfo`` names; see `pop3d.stores.Store`."""

    def __init__(self, conninfo: str) -> None:
        self.database = Database(conninfo, _CONNECTIONS)
        self._locks = _Locks(self.database)
        self._held: set[str] = set()

    async def open(self, account: Account, *, utf8: bool) -> PostgresMaildrop:
        """See `pop3d.stores.Store.open`."""
        mailbox = account.name
        if mailbox in self._held:
            raise MaildropBusy
        self._held.add(mailbox)
        holder: Connection | None = None
        try:
            holder = await self._locks.take(mailbox)
            listing, ids = await self._list(mailbox)
        except BaseException as fault:
            if holder is not None:
                await self._locks.free(holder, mailbox)
            self._held.discard(mailbox)
            if isinstance(fault, DatabaseFault):
                raise StoreError("this mailbox cannot be opened now", detail=str(fault)) from None
            raise
        return PostgresMaildrop(self, mailbox, holder, listing, ids)

    async def _list(self, mailbox: str) -> tuple[Listing, array[int]]:
        sizes, ids, uids = array("Q"), array("q"), list[bytes]()
        async for identity, uid, octets in self._rows(mailbox):
            ids.append(identity)
            sizes.append(octets)
            uids.append(uid.encode("ascii"))
        listing = _listed(sizes, uids) if len(uids) <= _ROWS else await hop(_listed, sizes, uids)
        return listing, ids

    async def _rows(self, mailbox: str) -> AsyncIterator[tuple[int, str, int]]:
        query = "select id, uid, octets from pop3_messages where mailbox = %s order by id"
        async with (
            self.database.connection() as connection,
            connection.transaction(),
            connection.cursor("pop3_listing", binary=True) as cursor,
        ):
            cursor.itersize = _ROWS
            await cursor.execute(query, (mailbox,))
            async for row in cursor:
                yield row

    async def remove(self, mailbox: str, holder: Connection, ids: Collection[int]) -> None:
        """Remove messages of a mailbox whose lock ``holder`` has; all or none. Raises `DatabaseFault`."""
        if not await alive(holder):
            raise DatabaseFault("the connection that held the mailbox's lock was lost")
        async with self.database.connection() as connection, connection.transaction():
            await connection.execute(_DURABLE)
            await connection.execute(f"set local statement_timeout = '{_REMOVAL}s'".encode())
            query = "delete from pop3_messages where mailbox = %s and id = any(%s::bigint[])"
            await connection.execute(query, (mailbox, list(ids)))

    async def release(self, mailbox: str, holder: Connection) -> None:
        """Free a mailbox's lock."""
        await self._locks.free(holder, mailbox)
        self._held.discard(mailbox)

    async def trouble(self) -> str | None:
        """What is wrong with the database or its tables, in one line; None when nothing is."""
        try:
            await self.database.rows("select id, uid, octets, content from pop3_messages limit 0")
            may = await self.database.rows("select has_table_privilege('pop3_messages', 'delete')")
        except DatabaseFault as fault:
            return str(fault)
        return None if may[0][0] else "this role may not delete from pop3_messages"

    async def close(self) -> None:
        """See `pop3d.stores.Closes`."""
        await self._locks.close()
        await self.database.close()


def _listed(sizes: array[int], uids: list[bytes]) -> Listing:
    """A listing, of many in a thread: of a million it takes 0.2 s, with what it takes to free ``uids``."""
    listing = Listing(sizes, PackedOctets(uids))
    uids.clear()
    return listing


class _Cursor:
    """A message being read: ``waiting`` is content fetched and not given, ``position`` how far it was fetched."""

    def __init__(self, number: int, *, whole: bytes | None = None) -> None:
        self.number = number
        self.offset = 0
        self.position = 0
        self.waiting = whole or b""
        self.ended = whole is not None
        self._text = CrlfNormalizer()

    def take(self, data: bytes, *, last: bool) -> None:
        self.position += len(data)
        self.waiting += self._text.feed(data)
        if last:
            self.waiting += self._text.finish()
            self.ended = True

    def give(self) -> Content:
        piece, self.waiting = self.waiting[:_PIECE], self.waiting[_PIECE:]
        self.offset += len(piece)
        return Content(piece, last=self.ended and not self.waiting)


class PostgresMaildrop:
    """One session's view of a mailbox; see `pop3d.stores.Maildrop`."""

    def __init__(
        self, store: PostgresStore, mailbox: str, holder: Connection, listing: Listing, ids: array[int]
    ) -> None:
        self._store, self._mailbox, self._holder = store, mailbox, holder
        self.messages = listing
        self._ids = ids
        self._ahead: dict[int, bytes] = {}  # whole messages that were read before they were asked for
        self._next = 1  # whoever asks for this one reads the mailbox in order
        self._cursor: _Cursor | None = None
        self._open = True

    def read_now(self, number: int, offset: int) -> Content | None:
        """See `pop3d.stores.ReadsNow`."""
        if offset == 0 and not self._is_at(number, 0):
            whole = self._ahead.pop(number, None)
            if whole is None:
                return None
            self._next = number + 1
            self._cursor = _Cursor(number, whole=whole)
        cursor = self._cursor
        assert cursor is not None and self._is_at(number, offset), "read out of order"
        return cursor.give() if cursor.waiting or cursor.ended else None

    async def read(self, number: int, offset: int) -> Content:
        """See `pop3d.stores.Maildrop.read`."""
        if (content := self.read_now(number, offset)) is not None:
            return content
        try:
            if offset == 0 and not self._is_at(number, 0):
                await self._load(number)
            else:
                await self._fetch()
        except DatabaseFault as fault:
            raise StoreError("this message cannot be read now", detail=str(fault)) from None
        content = self.read_now(number, offset)
        assert content is not None
        return content

    def _is_at(self, number: int, offset: int) -> bool:
        return self._cursor is not None and (self._cursor.number, self._cursor.offset) == (number, offset)

    async def _load(self, number: int) -> None:
        """Fetch a message that is small, and those behind it; the beginning of one that is large."""
        self._ahead.clear()
        if self.messages.sizes[number - 1] > _PIECE:
            self._cursor = _Cursor(number)
            await self._fetch()
            return
        wanted = {self._ids[one - 1]: one for one in self._together(number)}
        rows = await self._store.database.rows(
            "select id, content from pop3_messages where mailbox = %s and id = any(%s::bigint[])",
            (self._mailbox, list(wanted)),
        )
        for identity, content in rows:
            text = CrlfNormalizer()
            self._ahead[wanted[identity]] = text.feed(content) + text.finish()
        if number not in self._ahead:
            raise self._gone(number)

    def _together(self, number: int) -> Iterable[int]:
        octets, last = 0, min(len(self._ids), number + _AHEAD_MESSAGES - 1)
        if number != self._next:
            last = number
        for one in range(number, last + 1):
            octets += self.messages.sizes[one - 1]
            if one > number and (octets > _FETCH or self.messages.sizes[one - 1] > _PIECE):
                return
            yield one

    async def _fetch(self) -> None:
        """The next octets of the message under way."""
        cursor = self._cursor
        assert cursor is not None
        while not cursor.waiting and not cursor.ended:
            identity = self._ids[cursor.number - 1]
            rows = await self._store.database.rows(
                "select substring(content from %s::int for %s::int), octets from pop3_messages where id = %s",
                (cursor.position + 1, _FETCH, identity),
            )
            if not rows:
                self._cursor = None
                raise self._gone(cursor.number)
            data, octets = rows[0]
            cursor.take(data, last=cursor.position + len(data) >= octets)
            self._next = cursor.number + 1

    def _gone(self, number: int) -> StoreError:
        detail = f"{self._mailbox}: message with id {self._ids[number - 1]} was removed meanwhile"
        return StoreError("this message is not there any more", code=None, detail=detail)

    def release(self, number: int) -> None:
        """See `pop3d.stores.Releases`."""
        if self._cursor is not None and self._cursor.number == number:
            self._cursor = None

    async def remove(self, numbers: Collection[int]) -> None:
        """See `pop3d.stores.Maildrop.remove`. All or none: after a fault nobody can say, so all may be there."""
        if not numbers:
            return
        try:
            ids = [self._ids[number - 1] for number in numbers]
            await self._store.remove(self._mailbox, self._holder, ids)
        except DatabaseFault as fault:
            raise RemovalFailed(numbers, f"{self._mailbox}: {fault}") from None

    async def close(self) -> None:
        """See `pop3d.stores.Maildrop.close`."""
        if self._open:
            self._open = False
            self._ahead.clear()
            self._cursor = None
            await self._store.release(self._mailbox, self._holder)


def deliver(conninfo: str, mailbox: str, content: Iterable[bytes], quota: Quota | None = None) -> None:
    """Deliver a message, in pieces of any size; it is there whole and durable, or not at all. Blocking.

    Raises `OverQuota`, `DatabaseFault`, and ValueError for a message of more than `MESSAGE_OCTETS_MAX`.
    """
    quota = quota or Quota()
    text, whole = CrlfNormalizer(), bytearray()
    for piece in content:
        whole += text.feed(piece)
        if len(whole) > MESSAGE_OCTETS_MAX:
            raise ValueError(f"a message of more than {MESSAGE_OCTETS_MAX} octets is not taken")
    whole += text.finish()
    try:
        with psycopg.connect(conninfo, connect_timeout=10, application_name="pop3d deliver") as connection:
            connection.execute(_DURABLE)
            if quota.octets or quota.messages:
                # others that deliver here wait: two must not find the same room
                connection.execute("select pg_advisory_xact_lock(%s::bigint)", (_key(f"{mailbox}\0quota"),))
                row = connection.execute(
                    "select count(*), coalesce(sum(octets), 0)::bigint from pop3_messages where mailbox = %s",
                    (mailbox,),
                ).fetchone()
                assert row is not None
                _check(quota, row[0], row[1], len(whole))
            connection.execute("insert into pop3_messages (mailbox, content) values (%s, %b)", (mailbox, whole))
    except psycopg.Error as fault:
        raise DatabaseFault(one_line(fault)) from None


def _check(quota: Quota, messages: int, octets: int, more: int) -> None:
    if quota.messages and messages >= quota.messages:
        raise OverQuota(f"the mailbox is full: {messages} of {quota.messages} messages")
    if quota.octets and octets + more > quota.octets:
        raise OverQuota(f"the mailbox is full: {octets} of {quota.octets} octets, and this message has {more}")
