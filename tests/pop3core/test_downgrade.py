"""Surrogates of internationalized messages: what is kept, what is lost, and that cuts never show."""

from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3core import downgrade
from pop3core.downgrade import Downgrader
from pop3core.framing import CrlfNormalizer

INVALID = "<invalid@internationalized-address.invalid>"


def surrogate(stored: bytes, *sizes: int) -> bytes:
    """What is sent for ``stored``, fed in pieces of these sizes, over and over."""
    downgrader, sent, at, turn = Downgrader(), b"", 0, 0
    sizes = sizes or (len(stored) or 1,)
    while at < len(stored):
        sent += downgrader.feed(stored[at : at + sizes[turn % len(sizes)]])
        at, turn = at + sizes[turn % len(sizes)], turn + 1
    return sent + downgrader.finish()


def normalized(stored: bytes) -> bytes:
    text = CrlfNormalizer()
    return text.feed(stored) + text.finish()


def read(stored: str) -> EmailMessage:
    """The surrogate as a mail program reads it, which is ASCII in all header fields."""
    sent = surrogate(stored.encode())
    assert sent.partition(b"\r\n\r\n")[0].isascii()
    assert all(len(line) <= 998 for line in sent.split(b"\r\n"))
    message = message_from_bytes(sent, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"\n",
        b"x",
        b"Subject: one\n\nbody \xc3\xa9 stays\n",
        b"Subject: one\n folded\n\tagain\n\n\xff\xfe\n.\n",
        b"no header at all",
        b"\n\nbody",
        b" begins with a blank\nTo: a@b\n\n",
        b"Content-Type: multipart/mixed; boundary=x\n\n--x\nA: b\n\nc\n--x--\n",
        b"Content-Type: multipart/mixed; boundary=x\n\n--y\nA: \xc3\xa9\n\nc\n--" + b"x" * 300 + b"\n",
    ],
)
def test_what_is_ascii_in_its_headers_is_sent_as_stored(stored: bytes) -> None:
    assert surrogate(stored) == normalized(stored)


def test_addresses() -> None:
    message = read(
        'From: "José, the \\"one\\"" <jose@example.com>\n'
        "To: plain@example.com, 用户 <用户@例子.广告>, é@example.com,\n zoe@example.com\n"
        "Return-Path: <é@example.com>\n"
        "Cc: Größe: a@example.com, b@example.com;\n"
        "\n"
    )
    assert message["From"].addresses[0].addr_spec == "jose@example.com"
    assert message["From"].addresses[0].display_name == 'José, the "one"'
    to = message["To"].addresses
    assert [address.addr_spec for address in to] == [
        "plain@example.com", INVALID[1:-1], INVALID[1:-1], "zoe@example.com",
    ]  # fmt: skip
    assert to[1].display_name == "用户 <用户@例子.广告>"
    assert to[2].display_name == "é@example.com"
    assert message["Return-Path"] == INVALID
    assert message["Cc"].addresses[0].addr_spec == INVALID[1:-1]
    assert message["Cc"].addresses[0].display_name == "Größe: a@example.com, b@example.com;"


def test_unstructured_fields_are_encoded_words() -> None:
    subject = "Grüße aus 日本語 " + "ü" * 200
    message = read(f"SUBJECT: {subject}\nComments: \n é\nX-Other: é\nMessage-ID: <é@x>\nReceived: é\nkept: 1\n\n")
    assert message["subject"] == subject
    assert message["comments"] == "é"
    assert message.keys() == ["SUBJECT", "Comments", "kept"]


def test_parameters_keep_names_of_attachments() -> None:
    message = read(
        'Content-Type: text/plain; charset=utf-8; name="Übung \\"1\\"; x.txt"; x=1\n'
        'Content-Disposition: attachment; é=1; filename=Übung.txt; a*=é; b c="é"; long="' + "é" * 300 + '"\n\n'
    )
    assert message["Content-Type"].params["name"] == 'Übung "1"; x.txt'
    assert message["Content-Type"].params["charset"] == "utf-8"
    assert message["Content-Type"].params["x"] == "1"
    assert message.get_filename() == "Übung.txt"
    assert set(message["Content-Disposition"].params) == {"filename"}
    assert "Content-Type" not in read("Content-Type: téxt/plain; a=b\n\n")


def test_what_is_no_field_and_not_ascii_is_left_out() -> None:
    assert surrogate("é: x\nno colon é\nTo: a@b\n\né\n".encode()) == "To: a@b\r\n\r\né\r\n".encode()


def test_what_is_not_utf8_is_taken_for_latin_1() -> None:
    message = message_from_bytes(surrogate(b"Subject: Gr\xfc\xdfe\n\n"), policy=policy.default)
    assert message["Subject"] == "Grüße"


def test_header_fields_of_body_parts() -> None:
    stored = (
        'Content-Type: multipart/mixed; boundary="a \\"b"\nSubject: x\n\npreamble\n'
        '--a "b\nContent-Disposition: attachment; filename=é\n\nX-Not: é\n'
        '--a "b \nContent-Type: multipart/alternative;\n boundary=c\n\n'
        "--c\nContent-Description: é\n\nSubject: é\n--c--\n"
        '--a "b\nContent-Type: message/rfc822\n\nSubject: é\nContent-Type: text/plain\n\nSubject: é\n'
        '--a "b--\nSubject: é\n'
    )
    expected = (
        'Content-Type: multipart/mixed; boundary="a \\"b"\nSubject: x\n\npreamble\n'
        "--a \"b\nContent-Disposition: attachment;\n filename*=utf-8''%C3%A9\n\nX-Not: é\n"
        '--a "b \nContent-Type: multipart/alternative;\n boundary=c\n\n'
        "--c\nContent-Description: =?utf-8?b?w6k=?=\n\nSubject: é\n--c--\n"
        '--a "b\nContent-Type: message/rfc822\n\nSubject: =?utf-8?b?w6k=?=\nContent-Type: text/plain\n\nSubject: é\n'
        '--a "b--\nSubject: é\n'
    )
    assert surrogate(stored.encode()) == expected.replace("\n", "\r\n").encode()


def test_a_field_over_the_limit_is_sent_with_question_marks() -> None:
    limit = downgrade._FIELD_OCTETS_MAX
    for octets in (limit - 20, limit, limit + 1, 3 * limit):
        stored = b"Subject: " + b"\xff" * octets + b"\nTo: \xff\n\n\xff\n"
        sent = surrogate(stored)
        assert sent == surrogate(stored, 1000) == surrogate(stored, 65536, 1, 7)
        field, rest = sent.split(b"To: ", 1)
        assert field.isascii()
        assert (b"?????" in field) == (len(b"Subject: \r\n") + octets > limit)
        assert rest.endswith(b"\r\n\r\n\xff\r\n")


def test_at_most_a_hundred_multiparts_are_followed() -> None:
    stored = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(150))
    stored += b"Subject: \xc3\xa9\n\n"
    assert surrogate(stored).endswith(b"\xc3\xa9\r\n\r\n")
    assert surrogate(stored, 1) == surrogate(stored)


LINES = st.sampled_from(
    [
        "Subject: é", " é folded", "To: é <é@x>, b <b@x>", "To: a@x", "Content-Type: multipart/mixed; boundary=b",
        "Content-Type: message/rfc822", "", "--b", "--b--", "--c", "-", "--", "é", "body", "Received: é", "\r", "\rx",
    ]
)  # fmt: skip


@given(
    st.lists(st.tuples(LINES, st.sampled_from(["\n", "\r\n", ""])), max_size=40),
    st.lists(st.integers(1, 30), min_size=1),
)
def test_cuts_never_show(lines: list[tuple[str, str]], sizes: list[int]) -> None:
    stored = "".join(line + end for line, end in lines).encode()
    whole = surrogate(stored)
    assert surrogate(stored, *sizes) == whole
    assert surrogate(stored, 1) == whole
    assert whole == b"" or whole.endswith(b"\r\n")
    assert whole.count(b"\n") == whole.count(b"\r\n")
    assert whole.partition(b"\r\n\r\n")[0].isascii() or whole.startswith(b"\r\n")


@given(st.binary(max_size=300), st.lists(st.integers(1, 30), min_size=1))
def test_any_octets(stored: bytes, sizes: list[int]) -> None:
    sent = surrogate(stored, *sizes)
    assert sent == surrogate(stored)
    if stored.isascii():
        assert sent == normalized(stored)
    assert surrogate(sent) == sent
