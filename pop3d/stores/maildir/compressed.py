"""Messages that another server left compressed, or encrypted, in a Maildir.

Dovecot (its zlib or mail_compress plug-in) keeps messages as gzip, bzip2, xz, zstd or LZ4, and tells them by how a file
begins, not by its name; so does this. No message begins so: a header field's name is printable ASCII (RFC 5322 §2.2).
bzip2's ``BZh91AY&SY`` could be one, so more of such a file is looked at.

A message is unpacked piece by piece, at bounded memory. What cannot be unpacked to its end is `NotMail`: nothing of it
is sent, and nobody removes it but the client.

Blocking code, for a worker thread.
"""

from __future__ import annotations

import bz2
import functools
import importlib.util
import lzma
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from pop3d.extras import install_line
from pop3d.stores.maildir import dovecot_lz4

__all__ = [
    "BEGINNINGS",
    "HEAD",
    "NotMail",
    "RefusedContent",
    "StoredForm",
    "form_of",
    "known_forms",
    "unpacked",
    "verified",
]

HEAD: Final = 32
"""Octets of a file that are enough to know how it is stored."""

_READ: Final = 64 * 1024  # octets of a file read at a time
_PIECE: Final = 64 * 1024  # octets of content unpacked at a time
_CONTENT_MAX: Final = 1024**3
"""Octets of content from which on a message is taken for a decompression bomb: several times what any mail provider
takes, and some seconds of one thread. A ratio tells no bomb: 50 MiB of zeros in base64, which are mail, can shrink to
300 octets.
"""

_MEMORY_MAX: Final = 128 * 1024**2
"""Octets of memory that an xz file may ask for: its presets ask for up to 65 MiB, a crafted file for 4 GiB. Memory is
taken as content fills it. zstd has the same limit by itself."""

_MODULE: Final = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
_RESTORE: Final = "restore the file from a backup"


class NotMail(Exception):
    """A file that holds no message which can be sent. ``why``, and what an administrator can do: ``remedy``."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(f"{why}; {remedy}")
        self.why, self.remedy = why, remedy


class RefusedContent(NotMail):
    """A message that could be unpacked, but shall not be."""


Read: TypeAlias = Callable[[], bytes]
"""Gives the next octets of a file, ``b""`` at its end."""


@dataclass(frozen=True, slots=True)
class StoredForm:
    """How a file is stored, other than as the message itself. ``name``: for people.

    ``magic``: what it begins with. ``unpack``: gives its content in pieces; raises EOFError where the file is
    truncated, ValueError where it is damaged, and `NotMail`. ``compressed``: in a way that can be undone here.
    """

    name: str
    magic: re.Pattern[bytes]
    unpack: Callable[[Read], Iterator[bytes]]
    compressed: bool = True


def form_of(head: bytes) -> StoredForm | None:
    """How a file is stored that begins with ``head``, which has `HEAD` octets or is all of it; None: as the message."""
    return next((form for form in _FORMS if form.magic.match(head)), None)


@functools.cache
def known_forms() -> tuple[str, ...]:
    """The names of the forms that can be unpacked here; zstd from Python 3.14 on, or with the extra ``zstd``."""
    try:
        lacking = () if importlib.util.find_spec(_MODULE) is not None else ("zstd",)
    except ModuleNotFoundError:
        lacking = ("zstd",)
    return tuple(form.name for form in _FORMS if form.compressed and form.name not in lacking)


def unpacked(descriptor: int, form: StoredForm, *, refuse: bool = False) -> Iterator[bytes]:
    """The content of a file, in pieces of at most 64 KiB, none of them empty.

    ``refuse``: all of it is `RefusedContent`.

    Raises OSError when the file cannot be read, `NotMail` when it cannot be unpacked: perhaps only behind other pieces.
    """
    if refuse and form.compressed:
        raise RefusedContent(f"it is compressed ({form.name})", '`compressed` in [store] is "refuse"')
    octets = 0
    try:
        for piece in form.unpack(_reading(descriptor)):
            octets += len(piece)
            if octets > _CONTENT_MAX:
                what = f"it unpacks ({form.name}) to more than {_CONTENT_MAX} octets"
                raise NotMail(what, "look whether it is a message at all; one that large is not served")
            if piece:
                yield piece
    except EOFError:
        raise NotMail(f"its compressed octets ({form.name}) are truncated", _RESTORE) from None
    except ValueError as fault:
        raise NotMail(f"its compressed octets ({form.name}) are damaged: {fault}", _RESTORE) from None


def verified(descriptor: int, form: StoredForm, *, refuse: bool = False) -> Iterator[bytes]:
    """As `unpacked`, but raises `NotMail` at once: all of the file is unpacked before, for nothing.

    A client that was told +OK could not be told any more that a message is damaged.
    """
    for _ in unpacked(descriptor, form, refuse=refuse):
        pass
    return unpacked(descriptor, form, refuse=refuse)


def _reading(descriptor: int) -> Read:
    position = 0

    def read() -> bytes:
        nonlocal position
        data = os.pread(descriptor, _READ, position)
        position += len(data)
        return data

    return read


class _Stream(Protocol):
    """One compressed stream, as `bz2.BZ2Decompressor` is."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """zlib's decompressor with the names that the others have."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(zlib.MAX_WBITS | 16)  # 16: gzip's header and checksum
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        content = self._stream.decompress(self._stream.unconsumed_tail + data, max_length)
        # a full piece may leave more inside, also where all input was taken
        self.needs_input = len(content) < max_length and not self._stream.unconsumed_tail
        return content


def _gzip(read: Read) -> Iterator[bytes]:
    return _streams(_GZIP, _Gzip, zlib.error, read)


def _bzip2(read: Read) -> Iterator[bytes]:
    return _streams(_BZIP2, bz2.BZ2Decompressor, OSError, read)


def _xz(read: Read) -> Iterator[bytes]:
    return _streams(_XZ, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY_MAX), lzma.LZMAError, read)


def _zstd(read: Read) -> Iterator[bytes]:
    try:
        if sys.version_info >= (3, 14):
            import compression.zstd as zstd
        else:
            import backports.zstd as zstd
    except ImportError:
        raise NotMail("it is compressed by zstd", f"{install_line('zstd')}, and start pop3d again") from None
    return _streams(_ZSTD, zstd.ZstdDecompressor, zstd.ZstdError, read)


def _streams(
    magic: re.Pattern[bytes], begin: Callable[[], _Stream], fault_type: type[Exception], read: Read
) -> Iterator[bytes]:
    """The content of one stream after another: compressors that use several cores write such files."""
    stream = begin()
    while True:
        if stream.eof:
            octets = _next_stream(stream.unused_data, read)
            if not octets:
                return
            if not magic.match(octets):
                raise ValueError("other octets follow them")
            stream = begin()
        elif stream.needs_input:
            octets = read()
            if not octets:
                raise EOFError
        else:
            octets = b""
        try:
            yield stream.decompress(octets, _PIECE)
        except fault_type as fault:
            raise ValueError(str(fault)) from None


def _next_stream(octets: bytes, read: Read) -> bytes:
    """How the next stream begins, `HEAD` octets at least, without zeros before it, which are padding; b"": none."""
    octets = octets.lstrip(b"\0")
    while len(octets) < HEAD and (more := read()):
        octets = (octets + more).lstrip(b"\0")
    return octets


def _encrypted(_read: Read) -> Iterator[bytes]:
    raise NotMail(
        "it is encrypted by Dovecot (mail_crypt)",
        "`doveadm -o plugin/mail_crypt_save_version=0 backup` writes all unencrypted",
    )


def _unknown(_read: Read) -> Iterator[bytes]:
    raise NotMail("it is compressed in a way that pop3d does not know", "unpack it by hand")


_GZIP: Final = re.compile(rb"\x1f\x8b\x08")
# a first block, or the end of an empty stream. A block's checksum is followed by a number below 900,000 in 25 bits,
# whose first octet is a control character
_BZIP2: Final = re.compile(rb"BZh[1-9](?:1AY&SY.{4}[\x00-\x07\x80-\x87]|\x17rE8P\x90)", re.DOTALL)
_XZ: Final = re.compile(rb"\xfd7zXZ\0")
_ZSTD: Final = re.compile(rb"\x28\xb5\x2f\xfd")
_LZ4: Final = re.compile(re.escape(dovecot_lz4.MAGIC))
_CRYPTED: Final = re.compile(rb"CRYPTED\x03\x07")
_FOREIGN: Final = re.compile(rb"\x1f\x9d|\x04\x22\x4d\x18")  # compress(1), LZ4 by its own program

_FORMS: Final = (
    StoredForm("gzip", _GZIP, _gzip),
    StoredForm("bzip2", _BZIP2, _bzip2),
    StoredForm("xz", _XZ, _xz),
    StoredForm("zstd", _ZSTD, _zstd),
    StoredForm("LZ4", _LZ4, dovecot_lz4.unpacked_lz4),
    StoredForm("mail_crypt", _CRYPTED, _encrypted, compressed=False),
    StoredForm("unknown", _FOREIGN, _unknown, compressed=False),
)

BEGINNINGS: Final = frozenset((b"\x1f\x8b", b"BZ", b"\xfd7", b"\x28\xb5", b"Do", b"CR", b"\x1f\x9d", b"\x04\x22"))
"""The first two octets of all that `form_of` knows: to look here first costs an ordinary message next to nothing."""
