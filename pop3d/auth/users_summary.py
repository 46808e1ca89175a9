"""What is to be said of a users file as a whole: who cannot log in, and what of the file has no effect or is weak.

`pop3d serve` and every reload say it in the log, in so many lines at most; `pop3d check` lists all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pop3d.auth.crypt_hashes import lacks_extra, remedy
from pop3d.auth.extra_fields import meaning_of
from pop3d.auth.passwd_file import Line
from pop3d.auth.schemes import WEAK

__all__ = ["UsersSummary", "bounded", "named", "summarized"]

_TOLD_MAX: Final = 20  # lines of the log about one kind of thing: a file may have a hundred thousand
_NAMES_MAX: Final = 3  # users that are named where many have the same


@dataclass(frozen=True, slots=True)
class UsersSummary:
    """``faulty``: lines by which nobody logs in. The rest by what they have, with the users who do.

    ``wrong``: faults in extra fields, by line number and text. ``refused``: why fields keep somebody out, beginning
    with the field; ``unused``: fields without effect, by name. ``weak``, ``lacking``: schemes that should go, or need
    what is not there.
    """

    faulty: tuple[Line, ...]
    wrong: tuple[tuple[int, str], ...]
    refused: Mapping[str, list[str]]
    unused: Mapping[str, list[str]]
    weak: Mapping[str, list[str]]
    lacking: Mapping[str, list[str]]

    def told(self) -> Iterator[str]:
        """Lines for the log, a bounded number of them."""
        faults = [f"line {line.number}: {line.fault}{_of_whom(line)}" for line in self.faulty]
        faults += [f"line {number}: {text}" for number, text in self.wrong]
        yield from bounded(faults)
        yield from bounded(
            f"{_users(names)} of {{{scheme}}} cannot log in before: {remedy(scheme)}"
            for scheme, names in self.lacking.items()
        )
        yield from bounded(
            f"{_users(names)} cannot log in: {why}"
            for why, names in self.refused.items()
            if why != "nologin"  # which is obeyed, and no news
        )
        yield from bounded(
            f"{_users(names)} with the field {field}, which has no effect: {meaning_of(field).why}"
            for field, names in self.unused.items()
        )
        yield from bounded(
            f"{_users(names)} with a weak secret, {{{scheme}}}: `pop3d user passwd` stores a better one"
            for scheme, names in self.weak.items()
        )


def summarized(lines: Iterable[Line]) -> UsersSummary:
    """What there is to say of these lines."""
    faulty: list[Line] = []
    wrong: list[tuple[int, str]] = []
    refused: dict[str, list[str]] = defaultdict(list)
    unused: dict[str, list[str]] = defaultdict(list)
    weak: dict[str, list[str]] = defaultdict(list)
    lacking: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        if line.fault:
            faulty.append(line)
        user = line.user
        if user is None:
            continue
        wrong += ((line.number, text) for text in user.extra.faults)
        if user.extra.forbidden:
            refused[user.extra.forbidden].append(user.name)
        for field in user.extra.unused:
            unused[field].append(user.name)
        if user.secret is not None and user.secret.scheme in WEAK:
            weak[user.secret.scheme].append(user.name)
        if user.secret is not None and lacks_extra(user.secret.scheme):
            lacking[user.secret.scheme].append(user.name)
    return UsersSummary(tuple(faulty), tuple(wrong), refused, unused, weak, lacking)


def named(names: list[str]) -> str:
    """The first of them."""
    return ", ".join(names[:_NAMES_MAX]) + (" ..." if len(names) > _NAMES_MAX else "")


def _of_whom(line: Line) -> str:
    return f" (user {line.name!r})" if line.user is not None else ""


def _users(names: list[str]) -> str:
    return f"{len(names)} user{'' if len(names) == 1 else 's'} ({named(names)})"


def bounded(texts: Iterable[str]) -> Iterator[str]:
    """The first of them, and how many more there are."""
    found = list(texts)
    yield from found[:_TOLD_MAX]
    if len(found) > _TOLD_MAX:
        yield f"and {len(found) - _TOLD_MAX} more; `pop3d check` lists all"
