"""Users in PostgreSQL: one query for each login, whose row has what a line of the users file has."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Final

from psycopg.rows import dict_row

from pop3d.auth import AuthUnavailable, check_user_name
from pop3d.auth.names import UserNames, spelled
from pop3d.auth.passwords import Secret, lacks_extra, parse_secret
from pop3d.auth.stored import StoredPasswords, StoredUser
from pop3d.postgres import TIMEOUT, Database, DatabaseFault

__all__ = ["PostgresUsers"]

log = logging.getLogger("pop3d.users")

_CONNECTIONS: Final = 4  # a query takes less than a millisecond
_SEEN_MAX: Final = 100  # users whose secrets tell what is usual
_SPELLINGS_MAX: Final = 10_000  # of other names than the users' own; each has two names of 255 octets at most


class PostgresUsers(StoredPasswords):
    """Users by ``query``, which has one parameter, ``%(user)s``, and gives at most one row.

    Its columns, by name: ``password``, ``{SCHEME}secret``; ``home`` and ``name`` if it has them. ``name`` is what the
    user is really called, where the query finds other spellings too: mailboxes and locks go by it.
    ``timeout``: seconds that a login may wait for the database. For the rest see `StoredPasswords`.
    """

    def __init__(
        self,
        conninfo: str,
        query: str,
        salts: bytes | None = None,
        *,
        latin1_passwords: bool = False,
        timeout: float = TIMEOUT,
        names: UserNames | None = None,
    ) -> None:
        super().__init__(salts, latin1_passwords=latin1_passwords, names=names)
        self.database = Database(conninfo, _CONNECTIONS, timeout)
        self._query = query
        self._seen: OrderedDict[str, Secret] = OrderedDict()
        self._spellings: OrderedDict[str, str] = OrderedDict()

    async def find(self, name: str) -> StoredUser | None:
        """See `StoredPasswords.find`."""
        try:
            check_user_name(name)
            name.encode()
        except ValueError:
            return None
        try:
            rows = await self._rows(name)
        except DatabaseFault as fault:
            raise AuthUnavailable(f"users in PostgreSQL: {fault}") from None
        if not rows:
            return None
        if len(rows) > 1:
            raise AuthUnavailable(
                f"users in PostgreSQL: the query gives {len(rows)} rows for {name!r}; it must give one"
            )
        return self._user(name, rows[0])

    async def _rows(self, name: str) -> list[dict[str, object]]:
        async with self.database.lease() as lease:
            cursor = lease.raw.cursor(row_factory=dict_row)
            await cursor.execute(self._query.encode(), {"user": name})
            return await cursor.fetchmany(2)

    def _user(self, name: str, row: dict[str, object]) -> StoredUser | None:
        password, home, called = row.get("password"), row.get("home"), row.get("name") or name
        try:
            if not isinstance(password, str):
                raise ValueError("no column `password`, or it is null or no text")
            check_user_name(str(called))
            secret = parse_secret(password)
        except ValueError as fault:
            log.error("user %r in PostgreSQL cannot log in: %s", name, fault)
            return None
        if called != name:
            self._spellings[spelled(name)] = str(called)
            if len(self._spellings) > _SPELLINGS_MAX:
                self._spellings.popitem(last=False)
        return StoredUser(str(called), secret, str(home) if home else None)

    def account_name(self, username: str) -> str:
        """See `pop3d.auth.KnowsSpellings`: as the database said when that name was last looked for."""
        name = spelled(username)
        return spelled(self._spellings.get(name, name))

    def _logged_in(self, user: StoredUser) -> None:
        # Only of who has logged in: what can be learned by asking for a name could be seen in the answers for others.
        if not lacks_extra(user.secret.scheme) and self._seen.get(user.name) != user.secret:
            self._seen[user.name] = user.secret
            if len(self._seen) > _SEEN_MAX:
                self._seen.popitem(last=False)
            self._learn(list(self._seen.values()))

    async def trouble(self) -> str | None:
        """What is wrong with database or query, in one line; None when nothing is."""
        try:
            async with self.database.lease() as lease:
                cursor = await lease.raw.execute(self._query.encode(), {"user": "nobody"})
                columns = [column.name for column in cursor.description or ()]
        except DatabaseFault as fault:
            return str(fault)
        return None if "password" in columns else f"the query gives no column `password`, but {', '.join(columns)}"

    async def reload(self) -> None:
        """See `pop3d.auth.Authenticator.reload`. There is nothing to read: each login asks."""

    async def close(self) -> None:
        """See `pop3d.auth.Authenticator.close`."""
        await super().close()
        self.database.close()
