"""Mail that costs much where each octet is looked at more than a fixed number of times.

Each form is made large, and read within a time that no quadratic reader comes near (a hundred times what is measured on
one core); for smaller ones the work is counted: calls of Python functions grow as the message does.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from pop3cli.errors import TooLarge
from pop3cli.mailbox.client import _parsed
from pop3cli.message.html import html_to_text
from pop3cli.message.mime import Parts, parameters
from pop3cli.message.reading import parse_headers, read_message, summarize
from pop3cli.message.statistics import Statistics
from pop3cli.sanitize import harmless_lines
from pop3core.client import ClientConnection
from pop3core.events import Greeted

SECONDS = 15.0  # of CPU; the slowest takes a third of one, and a quadratic one minutes
SMALL, LARGE = 32 * 1024, 1024 * 1024

PAGES: dict[str, Callable[[int], str]] = {
    "comments": lambda n: "<!--" * (n // 4),
    "comments that end": lambda n: "<!--x-->" * (n // 8),
    "declarations": lambda n: "<!x" * (n // 3),
    "brackets": lambda n: "<" * n,
    "attributes": lambda n: "<a " + " ".join(f"a{i}=1" for i in range(n // 9)) + ">x",
    "one attribute": lambda n: "<a " + "x" * n + ">y",
    "open quotes": lambda n: '<a href="' * (n // 9),
    "quotes of both kinds": lambda n: "<a href='x\" " * (n // 12),
    "instructions": lambda n: "<?" * (n // 2),
    "references": lambda n: "&" * n,
    "a reference to a large number": lambda n: "&#" + "1" * n,
    "references to large numbers": lambda n: "&#99999999;" * (n // 11),
    "sections": lambda n: "<![CDATA[" * (n // 9),
    "scripts": lambda n: "<script>" * (n // 8),
    "scripts that end": lambda n: "<script></script>" * (n // 17),
    "text areas": lambda n: "<textarea></" * (n // 12),
    "links": lambda n: "<a href=x>y" * (n // 11),
    "a long link": lambda n: "<a href='" + "x" * n + "'>y</a>",
    "encoded hosts": lambda n: f"<a href='http://%{'41' * 200}'>y</a>" * (n // 430),
    "elements within elements": lambda n: "<div>" * (n // 5),
    "ends of others": lambda n: "<b></i>" * (n // 7),
    "many open, many ends": lambda n: "<b>" * (n // 8) + "</i>" * (n // 8),
    "tables within tables": lambda n: "<table><tr><td>x" * (n // 16),
    "blanks in a tag": lambda n: "<a" + " " * n,
    "equal signs": lambda n: "<a " + "=" * n,
    "items": lambda n: "<li>x" * (n // 5),
    "hidden ones": lambda n: "<p style='display:none'>x" * (n // 25),
    "lines": lambda n: "<pre>" + "\n" * n,
    "a base": lambda n: "<base href='http://x'>" + "<a href=y>z</a>" * (n // 15),
}

MIXED = b"Content-Type: multipart/mixed; boundary=B\r\n\r\n"
HTML = b"Content-Type: text/html\r\n\r\n"


def levels(n: int) -> Iterator[bytes]:
    return (b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (i, i) for i in range(n))


MAIL: dict[str, Callable[[int], bytes]] = {
    "semicolons": lambda n: b"Content-Type: text/plain" + b";" * n + b"\r\n\r\nx",
    "semicolons in an address": lambda n: b"From: " + b";" * n + b"\r\n\r\nx",
    "parentheses": lambda n: b"From: " + b"(" * n + b"\r\n\r\nx",
    "encoded words that begin": lambda n: b"Subject: " + b"=?utf-8?q?" * (n // 10) + b"\r\n\r\nx",
    "encoded words": lambda n: b"Subject: " + b"=?utf-8?q?a?= " * (n // 14) + b"\r\n\r\nx",
    "a date of numbers": lambda n: b"Date: " + b"1 " * (n // 2) + b"\r\n\r\nx",
    "ten thousand levels": lambda n: b"".join(levels(n // 60)),
    "fifty levels and no end": lambda n: b"".join(levels(49)) + b"--x\r\n" * (n // 5),
    "parts": lambda n: MIXED + b"--B\r\n\r\n" * (n // 7),
    "multiparts without parts": lambda n: MIXED + b"--B\nContent-Type: multipart/x; boundary=C\n\n--C--\n" * (n // 54),
    "multiparts of one boundary": lambda n: (MIXED + b"--B\r\n") * (n // 50),
    "dashes": lambda n: MIXED + b"--\n" * (n // 3),
    "lines that begin like a boundary": lambda n: MIXED + b"\n--Bx" * (n // 6),
    "empty lines": lambda n: b"\n" * n,
    "fields": lambda n: b"a: b\r\n" * (n // 6),
    "a field of many lines": lambda n: b"Subject: x\r\n" + b" y\r\n" * (n // 4),
    "a field of one line": lambda n: b"Subject: " + b"y" * n,
    "no base64": lambda n: b"Content-Transfer-Encoding: base64\r\n\r\n" + b"!" * n + b"QQQQQ",
    "quoted nothing": lambda n: b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b"=" * n,
    "quoted blanks": lambda n: b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b" " * n,
    "uuencoded nothing": lambda n: b"Content-Transfer-Encoding: uuencode\r\n\r\n" + b"M\n" * (n // 2),
    "pieces of a name": lambda n: b"Content-Disposition: x"
    + b"".join(b"; filename*%d*=%%41" % i for i in range(n // 20)) + b"\r\n\r\nx",
    "blanks about a parameter": lambda n: b"Content-Type: a/b;" + b" " * n + b"b" + b" " * n + b"\r\n\r\nx",
    "a parameter of quoted pairs": lambda n: b'Content-Type: a/b; a="' + b"\\" * n + b"\r\n\r\n",
    "messages within messages": lambda n: b"Content-Type: message/rfc822\r\n\r\n" * (n // 32),
    "utf-7": lambda n: b"Content-Type: text/plain; charset=utf-7\r\n\r\n" + b"+AGE-" * (n // 5),
    "comments in HTML": lambda n: HTML + b"<!--" * (n // 4),
    "attributes in HTML": lambda n: HTML + b"<a " + b" ".join(b"a%d=1" % i for i in range(n // 9)),
}  # fmt: skip


def calls_of(work: Callable[[], object]) -> int:
    """How many Python functions and library functions were called: the same on a busy machine."""
    count = 0

    def seen(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def seconds_of(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


@pytest.mark.parametrize("name", PAGES)
def test_a_page_takes_time_as_it_is_long(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert seconds_of(lambda: html_to_text(PAGES[name](LARGE))) < SECONDS
    monkeypatch.setitem(sys.modules, "inscriptis.html_engine", None)  # whose calls are its own
    small, twice = PAGES[name](SMALL), PAGES[name](2 * SMALL)
    assert calls_of(lambda: html_to_text(twice)) < 2.5 * calls_of(lambda: html_to_text(small)) + 1000


@pytest.mark.parametrize("name", MAIL)
def test_a_message_takes_time_as_it_is_long(name: str) -> None:
    def read(content: bytes) -> None:
        message = read_message(content)
        harmless_lines(message.text)
        parse_headers(content)
        Statistics().add(1, 1, summarize(content))

    large = MAIL[name](LARGE)
    assert seconds_of(lambda: read(large)) < SECONDS
    small, twice = MAIL[name](SMALL), MAIL[name](2 * SMALL)
    assert calls_of(lambda: read(twice)) < 2.5 * calls_of(lambda: read(small)) + 1000


@pytest.mark.parametrize("name", ["parts", "fields", "empty lines", "no base64", "fifty levels and no end"])
def test_a_message_takes_eight_times_its_size_at_most(name: str) -> None:
    content = MAIL[name](LARGE)
    tracemalloc.start()
    try:
        read_message(content)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 7 * len(content)  # the message itself is the eighth


def test_a_program_that_reads_headers_of_strangers_gets_no_error_but_ours() -> None:
    for value in ("(" * 4000, "<@>", '"x" <', "=?utf-8?q?=0A?= <eve@example.com>", ";" * 300_000):
        for name in ("From", "To", "Message-ID", "Date", "Content-Type", "Content-Disposition", "Subject"):
            message = _parsed(f"{name}: {value}\nX: y\n\nx\n".encode())
            assert str(message[name]) is not None
            assert message["X"] == "y"
    for content in (MIXED + b"--B\r\n\r\n" * 10_000, b"".join(levels(1000)), b"a: b\r\n" * 30_000):
        with pytest.raises(TooLarge, match="more parts or header fields"):
            _parsed(content)


def test_a_greeting_of_signs() -> None:
    for text in (b"<" + b"@" * 8000, b"<@" * 4000, b"<a@" + b"b@" * 3000):
        client = ClientConnection()
        client.receive_data(b"+OK " + text + b"\r\n")
        assert calls_of(client.next_event) < 100
        client = ClientConnection()
        client.receive_data(b"+OK " + text + b" <a@b@c>\r\n")
        greeted = client.next_event()
        assert isinstance(greeted, Greeted)
        assert greeted.timestamp == "<a@b@c>"


# --- what is read all the same ---


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


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("=?utf-8?q?B=C3=A4r?=", "Bär"),
        ("Re: =?iso-8859-1?q?caf=E9?= and more", "Re: café and more"),
        ("=?utf-8?b?w6Q=?= =?utf-8?q?_b?=", "ä b"),
        ("=?utf-8?b?ww==?= =?utf-8?b?pA==?=", "ä"),  # a character in two words
        ("=?utf-8?b?w6Q?=", "ä"),
        ("=?utf-8*de?Q?B=C3=A4r?=", "Bär"),
        ("=?nonsense?q?a?=", "a"),
        ("=?utf-8?q?a?=b", "ab"),
        ("=?utf-8?x?a?=", "=?utf-8?x?a?="),
        ("=?utf-8?q?one=0D=0ABcc:_two?=", "one Bcc: two"),
    ],
)
def test_encoded_words(subject: str, expected: str) -> None:
    assert summarize(f"Subject: {subject}\r\n\r\n".encode()).subject == expected


@pytest.mark.parametrize(
    ("sender", "counted"),
    [
        ("Bob <Bob@Example.org>", "bob@example.org"),
        ('"x <y>" <bob@example.org>', "bob@example.org"),
        ("bob@example.org (Bob)", "bob@example.org"),
        ("undisclosed", "undisclosed"),
        ("", "(no sender)"),
    ],
)
def test_who_has_sent(sender: str, counted: str) -> None:
    found = Statistics()
    found.add(1, 1, summarize(f"From: {sender}\r\n\r\n".encode()))
    assert list(found.senders) == [counted]
