"""mbox: what is written as mboxrd is read back, and what other programs wrote."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3d.stores import mbox

LINES = st.sampled_from(["From x", ">From x", ">>From x", "", "body", "Subject: y", " From z"])


@given(st.lists(st.lists(LINES, min_size=1, max_size=6), max_size=5))
def test_what_is_written_as_mboxrd_is_read_back(texts: list[list[str]]) -> None:
    written = ""
    for lines in texts:
        quoted = [f">{line}" if line.lstrip(">").startswith("From ") else line for line in lines]
        written += "\n".join(["From alice@example.org Mon Nov 23 10:00:00 2026", *quoted]) + "\n\n"
    got = [b"".join(message).decode() for message in mbox.messages(io.BytesIO(written.encode()))]
    assert got == ["\n".join(lines) + "\n" for lines in texts]


def test_mbox_of_long_lines_and_crlf() -> None:
    text = b"From a\r\nSubject: x\r\n\r\n" + b"y" * 200_000 + b"\r\n\r\nFrom b\r\n"
    assert [b"".join(message) for message in mbox.messages(io.BytesIO(text))] == [
        b"Subject: x\r\n\r\n" + b"y" * 200_000 + b"\r\n",
        b"",
    ]
    with pytest.raises(ValueError, match="From"):
        list(mbox.messages(io.BytesIO(b"Subject: x\n")))
    assert list(mbox.messages(io.BytesIO(b""))) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"From a b\nSubject: x\n\nbody\n", b"Subject: x\n\nbody\n"),
        (b"From: a\n\nFrom b\n", b"From: a\n\nFrom b\n"),
        (b"From " + b"x" * 200_000 + b"\nTo: y\n", b"To: y\n"),
        (b"From a", b""),
        (b"", b""),
    ],
)
def test_the_from_line_of_an_mta_is_dropped(text: bytes, expected: bytes) -> None:
    assert b"".join(mbox.without_from_line(io.BytesIO(text))) == expected
