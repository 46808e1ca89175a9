"""Attachments, saved under names that are safe: what a message calls them is only a wish.

A name never leads out of the folder, never replaces a file, is not hidden, has no character that a terminal or another
system trips over, and is short enough for any. Files are new, or there is an error; one that cannot be written whole is
taken away again.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import mimetypes
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

from pop3cli.errors import OutputFailed
from pop3cli.message.reading import Attachment
from pop3cli.sanitize import sanitized

__all__ = ["ATTACHMENTS_MAX", "safe_name", "save_attachments"]

ATTACHMENTS_MAX: Final = 100
"""Attachments of one message that are saved."""

_NAME_MAX: Final = 120  # octets, with what `_numbered` adds well below the 255 of file systems
_ENDING_MAX: Final = 20  # characters of an ending, with its dot
_TRIES_MAX: Final = 1000  # names tried for one attachment
_UNFIT: Final = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f\u2400-\u2421\ufffd]')  # some are so on other systems only
_RESERVED: Final = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.I)  # likewise


def save_attachments(attachments: Sequence[Attachment], folder: Path) -> list[Path]:
    """Write the first `ATTACHMENTS_MAX` of them to new files in ``folder``, which is made if it is not there.

    Returns their paths, in order. Raises `OutputFailed`; what was saved before stays.
    """
    saved = list[Path]()
    try:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        folder.mkdir(exist_ok=True)
    except OSError as fault:
        raise OutputFailed(str(folder), fault) from fault
    for number, attachment in enumerate(attachments[:ATTACHMENTS_MAX], 1):
        name = safe_name(attachment.name) or f"attachment-{number}{_ending(attachment.type)}"
        path = folder / name
        try:
            path, stream = _new_file(folder, name)
            _fill(path, stream, attachment.content)
        except OSError as fault:
            raise OutputFailed(str(path), fault) from fault
        saved.append(path)
    return saved


def safe_name(wish: str) -> str:
    """A file's name that comes as close to ``wish`` as is safe; empty when nothing is left of it."""
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", wish))[-1]
    name = _UNFIT.sub("_", sanitized(last)).strip(" .")
    stem, ending = os.path.splitext(name)
    if len(ending) > _ENDING_MAX:
        stem, ending = name, ""
    room = _NAME_MAX - len(ending.encode())
    stem = stem.encode()[: max(room, 1)].decode("utf-8", "ignore").rstrip(" .")
    name = f"{stem}{ending}"
    return f"_{name}" if _RESERVED.fullmatch(name) else name


def _ending(kind: str) -> str:
    return ".eml" if kind == "message/rfc822" else mimetypes.guess_extension(kind) or ".bin"


def _new_file(folder: Path, name: str) -> tuple[Path, BinaryIO]:
    stem, ending = os.path.splitext(name)
    for attempt in itertools.count(1):
        path = folder / (name if attempt == 1 else f"{stem}-{attempt}{ending}")
        try:
            return path, path.open("xb")  # never follows a link, and never replaces anything
        except FileExistsError:
            if attempt >= _TRIES_MAX:
                raise
    raise AssertionError("the loop ends by itself")


def _fill(path: Path, stream: BinaryIO, content: bytes) -> None:
    try:
        with stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
