"""Users in PostgreSQL: one query for each login, whose row has what a line of the users file has."""

from __future__ import annotations

import logging
import math
import re
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import replace
from typing import Final

from psycopg.rows import dict_row

from pop3d.auth import AuthUnavailable, check_user_name
from pop3d.auth.extra_fields import ExtraFields, read_extra_fields
from pop3d.auth.names import UserNames, spelled
from pop3d.auth.passwords import LockedSecret, Secret, lacks_extra, parse_secret
from pop3d.auth.stored import SecretTally, StoredPasswords
from pop3d.auth.stored_user import StoredUser
from pop3d.auth.user_limits import UserLimits, read_limit_columns
from pop3d.postgres import TIMEOUT, Database, DatabaseFault

__all__ = ["PostgresUsers"]

log = logging.getLogger("pop3d.users")

_CONNECTIONS: Final = 4  # a query takes less than a millisecond
_SEEN_MAX: Final = 100  # users whose secrets tell what is usual
_SPELLINGS_MAX: Final = 10_000  # of other names than the users' own; each has two names of 255 octets at most


class PostgresUsers(StoredPasswords):
    """Users by ``query``, which has one parameter, ``%(user)s``, and gives at most one row.

    Its columns, by name: ``password``, ``{SCHEME}secret``; and if it has them ``home``, ``nologin``, ``allow_nets``,
    those of `pop3d.auth.user_limits.LIMIT_COLUMNS` and ``name``. That is what the user is really called, where the
    query finds other spellings too: mailboxes and locks go by it.
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
        password, home, called = row.get("password"), row.get("home"), str(row.get("name") or name)
        secret, fault = None, ""
        try:
            check_user_name(called)
        except ValueError as why:
            log.error("user %r in PostgreSQL cannot log in: %s", name, why)
            return None
        try:
            if not isinstance(password, str):
                raise ValueError("no column `password`, or it is null or no text")
            secret = parse_secret(password, called)
        except ValueError as why:
            fault = str(why)
            if not isinstance(why, LockedSecret):
                log.error("user %r in PostgreSQL cannot log in: %s", name, why)
        if called != name:
            self._spellings[spelled(name)] = called
            if len(self._spellings) > _SPELLINGS_MAX:
                self._spellings.popitem(last=False)
        limits, faults = read_limit_columns(row)
        extra = replace(_restrictions(row.get("nologin"), row.get("allow_nets")), limits=limits)
        for text in (*extra.faults, *faults):
            log.error("user %r in PostgreSQL: %s", name, text)
        return StoredUser(called, secret, str(home) if home else None, extra=extra, fault=fault)

    def limits_of_users(self) -> Collection[UserLimits]:
        """See `pop3d.auth.KnowsLimits`. Nobody has read all users: none goes beyond what is configured for all."""
        columns = set(re.findall(r"[a-z_]+|\*", self._query.lower()))
        return {
            UserLimits(
                login_delay=0 if columns & {"login_delay", "*"} else None,
                expire=math.inf if columns & {"expire_days", "*"} else None,
            )
        }

    def account_name(self, username: str) -> str:
        """See `pop3d.auth.KnowsSpellings`: as the database said when that name was last looked for."""
        name = spelled(username)
        return spelled(self._spellings.get(name, name))

    def _logged_in(self, user: StoredUser) -> None:
        # Only of who has logged in: what can be learned by asking for a name could be seen in the answers for others.
        secret = user.secret
        if secret is not None and not lacks_extra(secret.scheme) and self._seen.get(user.name) != secret:
            self._seen[user.name] = secret
            if len(self._seen) > _SEEN_MAX:
                self._seen.popitem(last=False)
            self._learn(SecretTally(self._seen.values()))

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


def _restrictions(nologin: object, allow_nets: object) -> ExtraFields:
    """What the columns of these names say, as the extra fields of a users file would.

    ``nologin``: false, zero, empty and null permit the login. ``allow_nets``: text as in a users file, or one or many
    of the types inet and cidr; null is everywhere.
    """
    fields = []
    if nologin:
        fields.append("nologin")
    if allow_nets is not None:
        many = allow_nets if isinstance(allow_nets, list | tuple) else [allow_nets]
        fields.append("allow_nets=" + ",".join(",".join(str(one).split()) for one in many))
    return read_extra_fields(" ".join(fields), "") if fields else ExtraFields()
