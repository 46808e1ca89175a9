"""Unpacking what other servers compressed: all of it or a reason, at bounded memory, and nothing that is mail."""

import bz2
import lzma
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3d.extras import install_line
from pop3d.stores.maildir import compressed, dovecot_lz4
from pop3d.stores.maildir.compressed import BEGINNINGS, HEAD, NotMail, form_of, known_forms, unpacked, verified
from tests.packed import PACKERS, by_lz4

MAIL = b"Subject: hello\n\nbody of the message\n"
NOISE = Random(7).randbytes(100_000)
CONTENTS = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda text, times: text * times, st.binary(min_size=1, max_size=40), st.integers(1, 20_000)),
    st.builds(lambda octets: NOISE[:octets], st.integers(0, len(NOISE))),
)
every_form = pytest.mark.parametrize("name", PACKERS)
# of what has a checksum, and an end that can be missed
WITH_CHECKSUM = ("gzip", "bzip2", "xz")
WITH_END = (*WITH_CHECKSUM, "zstd")


@contextmanager
def opened(octets: bytes) -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(octets)
        file.flush()
        yield file.fileno()


def content_of(octets: bytes) -> bytes:
    """As it is unpacked. Raises `NotMail`."""
    form = form_of(octets[:HEAD])
    assert form is not None
    with opened(octets) as descriptor:
        pieces = list(unpacked(descriptor, form))
    assert all(0 < len(piece) <= 64 * 1024 for piece in pieces)
    return b"".join(pieces)


def why_not(octets: bytes) -> str:
    with pytest.raises(NotMail) as fault:
        content_of(octets)
    return str(fault.value)


# --- what it was is what comes out ---


@every_form
@given(content=CONTENTS, read=st.sampled_from((1, 7, 64, 4096, 65536)))
def test_any_content_comes_out_however_the_file_is_read(name: str, content: bytes, read: int) -> None:
    octets = PACKERS[name](content)
    if read < 64 and len(octets) > 2000:
        read = 64  # nothing new is seen octet by octet
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compressed, "_READ", read)
        form = form_of(octets[:HEAD])
        assert form is not None and form.name == name
        assert octets[:2] in BEGINNINGS
        assert content_of(octets) == content


@every_form
def test_several_pieces_of_large_content(name: str) -> None:
    content = b"".join(b"line %d\n" % number for number in range(100_000)) + NOISE
    assert content_of(PACKERS[name](content)) == content


@pytest.mark.parametrize("name", WITH_END)
@given(contents=st.lists(st.binary(max_size=50), min_size=2, max_size=5), padding=st.integers(0, 200))
def test_streams_one_after_another_and_padding_are_one_message(name: str, contents: list[bytes], padding: int) -> None:
    pad = bytes(padding)
    assert content_of(b"".join(PACKERS[name](content) + pad for content in contents)) == b"".join(contents)


@every_form
def test_verified_gives_all_of_it_from_the_start(name: str) -> None:
    octets = PACKERS[name](NOISE)
    form = form_of(octets[:HEAD])
    assert form is not None
    with opened(octets) as descriptor:
        assert b"".join(verified(descriptor, form)) == NOISE


# --- what cannot be unpacked ---


@pytest.mark.parametrize("name", WITH_END)
@given(content=st.binary(max_size=2000), missing=st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_a_truncated_file_is_told_wherever_it_ends(name: str, content: bytes, missing: float) -> None:
    octets = PACKERS[name](content)
    octets = octets[: max(15, int(len(octets) * missing))]
    if octets != PACKERS[name](content):
        assert "truncated" in why_not(octets)


def test_a_truncated_file_of_lz4_is_told_within_a_chunk() -> None:
    octets = by_lz4(MAIL)
    for end in (len(dovecot_lz4.MAGIC) + 2, len(dovecot_lz4.MAGIC) + 6, len(octets) - 1):
        assert "truncated" in why_not(octets[:end])


@pytest.mark.parametrize("name", WITH_CHECKSUM)
@given(content=st.binary(min_size=1, max_size=500), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_bit_that_flipped_never_changes_a_message(name: str, content: bytes, place: float, bit: int) -> None:
    octets = bytearray(PACKERS[name](content))
    octets[int(len(octets) * place)] ^= 1 << bit
    if form_of(bytes(octets[:HEAD])) is None:
        return
    try:
        assert content_of(bytes(octets)) == content  # such as the time in gzip's header
    except NotMail as fault:
        assert "damaged" in fault.why or "truncated" in fault.why


@pytest.mark.parametrize("name", WITH_END)
def test_octets_behind_the_end_are_not_dropped(name: str) -> None:
    assert "other octets follow" in why_not(PACKERS[name](MAIL) + b"Subject: another\n")


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (b"\x10", "too early"),
        (b"\xf0", "too early"),
        (b"\x10a\x05\x00\x00", "what is not there"),
        (b"\x10a\x00\x00\x00", "what is not there"),
        (b"\x1fa\x01\x00" + b"\xff" * 300 + b"\x00", "too large"),
        (b"\x1fa\x01\x00" + b"\xff" * 300, "too early"),
    ],
)
def test_a_damaged_block_of_lz4_is_told(block: bytes, why: str) -> None:
    octets = dovecot_lz4.MAGIC + (64 * 1024).to_bytes(4, "big") + len(block).to_bytes(4, "big") + block
    assert why in why_not(octets)


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        (b"\0\0\0\0", "header"),
        (b"\0\2\0\0", "header"),
        (b"\0\1\0\0\0\0\0\0", "length of a chunk"),
        (b"\0\1\0\0\xff\0\0\0", "length of a chunk"),
    ],
)
def test_impossible_lengths_of_lz4_are_told(rest: bytes, why: str) -> None:
    assert why in why_not(dovecot_lz4.MAGIC + rest)


@given(st.binary(max_size=200))
def test_no_block_of_lz4_breaks_anything(block: bytes) -> None:
    octets = dovecot_lz4.MAGIC + (64 * 1024).to_bytes(4, "big") + len(block).to_bytes(4, "big") + block
    try:
        content_of(octets)
    except NotMail as fault:
        assert "LZ4" in fault.why


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"CRYPTED\x03\x07\x02" + NOISE, "encrypted"),
        (b"\x1f\x9d\x90" + NOISE, "in a way that pop3d does not know"),
        (b"\x04\x22\x4d\x18" + NOISE, "in a way that pop3d does not know"),
    ],
)
def test_what_nobody_can_unpack_is_told(octets: bytes, why: str) -> None:
    assert why in why_not(octets)
    assert octets[:2] in BEGINNINGS


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert known_forms() == tuple(PACKERS)
    monkeypatch.setitem(sys.modules, compressed._MODULE, None)
    known_forms.cache_clear()
    try:
        assert "zstd" not in known_forms()
    finally:
        known_forms.cache_clear()
    assert install_line("zstd") in why_not(PACKERS["zstd"](MAIL))


@every_form
def test_all_are_refused_on_demand(name: str) -> None:
    octets = PACKERS[name](MAIL)
    form = form_of(octets[:HEAD])
    assert form is not None
    with opened(octets) as descriptor, pytest.raises(NotMail, match=rf"\({name}\).*refuse"):
        list(unpacked(descriptor, form, refuse=True))


# --- what is mail ---


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"B",
        b"BZh9: a header\n\n",
        b"BZh91AY&SY: a header\n\nbody\n",
        b"BZh91AY&SY\r\n\r\n" + NOISE,
        b"Dovecot-LZ4: a header\n\n",
        b"CRYPTED: a header\n\n",
        b"\x1f\x8b",
        b"\x1f\x8b\x07",
        b"Date: now\n\n",
        b"(\xb5 a message without a header",
    ],
)
def test_what_only_looks_like_it_is_mail(text: bytes) -> None:
    head = text[:HEAD]
    if text.endswith(NOISE):
        head = text[:14]  # all there is
    assert form_of(head) is None


@given(st.text(st.characters(max_codepoint=126, min_codepoint=32), min_size=1), st.binary())
def test_no_header_of_ascii_is_taken_for_compressed(line: str, rest: bytes) -> None:
    head = line.encode() + b": value of some length that fills the octets which are looked at.\r\n" + rest
    assert form_of(head[:HEAD]) is None


def test_the_end_of_an_empty_stream_is_not_text() -> None:
    assert content_of(bz2.compress(b"")) == b""


# --- bombs ---


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "zstd"])
def test_a_bomb_is_told_at_bounded_memory(name: str, tmp_path: Path) -> None:
    (tmp_path / "bomb").write_bytes(PACKERS[name](bytes(80 * 1024**2)))
    assert (tmp_path / "bomb").stat().st_size < 200_000
    code = """
import os, resource, sys
from pop3d.stores.maildir import compressed
compressed._CONTENT_MAX = 64 * 1024**2
descriptor = os.open(sys.argv[1], os.O_RDONLY)
form = compressed.form_of(os.pread(descriptor, compressed.HEAD, 0))
form.unpack(lambda: b"")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    compressed.verified(descriptor, form)
except compressed.NotMail as fault:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, fault)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "bomb"], capture_output=True, text=True, check=True)
    kibibytes, _, why = done.stdout.partition(" ")
    assert "more than" in why, done
    assert int(kibibytes) < 16 * 1024  # xz keeps 8 MiB of what it has unpacked, as its file wants it


def test_an_xz_file_cannot_ask_for_any_memory() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 4096}]
    octets = bytearray(lzma.compress(MAIL, lzma.FORMAT_XZ, filters=filters))
    # the first block's header: its size, flags, the filter's id, the size of its properties, the dictionary's size
    assert octets[12:16] == b"\x02\x00\x21\x01"
    octets[16] = 38  # 2 GiB
    octets[20:24] = zlib.crc32(octets[12:20]).to_bytes(4, "little")
    assert "Memory usage limit" in why_not(bytes(octets))
