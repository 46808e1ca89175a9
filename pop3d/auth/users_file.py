"""Users in a passwd-file, whose lines `pop3d.auth.passwd_file` reads: checking logins by it, and editing it."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pop3d.auth import Account, AuthError, AuthUnavailable, check_user_name
from pop3d.auth.name_index import NameIndex
from pop3d.auth.names import AS_IS, UserNames
from pop3d.auth.passwd_file import Line, entry_of, lines_in, lines_of, user_of
from pop3d.auth.passwords import hashed
from pop3d.auth.schemes import ARGON2ID
from pop3d.auth.stored import SecretTally, StoredPasswords
from pop3d.auth.stored_user import StoredUser
from pop3d.auth.user_limits import UserLimits
from pop3d.auth.users_lookup import (
    FILE_OCTETS_MAX,
    clash_of,
    decoded_lines,
    nothing_readable,
    serves_login,
    too_large,
    unreadable,
    without_users,
)
from pop3d.auth.users_summary import UsersSummary, bounded, summarized
from pop3d.system.atomic_edit import edit

__all__ = [
    "Line",
    "UnknownUser",
    "UserExists",
    "UsersFile",
    "add_user",
    "lines_named",
    "read_lines",
    "remove_user",
    "set_password",
]

log = logging.getLogger("pop3d.users")


class UserExists(Exception):
    """The users file has that name already."""


class UnknownUser(LookupError):
    """The users file has no such name."""


def read_lines(path: Path) -> list[Line]:
    """The lines of a file, faulty ones too. Raises `AuthError` for a file that cannot be read. Blocking."""
    return list(lines_of(_read(path)))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return _text(file, path)
    except OSError as fault:
        raise unreadable(path, fault) from None


def _text(file: BinaryIO, path: Path) -> str:
    """What is not UTF-8 is kept as surrogates, so that it can be written again octet for octet."""
    octets = file.read(FILE_OCTETS_MAX + 1)
    if len(octets) > FILE_OCTETS_MAX:
        raise too_large(path)
    return octets.decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class _Users:
    """What a file has. ``entries``: of lines, by what their users are called.

    Text, which a login reads anew in some microseconds: a hundred thousand objects would take ten times the memory, and
    each sweep of the garbage collector would stop all sessions for as long as it looks at them.
    """

    entries: dict[str, str]
    index: NameIndex
    secrets: SecretTally
    limits: set[UserLimits]
    summary: UsersSummary

    def clear(self) -> None:
        """Forget all, likewise one by one."""
        while self.entries:
            self.entries.popitem()
        self.index.clear()


class UsersFile(StoredPasswords):
    """The users of a file. A faulty line costs its own user; for the rest see `StoredPasswords`.

    Raises `AuthError` for a file that cannot be read, or that has lines and none of them can. One without lines has no
    users yet, if it ``may_be_empty``; but where there were some, it keeps them (`reload`), and mail to anybody waits
    (`account`).
    """

    def __init__(
        self,
        path: Path,
        salts: bytes | None = None,
        *,
        latin1_passwords: bool = False,
        names: UserNames | None = None,
        may_be_empty: bool = True,
    ) -> None:
        super().__init__(salts, latin1_passwords=latin1_passwords, names=names)
        self._path = path
        self._users = self._usable(may_be_empty=may_be_empty)
        self._learn(self._users.secrets)

    async def find(self, name: str) -> StoredUser | None:
        """See `StoredPasswords.find`."""
        called = self._users.index.find(name)
        return None if called is None else user_of(self._users.entries[called])

    def limits_of_users(self) -> Collection[UserLimits]:
        """See `pop3d.auth.KnowsLimits`."""
        return self._users.limits

    async def account(self, name: str) -> Account | None:
        """See `StoredPasswords.account`. Raises `AuthUnavailable` for a name that more than one user has, and where
        there is no user at all: such a file is being made, or was lost.
        """
        if not self._users.entries:
            raise AuthUnavailable(without_users(self._path))
        if (clash := self._users.index.clashes.get(name)) is not None:
            raise AuthUnavailable(f"{self._path}: {clash_of(clash, name)}")
        return await super().account(name)

    async def reload(self) -> None:
        """See `pop3d.auth.Authenticator.reload`."""
        users = await asyncio.to_thread(self._usable)
        # exchanged here, where no login is looking somebody up
        before, self._users = self._users, users
        self._learn(users.secrets)
        self.tell_faults()
        await asyncio.to_thread(before.clear)

    async def trouble(self) -> str | None:
        """See `pop3d.auth.TellsTrouble`: users can log in as they were, but a reload finds none."""

        def look() -> str | None:
            try:
                with self._path.open("rb"):
                    return None
            except OSError as fault:
                return str(unreadable(self._path, fault))

        return await asyncio.to_thread(look)

    async def close(self) -> None:
        """See `pop3d.auth.Authenticator.close`."""
        await super().close()
        await asyncio.to_thread(self._users.clear)  # freed at once, many would stop the sessions that go on

    def _usable(self, *, may_be_empty: bool = False) -> _Users:
        """What the file has now. A user who is locked on purpose was read well, or nobody could lock the last one."""
        entries: dict[str, str] = {}
        secrets, limits = SecretTally(), set[UserLimits]()
        first: Line | None = None
        readable = False

        def taken() -> Iterator[Line]:
            nonlocal first, readable
            for line in lines_in(decoded_lines(self._path)):
                first = first or line
                if (user := line.user) is not None:
                    readable = readable or serves_login(line)
                    entries[user.name] = line.entry
                    limits.add(user.extra.limits)
                    if user.secret is not None:
                        secrets.add(user.secret)
                yield line

        summary = summarized(taken())
        if first is None and not may_be_empty:
            raise nothing_readable(self._path, None)
        if first is not None and not readable:
            raise nothing_readable(self._path, first)
        return _Users(entries, NameIndex(entries, self._names), secrets, limits, summary)

    def tell_faults(self) -> None:
        """In the log: who cannot log in, and what of the file has no effect."""
        if not self._users.entries:
            log.warning("%s", without_users(self._path))
        clashes = self._users.index.clashes.items()
        told = (f"{clash_of(users, name)}: none of them can log in" for name, users in clashes)
        for text in (*bounded(told), *self._users.summary.told()):
            log.warning("%s: %s", self._path, text)


# --- editing ---


def add_user(path: Path, name: str, password: str, scheme: str = ARGON2ID, names: UserNames = AS_IS) -> None:
    """Add a user to the file, which is made, with mode 0600, when it is not there. Every other line stays as it is.

    The line has the name as ``names`` makes it; faulty lines stay as well.

    Raises `UserExists`, ValueError for a name or password that cannot be used, `AuthError` and OSError. The file is
    exchanged whole, as `pop3d.system.atomic_edit` says.
    """
    name = names(name)
    check_user_name(name)
    if name.startswith("#"):
        raise ValueError('a user name does not begin with "#", which begins a comment')
    line = f"{name}:{_hashed(password, scheme)}\n"

    def change(found: BinaryIO | None) -> bytes:
        text = "" if found is None else _text(found, path)
        for there in filter(None, map(_name_of, text.split("\n"))):
            if names(there) == name:
                raise UserExists(f"{path} has a user {there!r} already")
        return _octets(text + ("\n" if text and not text.endswith("\n") else "") + line)

    edit(path, change)


def set_password(path: Path, name: str, password: str, scheme: str = ARGON2ID, names: UserNames = AS_IS) -> None:
    """Give a user another password; the fields behind it, and every other line, stay, faulty ones too.

    The user is found as a login would find one, but a name to the letter goes first.

    Raises `UnknownUser`, ValueError for a password that cannot be used, `AuthError` and OSError.
    """
    secret = _hashed(password, scheme)

    def change(found: BinaryIO | None) -> bytes:
        lines = _text(_there(found, path), path).split("\n")
        numbers = lines_named(lines, name, names, path)
        if len(numbers) > 1:
            both = " and ".join(str(number + 1) for number in numbers[:2])
            raise AuthError(f"{path} lines {both}: the user {name!r} stands there twice; remove one")
        line = lines[numbers[0]]
        before, entry = entry_of(line)
        spelling, _, rest = entry.partition(":")
        _, colon, fields = rest.partition(":")
        lines[numbers[0]] = f"{before}{spelling}:{secret}{colon}{fields}{line[len(before) + len(entry) :]}"
        return _octets("\n".join(lines))

    edit(path, change)


def remove_user(path: Path, name: str, names: UserNames = AS_IS) -> str:
    """Remove every line of a user, found as by `set_password`; every other one stays. How the file spelled the name.

    Raises `UnknownUser`, `AuthError` and OSError.
    """
    spelling = name

    def change(found: BinaryIO | None) -> bytes:
        nonlocal spelling
        lines = re.findall(r"[^\n]*\n|[^\n]+", _text(_there(found, path), path))
        of_user = lines_named(lines, name, names, path)
        spelling = _name_of(lines[of_user[0]])
        gone = set(of_user)
        return _octets("".join(line for number, line in enumerate(lines) if number not in gone))

    edit(path, change)
    return spelling


def _there(found: BinaryIO | None, path: Path) -> BinaryIO:
    if found is None:
        raise AuthError(f"users file {path}: {os.strerror(errno.ENOENT)}; make it with `pop3d user add`")
    return found


def _hashed(password: str, scheme: str) -> str:
    if not password:
        raise ValueError("the password is empty")
    return hashed(password, scheme)


def lines_named(lines: Sequence[str], name: str, names: UserNames, path: Path) -> list[int]:
    """Which lines are that user's, counted from 0: those of the name to the letter, else of one that is the same.

    Raises `UnknownUser`, and `AuthError` where users who are spelled differently have that name.
    """
    spellings = {number: spelling for number, line in enumerate(lines) if (spelling := _name_of(line))}
    for same in (str, names, names.key):
        wanted = same(name)
        if found := [number for number, spelling in spellings.items() if same(spelling) == wanted]:
            if len(others := sorted({spellings[number] for number in found})) > 1:
                raise AuthError(f"{path} has {' and '.join(map(repr, others))}; name one of them to the letter")
            return found
    raise UnknownUser(f"{path} has no user {name!r}")


def _name_of(line: str) -> str:
    """Of whom a line is; empty where it is nobody's."""
    name, colon, _ = entry_of(line)[1].partition(":")
    return name if colon else ""


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
