"""`pop3d check`, and mailboxes that were seen before and are missing: their volume is not mounted."""

from __future__ import annotations

import os
from collections.abc import Iterator

from pop3d.commands.finding import CheckFinding, fault
from pop3d.config import Config
from pop3d.stores.maildir.seen_mailboxes import SeenMailboxes, is_there
from pop3d.system.state_folder import KEEP

__all__ = ["kept", "mailbox", "root"]


def kept(config: Config) -> Iterator[CheckFinding]:
    """As the configured user: whether what the daemon remembers can be read and written."""
    keep = config.state / KEEP
    try:
        os.lstat(keep)
    except (FileNotFoundError, NotADirectoryError):
        return  # made at the next start
    except OSError:
        usable = False
    else:
        usable = os.access(keep, os.R_OK | os.W_OK | os.X_OK)
    if not usable:
        what = "`user` cannot read and write it, so a mailbox that is missing is not told from an empty one"
        yield fault(keep, what, "give it, and all in it, to `user`")


def root(seen: SeenMailboxes) -> Iterator[CheckFinding]:
    """The folder of all mailboxes, if it had some and is missing or empty."""
    try:
        if (why := seen.root_gone()) is not None:
            yield CheckFinding(True, why)
    except OSError as refused:
        yield _unknown(seen.root, refused)


def mailbox(seen: SeenMailboxes, path: str) -> Iterator[CheckFinding]:
    """A mailbox, if it was seen before and is missing."""
    try:
        if is_there(path):
            return
    except OSError:
        return  # opening it tells why
    try:
        if (why := seen.gone(path)) is not None:
            yield CheckFinding(True, why)
    except OSError as refused:
        yield _unknown(path, refused)


def _unknown(where: object, refused: OSError) -> CheckFinding:
    what = f"whether it was there before is not known: {refused.filename}: {refused.strerror}"
    return fault(where, what, "let `user` read that")
