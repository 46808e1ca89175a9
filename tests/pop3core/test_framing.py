"""Framing, against naive statements of the rules and under every chopping."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3core import framing
from pop3core.framing import (
    CrlfNormalizer,
    DotStuffer,
    DotUnstuffer,
    LineBuffer,
    LineFault,
    TopCutter,
    normalized_octets,
)

# texts in which dots and line ends are as likely as anything else
nasty = st.lists(st.sampled_from([b".", b"\r", b"\n", b"\r\n", b"x", b"\r\n.\r\n", b"\x00", b"\xff"])).map(b"".join)
cuts = st.lists(st.integers(1, 7), min_size=1)


def chopped(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[at : at + size])
        at += size
        turn += 1
    return pieces


def normalized(text: bytes) -> bytes:
    """Every LF preceded by CR, a last line ended; octet by octet."""
    out = bytearray()
    for octet in text:
        if octet == 0x0A and not out.endswith(b"\r"):
            out += b"\r"
        out.append(octet)
    if out and not out.endswith(b"\r\n"):
        out += b"\r\n"
    return bytes(out)


@given(nasty, cuts)
def test_normalizing_is_as_stated_however_it_is_cut(text: bytes, sizes: list[int]) -> None:
    content = CrlfNormalizer()
    got = b"".join(content.feed(piece) for piece in chopped(text, sizes)) + content.finish()
    assert got == normalized(text) == framing.normalized(text)


@given(nasty)
def test_normalizing_twice_changes_nothing(text: bytes) -> None:
    again = CrlfNormalizer()
    assert again.feed(normalized(text)) + again.finish() == normalized(text)


@given(nasty.map(normalized), cuts)
def test_stuffing_is_as_stated_however_it_is_cut(content: bytes, sizes: list[int]) -> None:
    stuffer = DotStuffer()
    got = b"".join(stuffer.feed(piece) for piece in chopped(content, sizes))
    lines = content.split(b"\r\n")
    assert got == b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines)
    assert got == framing.stuffed(content)
    assert stuffer.at_line_start
    assert b"\r\n.\r\n" not in b"\r\n" + got


@given(nasty.map(normalized), cuts, nasty)
def test_unstuffing_gives_content_and_rest_however_it_is_cut(content: bytes, sizes: list[int], rest: bytes) -> None:
    stuffer = DotStuffer()
    wire = stuffer.feed(content) + b".\r\n" + rest
    unstuffer, got, seen = DotUnstuffer(), b"", 0
    for piece in chopped(wire, sizes):
        seen += len(piece)
        got += unstuffer.feed(piece)
        if unstuffer.ended:
            break
    assert unstuffer.ended
    assert got == content
    assert unstuffer.rest == wire[len(wire) - len(rest) : seen]


@given(nasty, cuts)
def test_only_a_whole_terminator_ends(text: bytes, sizes: list[int]) -> None:
    unstuffer = DotUnstuffer()
    for piece in chopped(text, sizes):
        unstuffer.feed(piece)
        if unstuffer.ended:
            break
    assert unstuffer.ended == (b"\r\n.\r\n" in b"\r\n" + text)


def test_what_may_begin_a_terminator_is_all_that_is_held_back() -> None:
    unstuffer = DotUnstuffer()
    assert unstuffer.feed(b"x" * 100_000) == b"x" * 100_000
    assert unstuffer.feed(b"\r") == b""
    assert unstuffer.feed(b"y") == b"\ry"


def top(content: bytes, lines: int) -> bytes:
    kept, in_body = [], False
    for line in content.split(b"\r\n")[:-1]:
        if in_body and not lines:
            break
        lines -= in_body
        in_body = in_body or not line
        kept.append(line + b"\r\n")
    return b"".join(kept)


@given(nasty.map(normalized), cuts, st.integers(0, 5))
def test_top_is_as_stated_however_it_is_cut(content: bytes, sizes: list[int], lines: int) -> None:
    cutter, got = TopCutter(lines), b""
    for piece in chopped(content, sizes):
        got += cutter.feed(piece)
        if cutter.ended:
            break
    assert got == top(content, lines)


# --- lines ---


@given(st.lists(st.sampled_from([b"a", b"\n", b"\r\n", b"\r", b"bb", b"ccccc"])).map(b"".join), cuts)
def test_lines_are_the_same_however_they_come(data: bytes, sizes: list[int]) -> None:
    limit = 6
    lines = LineBuffer(1000)
    got = []
    for piece in chopped(data, sizes):
        lines.receive(piece)
        while (line := lines.next_line(limit)) is not None:
            got.append(line)
        assert len(lines) < limit
    wanted = [
        LineFault.TOO_LONG if len(line) + 1 > limit else line.removesuffix(b"\r") for line in data.split(b"\n")[:-1]
    ]
    assert got == wanted


def test_the_limit_counts_the_line_end() -> None:
    lines = LineBuffer(1000)
    lines.receive(b"x" * 253 + b"\r\n" + b"y" * 254 + b"\r\n" + b"z\r\n")
    assert lines.next_line(255) == b"x" * 253
    assert lines.next_line(255) is LineFault.TOO_LONG
    assert lines.next_line(255) == b"z"
    assert lines.next_line(255) is None


@pytest.mark.parametrize("size", [1, 100, 5000])
def test_a_line_without_end_is_given_up(size: int) -> None:
    lines = LineBuffer(1000)
    for _ in range(1000 // size + 2):
        lines.receive(b"x" * size)
        if lines.next_line(255) is LineFault.ENDLESS:
            return
        assert len(lines) < 255
    raise AssertionError("never given up")


def test_a_line_over_all_bounds_is_endless_also_when_it_ends() -> None:
    lines = LineBuffer(1000)
    lines.receive(b"x" * 1001 + b"\n")
    assert lines.next_line(255) is LineFault.ENDLESS


def test_take_rest_and_clear() -> None:
    lines = LineBuffer(1000)
    lines.receive(b"one\r\ntwo\r\nthr")
    assert lines.next_line(255) == b"one"
    assert len(lines) == 8
    assert lines.take_rest() == b"two\r\nthr"
    assert len(lines) == 0
    lines.receive(b"x\n")
    lines.clear()
    assert lines.next_line(255) is None


def test_nothing_is_nothing() -> None:
    assert CrlfNormalizer().feed(b"") == b""
    assert CrlfNormalizer().finish() == b""
    assert DotStuffer().feed(b"") == b""


@given(nasty)
def test_octets_are_counted_as_they_are_made(stored: bytes) -> None:
    text = CrlfNormalizer()
    assert normalized_octets(stored) == len(text.feed(stored)) + len(text.finish())


def test_the_bounds_of_a_line_that_has_ended_to_the_octet() -> None:
    for before in (b"", b"abc\n"):
        for octets, fault in ((10, None), (11, LineFault.TOO_LONG), (20, LineFault.TOO_LONG), (21, LineFault.ENDLESS)):
            lines = LineBuffer(20)
            lines.receive(before + b"x" * (octets - 1) + b"\n")
            if before:
                assert lines.next_line(10) == b"abc"
            line = lines.next_line(10)
            assert line == (fault or b"x" * 9)


def test_an_empty_line_ends_where_it_ends() -> None:
    lines = LineBuffer(20)
    lines.receive(b"\nabc\r")
    assert lines.next_line(10) == b""
    assert len(lines) == 4


def test_what_is_skipped_is_not_waiting() -> None:
    lines = LineBuffer(100)
    lines.receive(b"x" * 20)
    assert lines.next_line(10) is None
    assert len(lines) == 0
    assert not lines


def test_there_is_no_rest_before_the_end() -> None:
    assert DotUnstuffer().rest == b""
