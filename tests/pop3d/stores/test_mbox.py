"""mbox: what is written as mboxrd is read back, and what other programs wrote."""

import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3d.stores import mbox

LINES = st.sampled_from(["From x", ">From x", ">>From x", "", "body", "Subject: y", " From z", "Content-Length: 7"])


def contents(text: bytes) -> list[bytes]:
    file = io.BytesIO(text)
    return [b"".join(message.content(file)) for message in mbox.messages(file)]


@given(st.lists(st.lists(LINES, min_size=1, max_size=6), max_size=5))
def test_what_is_written_as_mboxrd_is_read_back(texts: list[list[str]]) -> None:
    written = ""
    for lines in texts:
        quoted = [f">{line}" if line.lstrip(">").startswith("From ") else line for line in lines]
        written += "\n".join(["From alice@example.org Mon Nov 23 10:00:00 2026", *quoted]) + "\n\n"
    assert contents(written.encode()) == [("\n".join(lines) + "\n").encode() for lines in texts]


def test_mbox_of_long_lines_and_crlf() -> None:
    text = b"From a\r\nSubject: x\r\n\r\n" + b"y" * 200_000 + b"\r\n\r\nFrom b\r\n"
    assert contents(text) == [b"Subject: x\r\n\r\n" + b"y" * 200_000 + b"\r\n", b""]
    assert contents(b"From " + b"a" * 200_000 + b"\nSubject: x\n\ny\n") == [b"Subject: x\n\ny\n"]
    with pytest.raises(ValueError, match="From"):
        contents(b"Subject: x\n")
    assert contents(b"") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # nothing is quoted in a body whose length leads to the next message (mboxcl2)
        (
            b"From a\nContent-Length: 21\n\n1\n\nFrom x\n\n>From y\n2\n\nFrom b\n\nlast\n",
            [b"Content-Length: 21\n\n1\n\nFrom x\n\n>From y\n2\n", b"\nlast\n"],
        ),
        # but lines are where both stands (mboxcl)
        (b"From a\nContent-Length: 8\n\n>From y\n\nFrom b\n\n2\n", [b"Content-Length: 8\n\nFrom y\n", b"\n2\n"]),
        # one that leads elsewhere is not believed
        (b"From a\nContent-Length: 9\n\n1\n\nFrom b\n\n2\n", [b"Content-Length: 9\n\n1\n", b"\n2\n"]),
        (b"From a\nContent-Length: 999\n\n1\n\nFrom b\n\n2\n", [b"Content-Length: 999\n\n1\n", b"\n2\n"]),
        (b"From a\nContent-Length: 0\n\n\nFrom b\n\n2\n", [b"Content-Length: 0\n\n", b"\n2\n"]),
        (b"From a\nContent-Length: 2\n\n1\n", [b"Content-Length: 2\n\n1\n"]),
        (b"From a\nContent-Length: x\n\n1\n\n", [b"Content-Length: x\n\n1\n"]),
        (b"From a\r\nContent-Length: 3\r\n\r\n1\r\n\r\nFrom b\r\n", [b"Content-Length: 3\r\n\r\n1\r\n", b""]),
        # a header alone
        (b"From a\nTo: x\n\nFrom b\nTo: y\n", [b"To: x\n", b"To: y\n"]),
    ],
)
def test_the_length_that_a_server_says(text: bytes, expected: list[bytes]) -> None:
    assert contents(text) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"From a@b Fri Jan  2 10:13:52 1970 +0000", 123_232),
        (b"From a@b Fri Jan  2 10:13:52 UTC 1970", 123_232),
        (b"From a@b Fri Jan  2 10:13:52 +0100 1970", 119_632),
        (b'From "a Mon Jan  1 00:00:00 2001"@b  Fri Jan  2 10:13 1970 -0100\r', 126_780),
        (b"From a@b Fri Jan  2 10:13:52 1970", int(time.mktime((1970, 1, 2, 10, 13, 52, 0, 0, -1)))),
        (b"From a@b Fri Jan 32 10:13:52 1970", None),
        (b"From a@b", None),
    ],
)
def test_when_a_message_came(line: bytes, expected: int | None) -> None:
    (message,) = mbox.messages(io.BytesIO(line + b"\nTo: x\n"))
    assert message.arrived == expected


def test_a_message_is_known_again_when_a_server_has_written_its_fields_anew() -> None:
    first, second, third = (
        next(mbox.messages(io.BytesIO(text))).digest
        for text in (
            b"From a\nSubject: x\nStatus: RO\nX-Keywords: \n  a\nX-UIDL: 1\n\nbody\n",
            b"From a\nSubject: x\nStatus: O\nX-UID: 7\nContent-Length: 5\n\nbody\n\nFrom b\n\n",
            b"From a\nSubject: y\nStatus: O\n\nbody\n",
        )
    )
    assert first == second != third


def test_a_file_that_becomes_shorter_ends_no_message() -> None:
    file = io.BytesIO(b"From a\nSubject: x\n\nbody\n")
    (message,) = mbox.messages(file)
    file.truncate(20)
    with pytest.raises(EOFError):
        list(message.content(file))


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
