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
