"""A secret of this site's own, from which salts of users who do not exist are made: always the same, known to nobody.

It lies in the state folder. Without it, or where it cannot be written, there is a new one at each start: then a name's
salt changes, by which one could tell that there is no such user.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Final

__all__ = ["secret_of"]

log = logging.getLogger("pop3d.secret")

_OCTETS: Final = 32


def secret_of(state: Path) -> bytes:
    """32 octets, made when they are not there. Blocking: for the start."""
    path = state / "secret"
    if (kept := _kept(path)) is not None:
        return kept
    made = os.urandom(_OCTETS)
    beside = path.with_name(f".secret.{os.getpid()}")
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(made)
        try:
            os.link(beside, path)  # of several processes that start at once, the first one's is kept
        except FileExistsError:
            if (kept := _kept(path)) is not None:
                return kept
            os.replace(beside, path)  # what was there is none
    except OSError as fault:
        log.warning("%s: %s; salts of unknown users change at each start", path, fault.strerror)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
    return made


def _kept(path: Path) -> bytes | None:
    with contextlib.suppress(OSError):
        kept = path.read_bytes()
        if len(kept) == _OCTETS:
            return kept
    return None
