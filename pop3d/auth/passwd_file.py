"""The lines of a passwd-file: ``name:{SCHEME}secret[:uid:gid:gecos:home:shell:extra]``, one user to a line.

The fields of a Dovecot passwd-file are accepted; of those behind the secret the home and the extra fields are used, for
which see `pop3d.auth.extra_fields`. Blanks and any of ``,=%+/`` in a secret stand for themselves, a ``:`` ends it. The
file is UTF-8. A line that is blank, or begins with ``#``, is none; blanks before a line, a byte order mark before the
first and a carriage return behind any do not belong to it.

A line that cannot be read costs its own user and no other. Where its name and its fields can be read, mail is delivered
to that user all the same. Of two lines with one name the first counts, as with Dovecot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from pop3d.auth import check_user_name
from pop3d.auth.extra_fields import ExtraFields, read_extra_fields
from pop3d.auth.passwords import LockedSecret, parse_secret
from pop3d.auth.stored_user import StoredUser

__all__ = ["Line", "entry_of", "lines_in", "lines_of", "user_of"]

_FIELDS: Final = ("uid", "gid", "gecos", "home", "shell", "extra")
_HOME: Final = _FIELDS.index("home")
_BYTE_ORDER_MARK: Final = "\ufeff"


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it was found. ``number``: from 1; ``name``: empty where it cannot be told from a secret.

    ``user``: None when there is none by this line. ``fault``: why nobody logs in by it. ``locked``: on purpose.
    ``indented``: Dovecot takes the blanks for a part of the name. ``entry``: the line without what stands around it.
    """

    number: int
    name: str
    user: StoredUser | None
    fault: str = ""
    locked: bool = False
    indented: bool = False
    entry: str = field(default="", repr=False)


def lines_of(text: str) -> Iterator[Line]:
    """Every line that is neither blank nor a comment. ``text``: decoded with ``surrogateescape``."""
    return lines_in(text.split("\n"))


def user_of(entry: str) -> StoredUser | None:
    """The user of a `Line.entry`, as it says now."""
    return _parsed(0, entry, indented=False).user


def lines_in(lines: Iterable[str]) -> Iterator[Line]:
    """The same of lines one by one, of which no more than one is held."""
    first: dict[str, int] = {}
    for number, found in enumerate(lines, 1):
        before, entry = entry_of(found)
        if entry:
            line = _parsed(number, entry, indented=before not in ("", _BYTE_ORDER_MARK))
            if line.name and (earlier := first.setdefault(line.name, number)) != number:
                twice = f"the user {line.name!r} stands there twice; line {earlier} counts"
                line = Line(number, line.name, None, twice, indented=line.indented)
            yield replace(line, entry=entry)
    while first:  # one by one: who drops a hundred thousand at once holds the interpreter
        first.popitem()


def entry_of(line: str) -> tuple[str, str]:
    """What stands before the entry of a line, and the entry; that is empty for a blank line and a comment."""
    body = line.removesuffix("\r")
    entry = body.removeprefix(_BYTE_ORDER_MARK).lstrip(" \t")
    before = body[: len(body) - len(entry)]
    return (before, "") if not entry.strip() or entry.startswith("#") else (before, entry)


def _parsed(number: int, entry: str, *, indented: bool) -> Line:
    name, colon, rest = entry.partition(":")
    if not colon:
        # it might be half of a secret
        return Line(number, "", None, "a line is name:{SCHEME}secret", indented=indented)
    try:
        check_user_name(name)
    except ValueError as fault:
        return Line(number, name, None, str(fault), indented=indented)
    text, *fields = rest.split(":", len(_FIELDS))  # the last one may have a ":" in it
    home = fields[_HOME] if len(fields) > _HOME else ""
    extra = fields[-1] if len(fields) == len(_FIELDS) else ""
    if not entry.isascii() and (place := _not_utf_8(name, text, home, extra)):
        return Line(number, name, None, f"{place} not UTF-8", indented=indented)
    filled = tuple(field for field, value in zip(_FIELDS, fields, strict=False) if value)
    restricted = read_extra_fields(extra, name) if extra else ExtraFields()
    try:
        secret = parse_secret(text, name)
    except ValueError as fault:
        user = StoredUser(name, None, home or None, filled, restricted, str(fault))
        return Line(number, name, user, str(fault), isinstance(fault, LockedSecret), indented)
    return Line(number, name, StoredUser(name, secret, home or None, filled, restricted), indented=indented)


def _not_utf_8(*fields: str) -> str:
    """Which of name, secret, home and extra fields is not; the others are of no use, and may be in any encoding."""
    for what, value in zip(
        ("the name is", "the secret is", "the home is", "the extra fields are"), fields, strict=True
    ):
        if any("\udc80" <= character <= "\udcff" for character in value):
            return what
    return ""
