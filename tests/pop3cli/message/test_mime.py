"""The parts of a message and their parameters, as they are and as they should not be."""

from __future__ import annotations

import pytest

from pop3cli.message.mime import Parts, parameters


def leaves(content: bytes) -> list[tuple[str, bytes]]:
    return [(part.type, part.content) for part in Parts.of(content.replace(b"\n", b"\r\n")).leaves]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"Subject: x\n\nbody\n", [("text/plain", b"body\r\n")]),
        (b"\nbody", [("text/plain", b"body")]),
        (b"no header here\nbody", [("text/plain", b"no header here\r\nbody")]),
        (b"From bob Mon Jan  1\nA: b\n\nbody", [("text/plain", b"body")]),
        (b"A: b\nnot a field\nbody", [("text/plain", b"not a field\r\nbody")]),
        (b"Content-Type: multipart/mixed; boundary=B\n\nbefore\n--B\n\none\n--B\nContent-Type: text/html\n\ntwo\n"
         b"--B--\nbehind", [("text/plain", b"one"), ("text/html", b"two")]),
        (b'Content-Type: multipart/mixed; boundary="B C"\n\n--B C  \n\none\n--Bx\n--B C',
         [("text/plain", b"one\r\n--Bx"), ("text/plain", b"")]),
        # an outer boundary ends all that is within; a boundary that was closed is text
        (b"Content-Type: multipart/mixed; boundary=B\n\n--B\nContent-Type: multipart/mixed; boundary=C\n\n--C\n\none\n"
         b"--B\n\ntwo\n--C\n--B--", [("text/plain", b"one"), ("text/plain", b"two\r\n--C")]),
        (b"Content-Type: multipart/digest; boundary=B\n\n--B\n\nSubject: x\n\ny\n--B--",
         [("message/rfc822", b"Subject: x\r\n\r\ny")]),
        (b"Content-Type: multipart/mixed; boundary=B\n\nnothing", [("text/plain", b"nothing")]),
        (b"Content-Type: nonsense\n\nx", [("text/plain", b"x")]),
        (b"Content-Transfer-Encoding: BASE64 (so)\n\nQUJ\nD\nREU", [("text/plain", b"ABCDE")]),
        (b"Content-Transfer-Encoding: quoted-printable \n\n=41=\nB", [("text/plain", b"AB")]),
        (b"Content-Transfer-Encoding: x-uuencode\n\nbegin 644 x\n#04)#\n`\nend\n#04)#", [("text/plain", b"ABC")]),
        (b"Content-Transfer-Encoding: 8bit\n\n\xff", [("text/plain", b"\xff")]),
    ],
)  # fmt: skip
def test_the_parts_of_a_message(content: bytes, expected: list[tuple[str, bytes]]) -> None:
    assert leaves(content) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"text/plain; charset=utf-8; Format=flowed", {"charset": "utf-8", "format": "flowed"}),
        (b'a/b; x="a;b\\"c"; x=second', {"x": 'a;b"c'}),
        (b"a/b; name*=utf-8'de'%C3%A4.txt", {"name": "ä.txt"}),
        (b"a/b; name*0*=iso-8859-1''%E4; name*1=b; name*2*=%63", {"name": "äbc"}),
        (b'a/b; name="\xc3\xa4"', {"name": "ä"}),
        (b"a/b; x", {}),
        (b'a/b; x="open', {"x": "open"}),
        (b"a/b; x*y*z=1; =2", {}),
    ],
)
def test_parameters(value: bytes, expected: dict[str, str]) -> None:
    assert parameters(value) == expected
