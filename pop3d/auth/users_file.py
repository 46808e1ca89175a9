"""Users in a passwd-file: ``name:{SCHEME}secret[:uid:gid:gecos:home:shell:extra]``, one to a line.

The fields of a Dovecot passwd-file are accepted; of those behind the secret only the home is used. Blanks and any of
``,=%+/`` in a secret stand for themselves, a ``:`` ends it. Comments begin with ``#`` at the start of a line. UTF-8.

Passwords are checked where `pop3d.auth.hashing` says. An unknown user costs a check as well, of the usual kind: against
a secret of the scheme and parameters that most users have. A user whose scheme needs an extra that is not installed
cannot log in, and costs the same.

SCRAM needs a verifier: stored as such, or made from a plain secret. What an unknown user's would be is made up from a
secret of ours, so that the same name has the same salt for ever, and looks like a known one.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pop3core.answers import NoSecret, PlainSecret, ScramSecret
from pop3core.events import Credential, Password, Verified
from pop3core.sasl.base import SecretKind
from pop3d.auth import Account, AuthError, check_user_name
from pop3d.auth.edit import edit
from pop3d.auth.hashing import Hashing, variants
from pop3d.auth.passwords import (
    ARGON2ID,
    CRYPT_EXTRA,
    DUMMY,
    PLAIN,
    SCHEMES,
    SCRAM,
    Secret,
    Verifier,
    cost_of,
    hashed,
    lacks_extra,
    parse_secret,
    verifier_of,
)

__all__ = [
    "Line",
    "UnknownUser",
    "User",
    "UserExists",
    "UsersFile",
    "add_user",
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
class User:
    """A line of the users file. ``fields``: which of those behind the secret are filled in, by their names."""

    name: str
    secret: Secret
    home: str | None
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it was found. ``number``: from 1; ``user``: None when it is faulty, which ``fault`` then explains."""

    number: int
    name: str
    user: User | None
    fault: str = ""


def parse_users(text: str, source: str) -> dict[str, User]:
    """All users by name. ``source``: what a fault calls the file. Raises `AuthError` for the first faulty line."""
    users: dict[str, User] = {}
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


def _parse_line(line: str) -> User:
    name, colon, rest = line.partition(":")
    if not colon:
        raise ValueError("a line is name:{SCHEME}secret")
    check_user_name(name)
    secret, *fields = rest.split(":")
    home = fields[_FIELDS.index("home")] if len(fields) > _FIELDS.index("home") else ""
    filled = tuple(field for field, value in zip(_FIELDS, fields, strict=False) if value)
    return User(name, parse_secret(secret), home or None, filled)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            octets = file.read(_FILE_OCTETS_MAX + 1)
    except OSError as fault:
        raise AuthError(f"users file {path}: {fault.strerror}; make it with `pop3d user add`") from None
    if len(octets) > _FILE_OCTETS_MAX:
        raise AuthError(f"users file {path}: larger than {_FILE_OCTETS_MAX} octets")
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise AuthError(f"users file {path}: not UTF-8 at octet {fault.start}") from None


class UsersFile:
    """See `pop3d.auth.Authenticator` and `pop3d.auth.KeepsSecrets`. Raises `AuthError` when the file is not usable.

    ``salts``: what salts are made from, where there is none; should be the same for ever. None: new ones each time.
    ``latin1_passwords``: a password matches in UTF-8 as well as in Latin-1, whichever was sent and stored.
    """

    def __init__(self, path: Path, salts: bytes | None = None, *, latin1_passwords: bool = False) -> None:
        self._path = path
        self._salts = salts or os.urandom(32)
        self._latin1 = latin1_passwords
        self._users: Mapping[str, User] = {}
        self._dummy = Secret(ARGON2ID, DUMMY)
        self._take(parse_users(_read(path), str(path)))
        self._hashing = Hashing()

    def _take(self, users: Mapping[str, User]) -> None:
        self._users = users
        self._dummy = _usual(user.secret for user in users.values())

    def tell_who_cannot_log_in(self) -> None:
        """One line of the log for each scheme whose extra is not installed."""
        lacking = Counter(user.secret.scheme for user in self._users.values() if lacks_extra(user.secret.scheme))
        for scheme, count in lacking.items():
            log.warning("%s: %d users of {%s} cannot log in before %s", self._path, count, scheme, CRYPT_EXTRA)

    async def authenticate(self, credential: Credential, source: str = "") -> Account | None:
        """See `pop3d.auth.Authenticator.authenticate`. To act as somebody else is refused."""
        if not isinstance(credential, Password | Verified):
            return None
        user = self._users.get(credential.username)
        if isinstance(credential, Password) and not await self._matches(user, credential.secret, source):
            return None
        if user is None or credential.authzid not in ("", user.name):
            return None
        return self.account(user.name)

    async def _matches(self, user: User | None, password: bytes, source: str) -> bool:
        passwords = variants(password, latin1=self._latin1)
        if user is None or lacks_extra(user.secret.scheme):
            await self._hashing.matches(self._dummy, passwords, source)
            return False
        return await self._hashing.matches(user.secret, passwords, source)

    async def secret(self, username: str, kind: SecretKind, server_nonce: str) -> ScramSecret | PlainSecret | NoSecret:
        """See `pop3d.auth.KeepsSecrets.secret`."""
        user = self._users.get(username)
        plain = user.secret.value.encode() if user is not None and user.secret.scheme == PLAIN else None
        salt = hmac.digest(self._salts, username.encode("utf-8", "surrogateescape"), "sha256")[:16]
        # always made, whatever is stored, so that the time does not tell
        made = await self._hashing.in_a_thread(Verifier.made, plain or b"nobody", salt)
        if kind == "APOP":
            return PlainSecret(plain) if plain is not None else NoSecret(salt, made.iterations, server_nonce)
        if user is not None and user.secret.scheme == SCRAM:
            made = verifier_of(user.secret.value)
        elif plain is None:
            return NoSecret(salt, made.iterations, server_nonce)
        return ScramSecret(made.salt, made.iterations, made.stored_key, made.server_key, server_nonce)

    def account(self, name: str) -> Account | None:
        """A user by name, to whom mail is delivered; None when there is no such."""
        user = self._users.get(name)
        return None if user is None else Account(user.name, user.home)

    async def reload(self) -> None:
        """See `pop3d.auth.Authenticator.reload`."""
        self._take(await asyncio.to_thread(lambda: parse_users(_read(self._path), str(self._path))))
        self.tell_who_cannot_log_in()

    async def close(self) -> None:
        """See `pop3d.auth.Authenticator.close`."""
        self._hashing.close()


def _usual(secrets: Iterable[Secret]) -> Secret:
    """One that costs what most of them do; the slower one where there are as many of both."""
    kinds: dict[tuple[str, str], Secret] = {}
    count: Counter[tuple[str, str]] = Counter()
    for secret in secrets:
        if not lacks_extra(secret.scheme):
            count[cost := cost_of(secret)] += 1
            kinds.setdefault(cost, secret)
    if not count:
        return Secret(ARGON2ID, DUMMY)
    return kinds[max(count, key=lambda cost: (count[cost], -SCHEMES.index(cost[0])))]


# --- editing ---


def add_user(path: Path, name: str, password: str, scheme: str = ARGON2ID) -> None:
    """Add a user to the file, which is made, with mode 0600, when it is not there. Every other line stays as it is.

    Raises `UserExists`, ValueError for a name or password that cannot be used, `AuthError` for a file that is faulty
    already, and OSError. The file is exchanged whole, as `pop3d.auth.edit` says.
    """
    check_user_name(name)
    if name.startswith("#"):
        raise ValueError('a user name does not begin with "#", which begins a comment')
    line = f"{name}:{_hashed(password, scheme)}\n"

    def change(found: Path) -> bytes:
        text = _read(found) if found.exists() else ""
        if name in parse_users(text, str(path)):
            raise UserExists(f"{path} has a user {name!r} already")
        return (text + ("\n" if text and not text.endswith("\n") else "") + line).encode()

    edit(path, change)


def set_password(path: Path, name: str, password: str, scheme: str = ARGON2ID) -> None:
    """Give a user another password; the fields behind it, and every other line, stay, faulty ones too.

    Raises `UnknownUser`, ValueError for a password that cannot be used, `AuthError` and OSError.
    """
    secret = _hashed(password, scheme)

    def change(found: Path) -> bytes:
        lines = _read(found).split("\n")
        numbers = [number for number, line in enumerate(lines) if _is_of(line, name)]
        if not numbers:
            raise UnknownUser(f"{path} has no user {name!r}")
        if len(numbers) > 1:
            both = " and ".join(str(number + 1) for number in numbers[:2])
            raise AuthError(f"{path} lines {both}: the user {name!r} stands there twice; remove one")
        line = lines[numbers[0]]
        body = line.removesuffix("\r")
        _, colon, fields = body.partition(":")[2].partition(":")
        lines[numbers[0]] = f"{name}:{secret}{colon}{fields}{line[len(body) :]}"
        return "\n".join(lines).encode()

    edit(path, change)


def remove_user(path: Path, name: str) -> None:
    """Remove every line of a user; every other one stays. Raises `UnknownUser`, `AuthError` and OSError."""

    def change(found: Path) -> bytes:
        lines = re.findall(r"[^\n]*\n|[^\n]+", _read(found))
        left = [line for line in lines if not _is_of(line, name)]
        if len(left) == len(lines):
            raise UnknownUser(f"{path} has no user {name!r}")
        return "".join(left).encode()

    edit(path, change)


def _hashed(password: str, scheme: str) -> str:
    if not password:
        raise ValueError("the password is empty")
    return hashed(password, scheme)


def _is_of(line: str, name: str) -> bool:
    return not line.startswith("#") and line.startswith(f"{name}:")
