"""Which messages are read together, and how one is given in pieces."""

from __future__ import annotations

import pytest

from pop3core.framing import CrlfNormalizer
from pop3d.stores.read_ahead import AHEAD_OCTETS, PIECE, Pieces, behind


@pytest.mark.parametrize(
    ("number", "sizes", "expected"),
    [
        (1, [10, 20, 30], [2, 3]),
        (2, [10, 20, 30], [3]),
        (3, [10, 20, 30], []),
        (1, [10, PIECE, PIECE + 1, 10], [2]),  # a large one is read by itself
        (1, [AHEAD_OCTETS // 4] * 9, [2, 3, 4]),
        (1, [AHEAD_OCTETS // 4 - 1, *[AHEAD_OCTETS // 4] * 3, 7, 7], [2, 3, 4, 5]),
        (1, [0] * 1000, list(range(2, 129))),
    ],
)
def test_messages_that_are_read_together(number: int, sizes: list[int], expected: list[int]) -> None:
    assert list(behind(number, sizes)) == expected


@pytest.mark.parametrize("known", [True, False])
def test_a_message_is_given_in_pieces(known: bool) -> None:
    source = b"a line\n" * 20_000
    pieces = Pieces(7, CrlfNormalizer(), len(source)) if known else Pieces(7, CrlfNormalizer())
    given, last, at = b"", False, 0
    while not last:
        if not pieces.waiting and not pieces.ended:
            pieces.take(source[at : at + 50_000])
            at += 50_000
        assert pieces.is_at(7, len(given))
        content = pieces.give()
        assert len(content.data) <= PIECE
        given, last = given + bytes(content.data), content.last
    assert given == source.replace(b"\n", b"\r\n")
    assert not pieces.is_at(7, 0)
