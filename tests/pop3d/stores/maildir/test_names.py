"""Names of files: the unique part, and their order."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3d.stores.maildir.names import sorted_in_slices, unique_part


@pytest.mark.parametrize(
    ("name", "unique"),
    [
        (b"cur/1.M2P3.host:2,S", b"1.M2P3.host"),
        (b"new/1.M2P3.host", b"1.M2P3.host"),
        (b"cur/1.host,S=12,W=14:2,", b"1.host"),
        (b"cur/:2,S", b":2,S"),
    ],
)
def test_unique_part(name: bytes, unique: bytes) -> None:
    assert unique_part(name) == unique


@given(
    st.lists(st.sampled_from([b"cur/1", b"cur/2", b"new/1", b"new/0", b"cur/" + b"x" * 250])),
    st.integers(0, 9_000),
    st.randoms(use_true_random=False),
)
def test_names_are_sorted_in_slices_as_at_once(some: list[bytes], more: int, chance: Random) -> None:
    names = some + [b"cur/%d" % chance.randrange(10**9) for _ in range(more)]
    assert sorted_in_slices(names) == sorted(names)
