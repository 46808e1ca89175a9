"""Whom a process becomes once ports are bound and keys are read: an ordinary user, for good."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
from dataclasses import dataclass
from enum import Enum

__all__ = ["Identity", "IdentityDoubt", "ProcessIdentity", "become", "group_id", "process_identity", "resolve"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Numbers of a user and a group of this system."""

    uid: int
    gid: int


class IdentityDoubt(Enum):
    """Why a daemon should not run like that."""

    NOBODY = "root, and the configuration names nobody to become"
    ROOT = "the configuration names root"
    ANOTHER = "the configuration names another user, whom only root can become"


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """Whom a process becomes. ``named``: whom the configuration names; ``doubt``: what each command judges itself."""

    named: Identity | None
    doubt: IdentityDoubt | None = None

    @property
    def becomes(self) -> Identity | None:
        """Whom `become` is to be called with; None to stay who we are: only root can become anybody."""
        return self.named if os.geteuid() == 0 else None


def process_identity(user: str | None, group: str | None) -> ProcessIdentity:
    """Whom this process becomes, by the configuration's `user` and `group`. Raises LookupError as `resolve` does."""
    root = os.geteuid() == 0
    if user is None:
        return ProcessIdentity(None, IdentityDoubt.NOBODY if root else None)
    named = resolve(user, group)
    if named.uid == 0:
        return ProcessIdentity(named, IdentityDoubt.ROOT)
    return ProcessIdentity(named, None if root or named.uid == os.geteuid() else IdentityDoubt.ANOTHER)


def resolve(user: str, group: str | None) -> Identity:
    """The numbers of a user and group given by name or as "#1000". Raises LookupError with a clear text.

    Without a group it is the user's own.
    """
    if user.startswith("#"):
        uid = _number(user)
        gid = None
    else:
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            remedy = f"`useradd --system {shlex.quote(user)}` makes it"
            raise LookupError(f"this system has no user {user!r} ({remedy})") from None
        uid, gid = entry.pw_uid, entry.pw_gid
    if group is None:
        if gid is None:
            raise LookupError(f"user {user!r} is a number, so `group` must be given too")
    else:
        gid = group_id(group)
    return Identity(uid, gid)


def group_id(group: str) -> int:
    """The number of a group given by name or as "#1000". Raises LookupError with a clear text."""
    if group.startswith("#"):
        return _number(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise LookupError(f"this system has no group {group!r}") from None


def _number(text: str) -> int:
    digits = text[1:]
    if not digits.isascii() or not digits.isdigit() or len(digits) > 10:
        raise LookupError(f"{text!r} is no number of a user or group")
    return int(digits)


def become(identity: Identity) -> None:
    """Give up all that root can do, for good. Raises OSError."""
    os.setgroups([])
    os.setgid(identity.gid)
    os.setuid(identity.uid)
