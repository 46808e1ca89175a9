"""Where the program begins: `pop3d`, and `python -m pop3d`.

A plain `pop3d deliver` goes straight to its command. It is a process for each message, and whatever reads command lines
well takes a third of its time.
"""

import os
import sys

# Python puts the current folder before all others. It may be a stranger's, so nothing is imported from it, unless this
# program itself lies there. These two modules are built in, or loaded already.
if sys.path and sys.path[0] in ("", os.path.realpath(".")) and not __file__.startswith(os.path.join(sys.path[0], "")):
    del sys.path[0]

from pathlib import Path
from typing import NoReturn

__all__ = ["main", "plain_delivery"]


def main() -> NoReturn:
    """The program: exits with an `pop3d.exit_status.ExitStatus`."""
    _in_utf_8()
    if (delivery := plain_delivery(sys.argv[1:])) is None:
        from pop3d.cli import main as command_line

        command_line()
    from pop3d.commands.deliver import deliver_stdin
    from pop3d.ending import ended
    from pop3d.system.process import no_core

    no_core()
    ended(lambda: deliver_stdin(*delivery), lambda: False)


def _in_utf_8() -> None:
    """Begin again in Python's UTF-8 mode where the locale has another encoding; C and POSIX have that mode already.

    A mailbox's path is octets, made of a user's name and of the configuration, which is UTF-8. It must not depend on
    the locale of whoever delivers, serves or looks, or one user had two mailboxes. The process stays the same one.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode and sys.executable:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606  # ourselves


def plain_delivery(words: list[str]) -> tuple[str, Path | None] | None:
    """User and configuration of a `pop3d deliver` that is written as MTAs have it; None for all else."""
    match words:
        case ["deliver", "--config", file, "--", user] if file and not file.startswith("-"):
            return user, Path(file)
        case ["deliver", "--config", file, user] | ["deliver", user, "--config", file]:
            return None if not file or file.startswith("-") or user.startswith("-") else (user, Path(file))
        case ["deliver", user] if not user.startswith("-"):
            return user, None
    return None


if __name__ == "__main__":
    main()
