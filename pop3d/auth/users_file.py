"""Users in a passwd-file: ``name:{SCHEME}secret[:uid:gid:gecos:home:shell:extra]``, one to a line.

The fields of a Dovecot passwd-file are accepted; of those behind the secret the home and the extra fields are used, for
which see `pop3d.auth.extra_fields`. Blanks and any of
``,=%+/`` in a secret stand for themselves, a ``:`` ends it. Comments begin with ``#`` at the start of a line. UTF-8.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pop3d.auth import Account, AuthError, AuthUnavailable, check_user_name
from pop3d.auth.extra_fields import ExtraFields, read_extra_fields
from pop3d.auth.name_index import NameIndex
from pop3d.auth.names import AS_IS, UserNames
from pop3d.auth.passwords import ARGON2ID, CRYPT_EXTRA, hashed, lacks_extra, parse_secret
from pop3d.auth.stored import StoredPasswords, StoredUser
from pop3d.auth.user_limits import UserLimits
from pop3d.system.atomic_edit import edit

__all__ = [
    "Line",
    "StoredUser",
    "UnknownUser",
    "UserExists",
    "UsersFile",
    "add_user",
    "lines_named",
    "lines_of",
    "parse_users",
    "read_lines",
    "remove_user",
    "set_password",
]

log = logging.getLogger("pop3d.users")

_FILE_OCTETS_MAX = 64 * 1024 * 1024  # some hundred thousand users; more belong into a database
_FIELDS = ("uid", "gid", "gecos", "home", "shell", "extra")


class UserExists(Exception):
    """The users file has that name already."""


class UnknownUser(LookupError):
    """The users file has no such name."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it was found. ``number``: from 1; ``user``: None when it is faulty, which ``fault`` then explains."""

    number: int
    name: str
    user: StoredUser | None
    fault: str = ""


def parse_users(text: str, source: str) -> dict[str, StoredUser]:
    """All users by name. ``source``: what a fault calls the file. Raises `AuthError` for the first faulty line."""
    users: dict[str, StoredUser] = {}
    for line in lines_of(text):
        if line.user is None:
            raise AuthError(f"{source} line {line.number}: {line.fault}")
        users[line.name] = line.user
    return users


def lines_of(text: str) -> Iterator[Line]:
    """Every line that is neither empty nor a comment."""
    seen: set[str] = set()
    for number, text_line in enumerate(text.split("\n"), 1):
        body = text_line.removesuffix("\r")
        if not body or body.startswith("#"):
            continue
        name = body.partition(":")[0] if ":" in body else ""  # a line without ":" might be half of a secret
        try:
            user = _parse_line(body)
            if name in seen:
                raise ValueError(f"the user {name!r} stands there twice")
        except ValueError as fault:
            yield Line(number, name, None, str(fault))
        else:
            yield Line(number, name, user)
        seen.add(name)


def read_lines(path: Path) -> list[Line]:
    """The lines of a file, faulty ones too. Raises `AuthError` for a file that cannot be read. Blocking."""
    return list(lines_of(_read(path)))


def _parse_line(line: str) -> StoredUser:
    name, colon, rest = line.partition(":")
    if not colon:
        raise ValueError("a line is name:{SCHEME}secret")
    check_user_name(name)
    secret, *fields = rest.split(":", len(_FIELDS))  # the last one may have a ":" in it
    home = fields[_FIELDS.index("home")] if len(fields) > _FIELDS.index("home") else ""
    filled = tuple(field for field, value in zip(_FIELDS, fields, strict=False) if value)
    extra = read_extra_fields(fields[-1], name) if len(fields) == len(_FIELDS) else ExtraFields()
    return StoredUser(name, parse_secret(secret), home or None, filled, extra)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return _text(file, path)
    except OSError as fault:
        raise AuthError(f"users file {path}: {fault.strerror}; make it with `pop3d user add`") from None


def _text(file: BinaryIO, path: Path) -> str:
    octets = file.read(_FILE_OCTETS_MAX + 1)
    if len(octets) > _FILE_OCTETS_MAX:
        raise AuthError(f"users file {path}: larger than {_FILE_OCTETS_MAX} octets")
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise AuthError(f"users file {path}: not UTF-8 at octet {fault.start}") from None


class UsersFile(StoredPasswords):
    """The users of a file. Raises `AuthError` when it is not usable. For the rest see `StoredPasswords`."""

    def __init__(
        self,
        path: Path,
        salts: bytes | None = None,
        *,
        latin1_passwords: bool = False,
        names: UserNames | None = None,
    ) -> None:
        super().__init__(salts, latin1_passwords=latin1_passwords, names=names)
        self._path = path
        self._users: Mapping[str, StoredUser] = parse_users(_read(path), str(path))
        self._index = NameIndex(self._users.values(), self._names)
        self._limits = _limits_of(self._users)
        self._learn([user.secret for user in self._users.values()])

    async def find(self, name: str) -> StoredUser | None:
        """See `StoredPasswords.find`."""
        return self._index.find(name)

    def limits_of_users(self) -> Collection[UserLimits]:
        """See `pop3d.auth.KnowsLimits`."""
        return self._limits

    async def account(self, name: str) -> Account | None:
        """See `StoredPasswords.account`. Raises `AuthUnavailable` for a name that more than one user has."""
        if name in self._index.clashes:
            raise AuthUnavailable(f"{self._path}: {_clash(self._index.clashes[name], name)}")
        return await super().account(name)

    async def reload(self) -> None:
        """See `pop3d.auth.Authenticator.reload`."""
        users = await asyncio.to_thread(lambda: parse_users(_read(self._path), str(self._path)))
        index = await asyncio.to_thread(NameIndex, users.values(), self._names)
        self._limits = await asyncio.to_thread(_limits_of, users)
        self._users, self._index = users, index
        await asyncio.to_thread(self._learn, [user.secret for user in self._users.values()])
        self.tell_who_cannot_log_in()

    def tell_who_cannot_log_in(self) -> None:
        """A line of the log for users who share a name, and for each scheme whose extra is not installed."""
        for name, users in self._index.clashes.items():
            log.warning("%s: %s: none of them can log in", self._path, _clash(users, name))
        lacking = Counter(user.secret.scheme for user in self._users.values() if lacks_extra(user.secret.scheme))
        for scheme, count in lacking.items():
            log.warning("%s: %d users of {%s} cannot log in before %s", self._path, count, scheme, CRYPT_EXTRA)


def _limits_of(users: Mapping[str, StoredUser]) -> set[UserLimits]:
    return {user.extra.limits for user in users.values()}


def _clash(users: list[StoredUser], name: str) -> str:
    spellings = " and ".join(repr(user.name) for user in users)
    return f"{spellings} are one name, {name!r}, by `auth.usernames` and `default_domain`"


# --- editing ---


def add_user(path: Path, name: str, password: str, scheme: str = ARGON2ID, names: UserNames = AS_IS) -> None:
    """Add a user to the file, which is made, with mode 0600, when it is not there. Every other line stays as it is.

    The line has the name as ``names`` makes it.

    Raises `UserExists`, ValueError for a name or password that cannot be used, `AuthError` for a file that is faulty
    already, and OSError. The file is exchanged whole, as `pop3d.system.atomic_edit` says.
    """
    name = names(name)
    check_user_name(name)
    if name.startswith("#"):
        raise ValueError('a user name does not begin with "#", which begins a comment')
    line = f"{name}:{_hashed(password, scheme)}\n"

    def change(found: BinaryIO | None) -> bytes:
        text = "" if found is None else _text(found, path)
        for there in parse_users(text, str(path)):
            if names(there) == name:
                raise UserExists(f"{path} has a user {there!r} already")
        return (text + ("\n" if text and not text.endswith("\n") else "") + line).encode()

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
        body = line.removesuffix("\r")
        spelling, _, rest = body.partition(":")
        _, colon, fields = rest.partition(":")
        lines[numbers[0]] = f"{spelling}:{secret}{colon}{fields}{line[len(body) :]}"
        return "\n".join(lines).encode()

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
        spelling = lines[of_user[0]].partition(":")[0]
        gone = set(of_user)
        return "".join(line for number, line in enumerate(lines) if number not in gone).encode()

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
    spellings = {
        number: line.partition(":")[0] for number, line in enumerate(lines) if ":" in line and not line.startswith("#")
    }
    for same in (str, names, names.key):
        wanted = same(name)
        if found := [number for number, spelling in spellings.items() if same(spelling) == wanted]:
            if len(others := sorted({spellings[number] for number in found})) > 1:
                raise AuthError(f"{path} has {' and '.join(map(repr, others))}; name one of them to the letter")
            return found
    raise UnknownUser(f"{path} has no user {name!r}")
