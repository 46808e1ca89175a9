"""`pop3d check`, and the users file: who cannot log in or has no mailbox, and what of it has no effect."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from pop3d.auth import Account
from pop3d.auth.crypt_hashes import remedy
from pop3d.auth.extra_fields import FieldMeaning, meaning_of
from pop3d.auth.passwd_file import Line
from pop3d.auth.passwords import PROVED_BY, serves
from pop3d.auth.schemes import PLAIN, Secret
from pop3d.auth.stored_user import StoredUser
from pop3d.auth.users_summary import UsersSummary, named, summarized
from pop3d.commands.finding import CheckFinding, counted, fault, mode_faults, warning
from pop3d.config import Config, are_one_mailbox
from pop3d.stores import StoreError
from pop3d.stores.maildir.paths import mailbox_path

__all__ = ["users"]


def users(config: Config, lines: list[Line]) -> Iterator[CheckFinding]:
    """As root, where `pop3d check` was started so. ``lines``: of the users file."""
    path = config.auth.users
    yield from mode_faults(path, "the secrets of users")
    seen: set[str] = set()
    for line in lines:
        where = f"{path} line {line.number}"
        if line.locked:
            yield warning(where, f"the user {line.name!r} is locked", "nothing, if that is meant")
        elif line.fault:
            yield fault(where, line.fault, _remedy(line, again=line.name in seen))
        if line.indented:
            what = "there are blanks before it, which Dovecot takes for a part of the name"
            yield warning(where, what, "remove them")
        if line.user is not None:
            if line.user.secret is not None:
                yield from _mechanisms(where, line.user, line.user.secret, config.auth.mechanisms)
            yield from _fields(where, line.user, config)
        seen.add(line.name)
    yield from _together(config, summarized(lines))
    if not lines:
        yield fault(path, "it has no users: nobody can log in, and mail waits", "`pop3d user add NAME` adds a user")


def _together(config: Config, summary: UsersSummary) -> Iterator[CheckFinding]:
    """What many users may have in common: a finding each, with how many and the first of them."""
    path = config.auth.users
    for number, text in summary.wrong:
        yield fault(f"{path} line {number}", text, "mend the field")
    for scheme, names in summary.lacking.items():
        yield fault(path, f"{_counted(names)} of {{{scheme}}} cannot log in", remedy(scheme))
    for why, names in summary.refused.items():
        if meaning_of(why.partition(":")[0]).meaning is FieldMeaning.OBEYED:
            yield warning(path, f"{_counted(names)} may not log in ({why})", "nothing, if that is meant")
        else:
            yield fault(path, f"{_counted(names)} cannot log in: {why}", "remove the field")
    for field, names in summary.unused.items():
        what = f"{_counted(names)} with the field {field}, which has no effect: {meaning_of(field).why}"
        yield warning(path, what, "remove it, or ignore this")
    for scheme, names in summary.weak.items():
        what = f"{_counted(names)} with a weak secret, {{{scheme}}}"
        yield warning(path, what, "`pop3d user passwd NAME` stores a better one")


def _counted(names: list[str]) -> str:
    return f"{counted(len(names), 'user')} ({named(names)})"


def _remedy(line: Line, *, again: bool) -> str:
    if line.user is not None:
        return f"mend the line, or store another secret with `pop3d user passwd {shlex.quote(line.name)}`"
    if line.name and again:
        return "remove one of the two lines with an editor; `pop3d user remove` removes both"
    return "mend the line, or remove it"


def _mechanisms(where: str, user: StoredUser, secret: Secret, mechanisms: tuple[str, ...]) -> Iterator[CheckFinding]:
    """A mechanism that is offered, but not for this user."""
    scheme = secret.scheme
    lacking = [name for name in mechanisms if name in PROVED_BY and not serves(secret, PROVED_BY[name])]
    if lacking:
        option = " --scheme plain" if "apop" in lacking else ""
        has, stores = f"{{{scheme}}}, which does", "what does"
        if scheme == PLAIN:
            has, stores = f"a {{{PLAIN}}} secret that SASLprep (RFC 4013) refuses, which does", "another password"
        what = f"the user {user.name!r} has {has} not serve {', '.join(lacking)}"
        if len(lacking) == len(mechanisms):
            what += ": no login is possible"
        remedy = f"`pop3d user passwd {shlex.quote(user.name)}{option}` stores {stores}"
        yield CheckFinding(len(lacking) == len(mechanisms), f"{where}: {what}; {remedy}")


def _fields(where: str, user: StoredUser, config: Config) -> Iterator[CheckFinding]:
    if config.store.backend != "maildir":
        return
    places: list[str] = []
    for key, template in (("path", config.store.path), ("deleted", config.store.deleted)):
        try:
            place = mailbox_path(template, Account(user.name, user.home))
        except StoreError as failed:
            what = f"the user {user.name!r} has no mailbox by `{key}`: {failed.detail}"
            yield fault(where, what, "fill in that field, or take another path")
        else:
            if place and not place.startswith("/"):
                what = f"the home of {user.name!r} is no absolute path, so the mailbox depends on where `serve` starts"
                yield fault(where, what, "let it begin with a slash")
            if place:
                places.append(place)
    if len(places) == 2 and are_one_mailbox(*places):
        what = f"`deleted` of the user {user.name!r} is the mailbox itself, so nothing can be deleted"
        yield fault(where, what, "take a folder of its own for `deleted`, or another home")
