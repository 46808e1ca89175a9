"""`pop3d check`, and the users file: who cannot log in, or has no mailbox."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator

from pop3d.auth import Account, check_user_name
from pop3d.auth.passwords import CRYPT_EXTRA, PLAIN, PROVED_BY, lacks_extra, serves
from pop3d.auth.users_file import Line, StoredUser
from pop3d.commands.finding import CheckFinding, counted, fault, mode_faults, warning
from pop3d.config import Config, are_one_mailbox
from pop3d.stores import StoreError
from pop3d.stores.maildir.store import mailbox_path

__all__ = ["users"]


def users(config: Config, lines: list[Line]) -> Iterator[CheckFinding]:
    """As root, where `pop3d check` was started so. ``lines``: of the users file."""
    path = config.auth.users
    yield from mode_faults(path, "the secrets of users")
    seen: set[str] = set()
    for line in lines:
        where = f"{path} line {line.number}"
        if line.user is None:
            yield fault(where, line.fault, _remedy(line.name, again=line.name in seen))
        else:
            yield from _mechanisms(where, line.user, config.auth.mechanisms)
            yield from _fields(where, line.user, config)
        seen.add(line.name)
    known = [line.user for line in lines if line.user is not None]
    lacking = Counter(user.secret.scheme for user in known if lacks_extra(user.secret.scheme))
    for scheme, count in lacking.items():
        yield fault(path, f"{counted(count, 'user')} of {{{scheme}}} cannot log in", CRYPT_EXTRA)
    if not lines:
        yield warning(path, "nobody can log in", "`pop3d user add NAME` adds a user")


def _remedy(name: str, *, again: bool) -> str:
    if again:
        return "remove one of the two lines"
    try:
        check_user_name(name)
    except ValueError:
        return "mend the line, or remove it"
    return f"mend the line, or store another secret with `pop3d user passwd {shlex.quote(name)}`"


def _mechanisms(where: str, user: StoredUser, mechanisms: tuple[str, ...]) -> Iterator[CheckFinding]:
    """A mechanism that is offered, but not for this user."""
    scheme = user.secret.scheme
    lacking = [name for name in mechanisms if name in PROVED_BY and not serves(user.secret, PROVED_BY[name])]
    if lacking:
        option = " --scheme plain" if "apop" in lacking else ""
        secret, stores = f"{{{scheme}}}, which does", "what does"
        if scheme == PLAIN:
            secret, stores = f"a {{{PLAIN}}} secret that SASLprep (RFC 4013) refuses, which does", "another password"
        what = f"the user {user.name!r} has {secret} not serve {', '.join(lacking)}"
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
