"""Copies every message of a mailbox into a folder, a file each, in memory that does not depend on their size.

    python copy_mailbox.py pop3s://alice@localhost:8995 FOLDER [--cacert FILE] [--delete]

The password is asked for, or taken from the environment's POP3_PASSWORD. A file's name is a hash of the unique-id, for
that is foreign text and may be a path. A file that is there already is not fetched again. With --delete, what has
reached the disk is deleted at the end.
"""

import argparse
import asyncio
import getpass
import hashlib
import os
import sys
from pathlib import Path

from pop3cli import Client, MailError, Message


async def copy(url: str, folder: Path, password: str, cacert: str | None, delete: bool) -> int:
    """Copy what is not there yet; how many messages that were."""
    copied = 0
    async with Client.connect(url, password=password, cacert=cacert) as mailbox:
        async for message in mailbox:
            path = folder / f"{hashlib.sha256(message.uid.encode()).hexdigest()}.eml"
            if not path.exists():
                await fetch(message, path)
                copied += 1
            if delete:
                message.delete()
    return copied


async def fetch(message: Message, path: Path) -> None:
    """One message into a file that is there whole or not at all."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        async for piece in message.stream():
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)


def main() -> None:
    """Read the command line, copy, say how many."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cacert")
    parser.add_argument("--delete", action="store_true")
    options = parser.parse_args()
    password = os.environ.get("POP3_PASSWORD") or getpass.getpass()
    try:
        copied = asyncio.run(copy(options.url, options.folder, password, options.cacert, options.delete))
    except MailError as fault:
        sys.exit(str(fault))
    print(f"{copied} copied")


if __name__ == "__main__":
    main()
