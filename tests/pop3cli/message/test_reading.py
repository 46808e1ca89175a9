"""Reading a message: headers, the text to show, attachments by name; and mail that means harm."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3cli.message.reading import parse_headers, read_message, summarize

# --- mail that means harm ---

PART = b"--B\r\nContent-Type: text/plain\r\n\r\nx\r\n"
MIXED = b"Content-Type: multipart/mixed; boundary=B\r\n\r\n"


@pytest.mark.parametrize(
    "content",
    [
        b"a: b\r\n" * 1_000_000 + b"\r\ntext",
        MIXED + PART * 100_000,
        MIXED + b"--B\r\nContent-Type: message/rfc822\r\n\r\n" + b"a: b\r\n" * 500_000,
        b"Subject: x\r\n\r\n" + b"\n" * 3_000_000,
        b"".join(b"Content-Type: multipart/mixed; boundary=B%d\r\n\r\n--B%d\r\n" % (n, n) for n in range(3_000)),
        b"".join(b"Content-Type: multipart/mixed; boundary=B%d\r\n\r\n--B%d\r\n" % (n, n) for n in range(200))
        + b"x\r\n" * 900_000,
        b"Content-Type: text/plain; charset=punycode\r\n\r\n" + b"x-" + b"y" * 1_000_000,
        b"Content-Type: text/plain; charset=unicode_escape\r\n\r\n\\u001b",
        b"Content-Type: text/plain; charset=hex\r\n\r\n\x9b",
        b"Content-Type: multipart/mixed; boundary=" + b"x" * 100_000 + b"\r\n\r\n--" + b"x" * 100_000 + b"\r\n",
        b"Content-Type: message/rfc822\r\n\r\n" * 5_000,
        b"Content-Disposition: attachment; filename*0*=utf-8''%ff; filename*1*=%00" + b"; filename*9*=x" * 5_000
        + b"\r\n\r\n",
    ],
    ids=range(12),
)  # fmt: skip
def test_mail_that_means_harm(content: bytes) -> None:
    message = read_message(content)
    assert len(message.text) <= 4 * 1024 * 1024
    assert len(message.attachments) <= 5_000


def test_headers_without_end() -> None:
    assert len(parse_headers(b"a: b\r\n" * 1_000_000)) == 20_000
    assert parse_headers(b"a: " + b"x" * 100_000) == [("a", "x" * 4096)]


def test_summaries_are_decoded() -> None:
    seen = summarize(
        b"From: =?utf-8?q?J=C3=B6rg?= <j@example.org>\r\nSubject: =?utf-8?b?4pyT?= and\r\n more\r\n"
        b"Date: Tue, 2 Jan 2024 09:00:00 +0100\r\n\r\n"
    )
    assert (seen.sender, seen.subject) == ("Jörg <j@example.org>", "✓ and more")
    assert seen.date == datetime(2024, 1, 2, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    "headers",
    [
        b"",
        b"no header at all",
        b"From: \r\nSubject:\r\nDate: never\r\n\r\n",
        b"From: <<<>>>,@;:\r\nSubject: =?nix?q?x?= =?utf-8?b?!!!?=\r\nDate: Tue, 99 Jan 99999 99:99:99 +9999\r\n\r\n",
        b"From: \xff\xfe <\xff@\xff>\r\nSubject: \xe2\x9c\x93 raw utf-8\r\nDate: \xff\r\n\r\n",
        b"Content-Type: multipart/mixed; boundary=\r\nFrom: a@[\r\nTo: (((((\r\n\r\n",
        b"From: " + b"(" * 5000 + b"\r\nSubject: " + b"=?utf-8?q?=FF?= " * 5000 + b"\r\n\r\n",
        b"Date: Tue, 2 Jan 0001 09:00:00 +2359\r\n\r\n",
    ],
)
def test_broken_headers_crash_nothing(headers: bytes) -> None:
    summarize(headers)
    parse_headers(headers)
    read_message(headers)


@given(st.binary(max_size=300))
def test_no_headers_crash_anything(tail: bytes) -> None:
    for name in (b"From", b"Subject", b"Date", b"Content-Type", b"Content-Disposition"):
        summarize(name + b": " + tail)
        read_message(name + b": " + tail + b"\r\n\r\n" + tail)


def test_eight_bit_subjects_are_read_as_utf8() -> None:
    assert summarize("Subject: ✓ raw\r\n\r\n".encode()).subject == "✓ raw"


MULTIPART = (
    b"Subject: s\r\nFrom: f@x\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\n"
    b"Content-Type: multipart/alternative; boundary=C\r\n\r\n--C\r\nContent-Type: text/html\r\n\r\n<p>html</p>\r\n"
    b"--C\r\nContent-Type: text/plain; charset=latin-1\r\n\r\nplain \xf6\r\n--C--\r\n"
    b'--B\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename="=?utf-8?q?=C3=B6.pdf?="\r\n'
    b"Content-Transfer-Encoding: base64\r\n\r\nQUJD\r\n"
    b"--B\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nx\r\n"
    b"--B--\r\n"
)


def test_the_plain_text_is_shown_and_attachments_listed() -> None:
    message = read_message(MULTIPART)
    assert message.headers == (("From", "f@x"), ("Subject", "s"))
    assert message.text.strip() == "plain ö"
    assert [(a.name, a.type) for a in message.attachments] == [("ö.pdf", "application/pdf"), ("", "message/rfc822")]
    assert message.attachments[0].octets == 3


@pytest.mark.parametrize("charset", ["no-such-charset", "base64", "idna", "rot13", "utf-8; x", "\x00"])
def test_any_charset_is_survived(charset: str) -> None:
    content = f'Content-Type: text/plain; charset="{charset}"\r\n\r\nabc\r\n'.encode()
    assert "abc" in read_message(content).text


def test_parts_within_parts_without_end() -> None:
    deep = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(3000))
    read_message(deep)


def test_a_multipart_without_parts_is_text() -> None:
    content = b"Content-Type: multipart/mixed; boundary=B\r\n\r\nno boundary here\r\n"
    assert "no boundary here" in read_message(content).text


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
