"""`pop3d undelete`: messages that a user has deleted, back into the mailbox."""

from __future__ import annotations

import sys
from pathlib import Path

from pop3d.commands.recipient import recipient
from pop3d.errors import CommandError
from pop3d.exit_status import ExitStatus
from pop3d.recipients import InMaildir
from pop3d.stores.maildir.deleted import put_back

__all__ = ["undelete"]


def undelete(user: str, config: Path | None) -> ExitStatus:
    """Bring back what a user has deleted. Raises `CommandError`."""
    mailbox = recipient(user, config)
    if not isinstance(mailbox, InMaildir) or not mailbox.deleted:
        remedy = 'deleted = "deleted/{user}" keeps what is deleted from then on'
        raise CommandError(
            f"nothing is kept: the configuration has no `deleted` in [store]; {remedy}", ExitStatus.CONFIG
        )
    try:
        found = put_back(mailbox.path, mailbox.deleted)
    except BlockingIOError as fault:
        raise CommandError(f"not brought back: {fault.strerror}; try again later", ExitStatus.TEMPFAIL) from None
    except OSError as fault:
        where = fault.filename or mailbox.deleted
        raise CommandError(f"not brought back: {where}: {fault.strerror}", ExitStatus.IOERR) from None
    for line in found.failed:
        print(f"pop3d: not brought back: {line}", file=sys.stderr)
    print(
        f"brought back {found.messages} messages for {user}"
        + (f", {len(found.failed)} were not" if found.failed else "")
    )
    return ExitStatus.SOME_FAILED if found.failed else ExitStatus.OK
