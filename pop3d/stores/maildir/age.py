"""How long a message has been in a Maildir.

A file has three times: the one in its name, that of its last modification, and that of its last change of status
(ctime), which no program can set. The latest of them counts: a restored backup, and a message whose flags were set,
are young again, and what is kept too long can still be deleted.
"""

from __future__ import annotations

import os
import re
from typing import Final

from pop3d.stores.maildir.identity import ListedFiles

__all__ = ["older_than"]

_DELIVERED: Final = re.compile(rb"(?:new|cur)/([0-9]{1,12})\.")
_BELIEVED_FROM: Final = 946_684_800.0
"""2000-01-01: a clock that has lost its battery begins before that, and nobody knows how old a message of then is."""


def older_than(files: ListedFiles, when: float) -> list[int]:
    """The messages of a listing whose files are there and older than ``when`` (seconds since 1970). Blocking.

    A file that another program has renamed or exchanged meanwhile is not looked for: it is older another time.
    """
    found: list[int] = []
    for number in range(1, len(files) + 1):
        name = files.name(number)
        delivered = _DELIVERED.match(name)
        if delivered is not None and float(delivered[1]) >= when:
            continue  # nearly all: no call to the system
        try:
            status = os.stat(name, dir_fd=files.root, follow_symlinks=False)
        except OSError:
            continue
        latest = max(status.st_mtime, status.st_ctime)
        if _BELIEVED_FROM < latest < when and files.is_it(number, status):
            found.append(number)
    return found
