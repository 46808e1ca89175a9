"""One user of a users file, without reading all lines: for a process that delivers one message.

The file's octets are searched for the name, and only lines that begin with it are parsed. What is found, and what is
wrong with the file, is what `pop3d.auth.users_file.UsersFile` says, which reads them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from pop3d.auth import Account, AuthError, AuthUnavailable
from pop3d.auth.name_index import NameIndex
from pop3d.auth.names import UserNames
from pop3d.auth.passwd_file import Line, entry_of, lines_in
from pop3d.system.access import let_us_read

__all__ = [
    "FILE_OCTETS_MAX",
    "account_in_file",
    "clash_of",
    "decoded_lines",
    "nothing_readable",
    "serves_login",
    "too_large",
    "unreadable",
    "without_users",
]

FILE_OCTETS_MAX: Final = 64 * 1024 * 1024
"""Of a users file: some hundred thousand users; more belong into a database."""

_PIECE: Final = 256 * 1024  # octets searched at once: what a processor's cache holds
_BEFORE_AN_ENTRY: Final = b"\n \t\xbf"  # blanks, or the last octet of a byte order mark


def account_in_file(path: Path, name: str, names: UserNames) -> Account | None:
    """The user of that name, which ``names`` has made, to whom mail is delivered; None when there is no such. Blocking.

    Raises `AuthUnavailable` for a name that more than one user has, and for a file that `UsersFile` could not use.
    """
    try:
        lines = list(lines_in(_lines_like(path, names, name)))
        if not any(map(serves_login, lines)):
            _check(path)
    except AuthError as fault:  # somebody mends the file, and no mail is to come back meanwhile
        raise AuthUnavailable(str(fault)) from None
    users = {line.user.name: line.user for line in lines if line.user is not None}
    index = NameIndex(users, names)
    if (clash := index.clashes.get(name)) is not None:
        raise AuthUnavailable(f"{path}: {clash_of(clash, name)}")
    called = index.find(name) or index.find(names.key(name))
    return None if called is None else users[called].account


def _lines_like(path: Path, names: UserNames, name: str) -> Iterator[str]:
    """Lines whose names may find the same user as ``name``. Raises `AuthError`."""
    key = names.key(name)
    sought = [key]
    local, _, domain = key.rpartition("@")
    if local and domain == names.key(f"@{names.default_domain}")[1:]:
        sought.append(local)
    needles = [f"{one}:".encode("utf-8", "surrogateescape").lower() for one in sought]
    for piece in _pieces(path):
        lowered = piece.lower()  # of ASCII only, as in a name
        starts = {
            piece.rfind(b"\n", 0, place) + 1
            for needle in needles
            for place in _places(lowered, needle)
            if not place or lowered[place - 1] in _BEFORE_AN_ENTRY
        }
        for start in sorted(starts):
            end = piece.find(b"\n", start)
            text = (piece[start:] if end < 0 else piece[start:end]).decode("utf-8", "surrogateescape")
            if names.key(entry_of(text)[1].partition(":")[0]) == key:
                yield text


def _places(octets: bytes, needle: bytes) -> Iterator[int]:
    place = octets.find(needle)
    while place >= 0:
        yield place
        place = octets.find(needle, place + 1)


def _pieces(path: Path) -> Iterator[bytes]:
    """The file in pieces of whole lines. Raises `AuthError`."""
    octets = 0
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                piece += file.readline(FILE_OCTETS_MAX + 1)
                octets += len(piece)
                if octets > FILE_OCTETS_MAX:
                    raise too_large(path)
                yield piece
    except OSError as fault:
        raise unreadable(path, fault) from None


def _check(path: Path) -> None:
    """Raises `AuthError` for a file in which no line can be read, or none is."""
    first: Line | None = None
    for line in lines_in(decoded_lines(path)):
        if serves_login(line):
            return
        first = first or line
    raise nothing_readable(path, first)


def serves_login(line: Line) -> bool:
    """Whether a line could be read, and so speaks for its file. A user who is locked on purpose was read well."""
    return line.user is not None and (line.locked or not line.fault)


def decoded_lines(path: Path) -> Iterator[str]:
    """The lines of a file, one at a time. Raises `AuthError`. Blocking."""
    for piece in _pieces(path):
        yield from piece.removesuffix(b"\n").decode("utf-8", "surrogateescape").split("\n")


# --- what is wrong with a users file, in one line ---


def unreadable(path: Path, fault: OSError) -> AuthError:
    """It cannot be opened or read."""
    match fault:
        case PermissionError():
            remedy = let_us_read(path)
        case IsADirectoryError():
            remedy = "name the file in it"
        case _:
            remedy = "`pop3d user add NAME` makes it"
    return AuthError(f"users file {path}: {fault.strerror}; {remedy}")


def too_large(path: Path) -> AuthError:
    """It has more than `FILE_OCTETS_MAX`."""
    return AuthError(f"users file {path}: larger than {FILE_OCTETS_MAX} octets")


def without_users(path: Path) -> str:
    """It has no line at all."""
    return f"users file {path}: it has no users; add one with `pop3d user add`"


def nothing_readable(path: Path, first: Line | None) -> AuthError:
    """No line of it can be read. ``first``: the first one; None where there is none."""
    if first is None:
        return AuthError(without_users(path))
    return AuthError(f"users file {path}: no line can be read; line {first.number}: {first.fault}")


def clash_of(users: Iterable[str], name: str) -> str:
    """Users whose different spellings are one name."""
    spellings = " and ".join(map(repr, users))
    return f"{spellings} are one name, {name!r}, by `auth.usernames` and `default_domain`"
