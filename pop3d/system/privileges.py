"""Becoming an ordinary user once ports are bound and keys are read."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass

__all__ = ["Identity", "become", "resolve"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Numbers of a user and a group of this system."""

    uid: int
    gid: int


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
            raise LookupError(f"this system has no user {user!r} (`useradd --system` makes one)") from None
        uid, gid = entry.pw_uid, entry.pw_gid
    if group is None:
        if gid is None:
            raise LookupError(f"user {user!r} is a number, so `group` must be given too")
    elif group.startswith("#"):
        gid = _number(group)
    else:
        try:
            gid = grp.getgrnam(group).gr_gid
        except KeyError:
            raise LookupError(f"this system has no group {group!r}") from None
    return Identity(uid, gid)


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
