"""PostgreSQL, for users and for mail: a few connections, bounded waits, faults as one clear line.

Needs psycopg 3 (the extra `postgres`), so nothing imports this module but what the configuration asks for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final, TypeAlias

import psycopg
from psycopg.rows import TupleRow

__all__ = ["Connection", "Database", "DatabaseFault", "alive", "one_line"]

Connection: TypeAlias = psycopg.AsyncConnection[TupleRow]

_CONNECT: Final = 10  # seconds to connect
_FREE: Final = 3  # seconds to wait for a connection that is free
_STATEMENT: Final = 60  # seconds a statement may take
_DEAD: Final = (("idle", 10), ("interval", 5), ("count", 3))
"""Seconds: when a machine has gone without a word, the database notices after 25, and its locks are free."""

_SETTINGS: Final = "; ".join(
    [f"set statement_timeout = '{_STATEMENT}s'", *(f"set tcp_keepalives_{name} = {value}" for name, value in _DEAD)]
).encode()


class DatabaseFault(Exception):
    """The database did not do what it was asked; one line, without secrets."""


def one_line(fault: psycopg.Error) -> str:
    """What the database, or the way to it, complains about."""
    text = " ".join(str(fault).split())
    return text[:300] or type(fault).__name__


class Database:
    """At most ``connections`` to the database of ``conninfo`` (a string of libpq); they are made when needed.

    (psycopg's own pool tries again in the background, less and less often: it does not say why there is none, and finds
    out late that there could be.)
    """

    def __init__(self, conninfo: str, connections: int) -> None:
        self._conninfo, self._connections = conninfo, connections
        self._places = asyncio.Semaphore(connections)
        self._idle: list[Connection] = []

    def __repr__(self) -> str:
        return f"<Database, up to {self._connections} connections>"  # conninfo may have a password

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection in autocommit mode, for a moment. Raises `DatabaseFault`, also for what goes wrong inside."""
        try:
            async with asyncio.timeout(_FREE):
                await self._places.acquire()
        except TimeoutError:
            raise DatabaseFault(f"all {self._connections} connections were busy for {_FREE} seconds") from None
        try:
            connection = await self._usable()
            try:
                yield connection
            finally:
                await self._give_back(connection)
        except psycopg.Error as fault:
            raise DatabaseFault(one_line(fault)) from None
        finally:
            self._places.release()

    async def rows(self, query: str, parameters: Any = None) -> list[TupleRow]:
        """All that a query gives, in binary form. Raises `DatabaseFault`."""
        async with self.connection() as connection:
            cursor = connection.cursor(binary=True)
            await cursor.execute(query.encode(), parameters)
            return await cursor.fetchall()

    async def connect(self) -> Connection:
        """A connection of one's own, in autocommit mode, that dies soon with this machine. Raises `DatabaseFault`."""
        try:
            connection = await psycopg.AsyncConnection.connect(
                self._conninfo, autocommit=True, connect_timeout=_CONNECT, application_name="pop3d"
            )
            await connection.execute(_SETTINGS)
        except psycopg.Error as fault:
            raise DatabaseFault(one_line(fault)) from None
        return connection

    async def _usable(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if await alive(connection):  # a restart of the database is nobody's failed login
                return connection
            await connection.close()
        return await self.connect()

    async def _give_back(self, connection: Connection) -> None:
        if connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            self._idle.append(connection)
        else:
            await connection.close()  # lost, or left in the middle of something

    async def close(self) -> None:
        """End all connections that nobody uses."""
        while self._idle:
            await self._idle.pop().close()


async def alive(connection: Connection) -> bool:
    """Whether the connection is still there."""
    with contextlib.suppress(psycopg.Error):
        await connection.execute(b"select 1")
        return True
    return False
