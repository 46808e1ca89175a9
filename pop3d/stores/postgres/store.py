"""Mail in PostgreSQL: one database, and any number of nodes in front of it.

*Lock.* An advisory lock of the mailbox's name, held by a connection that this process keeps for nothing else (see
`pop3d.stores.postgres.locks`). Within the process a set of names does the same, for one connection may take a lock
twice. Who has lost that connection, or gets no answer by it, has lost the lock, and removes nothing any more.

*Listing.* One query, answered from an index; frozen, since rows are never changed. *Reading.* Small messages come many
at a time, for those that follow are nearly always asked for next; large ones a piece at a time. *Removal.* One
transaction: all or nothing, and on the disk before it returns (``synchronous_commit``), so before anybody says +OK. It
is many statements, so that a database at work is told from a silent one.

What is stored should have CRLF at the end of every line, as deliveries have it; whatever it has, a client gets CRLF.
The tables are in ``examples/postgres/schema.sql``.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from pop3core.answers import Content
from pop3core.framing import CrlfNormalizer
from pop3core.maildrop import Listing, PackedOctets
from pop3d.auth import Account
from pop3d.postgres import DURABLE, TIMEOUT, Database, DatabaseConnection, DatabaseFault
from pop3d.stores import MaildropBusy, RemovalFailed, StoreError
from pop3d.stores.postgres.locks import Locks, removal_key
from pop3d.stores.read_ahead import AHEAD_OCTETS, PIECE, Pieces, behind
from pop3d.stores.threads import hop

__all__ = ["PostgresMaildrop", "PostgresStore"]

_CONNECTIONS: Final = 8  # for reading; a query takes less than a millisecond
_FETCH: Final = AHEAD_OCTETS  # of a large message in one query, as of small ones
_ROWS: Final = 1_000  # of a listing at a time: the event loop is held up for two milliseconds
_FETCH_ROWS: Final = f"fetch {_ROWS} from pop3_listing".encode()
_BATCH_MESSAGES: Final = 1_000  # removed by one statement, which has an end in time like all
_BATCH_OCTETS: Final = 64 * 1024 * 1024  # likewise: some tenths of a second

# the bounds: no plan looks at the whole mailbox for each batch. Not prepared: a plan made for a small table would stay
_REMOVE: Final = (
    "delete from pop3_messages where mailbox = %s and id = any(%s::bigint[]) and id between %s::bigint and %s::bigint"
)
_BEGIN_REMOVAL: Final = f"select pg_try_advisory_xact_lock(%s::bigint), ({DURABLE})"


class PostgresStore:
    """Mailboxes in the database that ``conninfo`` names; see `pop3d.stores.Store`.

    ``timeout``: seconds that the database may be silent.
    """

    def __init__(self, conninfo: str, timeout: float = TIMEOUT) -> None:
        self.database = Database(conninfo, _CONNECTIONS, timeout)
        self._locks = Locks(self.database)
        self._held: set[str] = set()

    async def open(self, account: Account, *, utf8: bool) -> PostgresMaildrop:
        """See `pop3d.stores.Store.open`."""
        mailbox = account.name
        if mailbox in self._held:
            raise MaildropBusy
        self._held.add(mailbox)
        holder: DatabaseConnection | None = None
        deadline = self.database.deadline()
        try:
            holder = await self._locks.take(mailbox, deadline)
            listing, ids = await self._list(mailbox, deadline)
        except BaseException as fault:
            await self.release(mailbox, holder, deadline)
            if isinstance(fault, DatabaseFault):
                raise StoreError("this mailbox cannot be opened now", detail=str(fault)) from None
            raise
        return PostgresMaildrop(self, mailbox, holder, listing, ids)

    async def _list(self, mailbox: str, deadline: float) -> tuple[Listing, array[int]]:
        sizes, ids, uids = array("Q"), array("q"), list[bytes]()
        async with self.database.lease(deadline) as lease:
            await lease.raw.execute(b"begin")
            await lease.raw.execute(
                "declare pop3_listing no scroll cursor for"
                " select id, uid, octets from pop3_messages where mailbox = %s order by id",
                (mailbox,),
            )
            cursor = lease.raw.cursor(binary=True)
            while True:
                await cursor.execute(_FETCH_ROWS, prepare=False)  # a statement would outlive what it fetches from
                lease.progress()
                rows = await cursor.fetchall()
                for identity, uid, octets in rows:
                    ids.append(identity)
                    sizes.append(octets)
                    uids.append(uid.encode("ascii"))
                if len(rows) < _ROWS:
                    break
            await lease.raw.execute(b"commit")
        listing = _listed(sizes, uids) if len(uids) <= _ROWS else await hop(_listed, sizes, uids)
        return listing, ids

    async def remove(
        self, mailbox: str, holder: DatabaseConnection, batches: Iterable[list[int]], deadline: float
    ) -> None:
        """Remove messages of a mailbox whose lock ``holder`` has; all or none. Raises `DatabaseFault`.

        The database has until ``deadline`` for the first of ``batches`` of ids, and its timeout for each that follows.
        """
        # psycopg's `transaction()` ends without a fault, and without a commit, when the connection was lost inside
        async with self.database.lease(deadline) as lease:
            await lease.raw.execute(b"begin")
            cursor = await lease.raw.execute(_BEGIN_REMOVAL, (removal_key(mailbox),))
            row = await cursor.fetchone()
            if row is None or not row[0]:
                raise DatabaseFault("a removal by a session that has lost its lock is still under way")
            # behind that, for now nobody can take the mailbox's lock before this removal has come to its end
            if not await holder.answers(max(deadline, self.database.soon())):
                raise DatabaseFault("the connection that held the mailbox's lock was lost")
            for ids in batches:
                await lease.raw.execute(_REMOVE, (mailbox, ids, min(ids), max(ids)), prepare=False)
                lease.progress()
            ended = await lease.raw.execute(b"commit")
            if ended.statusmessage != "COMMIT":
                raise DatabaseFault("the removal was rolled back")

    async def release(self, mailbox: str, holder: DatabaseConnection | None, deadline: float | None = None) -> None:
        """Free a mailbox's lock. ``deadline``: of what failed before, for which the client waits already."""
        try:
            if holder is not None:
                until = self.database.deadline() if deadline is None else max(deadline, self.database.soon())
                await self._locks.free(holder, mailbox, until)
        finally:
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
        self.database.close()


def _listed(sizes: array[int], uids: list[bytes]) -> Listing:
    """A listing, of many in a thread: of a million it takes 0.2 s, with what it takes to free ``uids``."""
    listing = Listing(sizes, PackedOctets(uids))
    uids.clear()
    return listing


def _numbers(ids: array[int], wanted: set[int]) -> list[int]:
    return [number for number, identity in enumerate(ids, 1) if identity in wanted]


class PostgresMaildrop:
    """One session's view of a mailbox; see `pop3d.stores.Maildrop`."""

    def __init__(
        self, store: PostgresStore, mailbox: str, holder: DatabaseConnection, listing: Listing, ids: array[int]
    ) -> None:
        self._store, self._mailbox, self._holder = store, mailbox, holder
        self.messages = listing
        self._ids = ids
        self._ahead: dict[int, bytes] = {}  # whole messages that were read before they were asked for
        self._next = 1  # whoever asks for this one reads the mailbox in order
        self._cursor: Pieces | None = None
        self._deadline: float | None = None  # of a removal that failed: QUIT has one in all
        self._open = True

    def read_now(self, number: int, offset: int) -> Content | None:
        """See `pop3d.stores.ReadsNow`."""
        if offset == 0 and not self._is_at(number, 0):
            whole = self._ahead.pop(number, None)
            if whole is None:
                return None
            self._next = number + 1
            self._cursor = self._begun(number)
            self._cursor.waiting, self._cursor.ended = whole, True
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
        return self._cursor is not None and self._cursor.is_at(number, offset)

    def _begun(self, number: int) -> Pieces:
        return Pieces(number, CrlfNormalizer())

    async def _load(self, number: int) -> None:
        """Fetch a message that is small, and those behind it; the beginning of one that is large."""
        self._ahead.clear()
        if self.messages.sizes[number - 1] > PIECE:
            self._cursor = self._begun(number)
            await self._fetch()
            return
        together = [number, *(behind(number, self.messages.sizes) if number == self._next else ())]
        wanted = {self._ids[one - 1]: one for one in together}
        rows = await self._store.database.rows(
            "select id, content from pop3_messages where mailbox = %s and id = any(%s::bigint[])",
            (self._mailbox, list(wanted)),
        )
        for identity, content in rows:
            text = CrlfNormalizer()
            self._ahead[wanted[identity]] = text.feed(content) + text.finish()
        if number not in self._ahead:
            raise self._gone(number)

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
            data, cursor.size = rows[0]
            cursor.take(data)
            self._next = cursor.number + 1

    def _gone(self, number: int) -> StoreError:
        detail = f"{self._mailbox}: message with id {self._ids[number - 1]} was removed meanwhile"
        return StoreError("this message is not there any more", code=None, detail=detail)

    def release(self, number: int) -> None:
        """See `pop3d.stores.Releases`."""
        if self._cursor is not None and self._cursor.number == number:
            self._cursor = None

    async def older_than(self, when: float) -> Collection[int]:
        """See `pop3d.stores.KnowsAges`."""
        try:
            rows = await self._store.database.rows(
                "select id from pop3_messages where mailbox = %s and delivered < to_timestamp(%s)"
                " and delivered < now() and delivered > '2000-01-01' and id <= %s",
                (self._mailbox, when, max(self._ids, default=0)),
            )
        except DatabaseFault as fault:
            raise StoreError("messages cannot be looked at now", detail=str(fault)) from None
        return await hop(_numbers, self._ids, {identity for (identity,) in rows}) if rows else []

    async def remove(self, numbers: Collection[int]) -> None:
        """See `pop3d.stores.Maildrop.remove`. All or none: after a fault nobody can say, so all may be there."""
        if not numbers:
            return
        deadline = self._store.database.deadline()
        try:
            await self._store.remove(self._mailbox, self._holder, self._batches(numbers), deadline)
        except DatabaseFault as fault:
            self._deadline = deadline
            raise RemovalFailed(numbers, f"{self._mailbox}: {fault}") from None

    def _batches(self, numbers: Collection[int]) -> Iterator[list[int]]:
        batch, octets = list[int](), 0
        for number in numbers:
            batch.append(self._ids[number - 1])
            octets += self.messages.sizes[number - 1]
            if len(batch) >= _BATCH_MESSAGES or octets >= _BATCH_OCTETS:
                yield batch
                batch, octets = [], 0
        if batch:
            yield batch

    async def close(self) -> None:
        """See `pop3d.stores.Maildrop.close`."""
        if self._open:
            self._open = False
            self._ahead.clear()
            self._cursor = None
            await self._store.release(self._mailbox, self._holder, self._deadline)
