"""A maildrop as the engine knows it: sizes, unique-ids, marks."""

import tracemalloc
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3core.errors import LocalProtocolError
from pop3core.maildrop import Listing, Marks, PackedOctets, is_unique_id


@given(st.lists(st.binary(max_size=10)))
def test_packed_octets_are_a_sequence(strings: list[bytes]) -> None:
    packed = PackedOctets(strings)
    assert list(packed) == strings
    assert len(packed) == len(strings)
    assert [packed[at] for at in range(len(strings))] == strings
    assert packed[1:3] == strings[1:3]
    assert list(PackedOctets.of(*packed.packed)) == strings
    if strings:
        assert packed[-1] == strings[-1]
    for beyond in (len(strings), -len(strings) - 1):
        with pytest.raises(IndexError):
            packed[beyond]


def test_a_million_messages_fit() -> None:
    tracemalloc.start()
    uids = PackedOctets(b"1700000000.M%06dP1234.mail.example.org" % number for number in range(100_000))
    listing = Listing(array("Q", bytes(8 * 100_000)), uids)
    marks = Marks(listing)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert marks.messages == 100_000
    assert peak < 100_000 * 100  # octets a message, its unique-id of 37 included


@pytest.mark.parametrize(
    ("uid", "good"),
    [(b"a", True), (b"!" * 70, True), (b"~", True), (b"", False), (b"a" * 71, False), (b"a b", False), (b"\x7f", False),
     (b"\xc3\xa4", False), (b"a\n", False)],
)  # fmt: skip
def test_unique_ids(uid: bytes, good: bool) -> None:
    assert is_unique_id(uid) is good


@given(st.lists(st.integers(0, 1000), max_size=20), st.lists(st.integers(-2, 22)))
def test_marks(sizes: list[int], numbers: list[int]) -> None:
    marks = Marks(Listing(sizes, [b"%d" % at for at in range(len(sizes))]))
    marked: set[int] = set()
    for number in numbers:
        assert marks.has(number) == (1 <= number <= len(sizes) and number not in marked)
        if marks.has(number):
            marks.mark(number)
            marked.add(number)
    left = [number for number in range(1, len(sizes) + 1) if number not in marked]
    assert marks.numbers() == tuple(sorted(marked))
    assert list(marks.present("abcdefghijklmnopqrstuvwxyz"[: len(sizes)])) == [
        (number, chr(0x60 + number)) for number in left
    ]
    assert marks.messages == len(left)
    assert marks.octets == sum(sizes[number - 1] for number in left)
    marks.reset()
    assert (marks.messages, marks.octets, marks.numbers()) == (len(sizes), sum(sizes), ())


def test_a_listing_has_as_many_uids_as_sizes() -> None:
    with pytest.raises(LocalProtocolError):
        Listing([1, 2], [b"a"])
    assert repr(Listing([5, 6], [b"a", b"b"])) == "<Listing of 2 messages, 11 octets>"
