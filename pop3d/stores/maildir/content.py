"""The files of messages as they are sent: opening one, and counting its octets.

Octets are counted by the code that sends, `text_of`, or, for whole messages, by `normalized_octets`, which gives the
same. What another server compressed is counted, and sent, as the message that it is
(`pop3d.stores.maildir.compressed`). All of it is blocking code for a worker thread.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from typing import Final

from pop3core.downgrade import Downgrader
from pop3core.framing import CrlfNormalizer, normalized_octets
from pop3d.stores.maildir.compressed import BEGINNINGS, NotMail, form_of, unpacked

__all__ = ["OPEN_MESSAGE", "digest_of", "octets_sent", "text_of"]

_PIECE = 1 << 20  # octets read at a time while counting
_WHOLE = 64 * 1024  # octets asked for first: most messages are shorter

# A FIFO must not hang us, a symbolic link must not lead out, a child process must not inherit.
OPEN_MESSAGE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def text_of(*, surrogate: bool) -> CrlfNormalizer | Downgrader:
    """What turns a file's octets into what is sent: as stored, or the ``surrogate`` (RFC 6856 §2.1)."""
    return Downgrader() if surrogate else CrlfNormalizer()


def octets_sent(descriptor: int, *, surrogate: bool, refuse: bool = False) -> int:
    """How many octets RETR sends of an open file: every line's end counts as two (RFC 1939 §11). Raises OSError.

    Of a file that RETR does not send because it is compressed (``refuse``), or cannot be unpacked: as stored.
    """
    data = os.read(descriptor, _WHOLE)
    if data[:2] in BEGINNINGS and (form := form_of(data)) is not None:
        try:
            return _octets_of(unpacked(descriptor, form, refuse=refuse), text_of(surrogate=surrogate))
        except NotMail:
            return os.fstat(descriptor).st_size
    # one read for most: a file that is shorter than what was asked for is whole
    if len(data) < _WHOLE and not surrogate:
        return normalized_octets(data)
    return _octets_of(_pieces(descriptor), text_of(surrogate=surrogate))


def _octets_of(pieces: Iterable[bytes], text: CrlfNormalizer | Downgrader) -> int:
    octets = 0
    for data in pieces:
        octets += len(text.feed(data))
    return octets + len(text.finish())


def digest_of(descriptor: int) -> bytes:
    """SHA-256 of an open file's octets as stored. Raises OSError."""
    digest = hashlib.sha256()
    for data in _pieces(descriptor):
        digest.update(data)
    return digest.digest()


def _pieces(descriptor: int) -> Iterator[bytes]:
    position = 0
    while data := os.pread(descriptor, _PIECE, position):
        position += len(data)
        yield data
