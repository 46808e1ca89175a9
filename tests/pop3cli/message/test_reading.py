"""Reading a message: headers, the text to show, attachments by name; and mail that means harm."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import sys
import termios
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3cli.commands.stats import bar
from pop3cli.message.attachments import ATTACHMENTS_MAX, safe_name
from pop3cli.message.html import html_to_text
from pop3cli.message.reading import Summary, parse_headers, read_message, summarize
from pop3cli.message.statistics import Statistics
from tests.pop3cli.conftest import Cli, Mailbox, Screen, Serve, spawn

# --- HTML ---


@pytest.fixture(params=["inscriptis", "plain"])
def html_reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The library of the extra, and what there is without it."""
    if request.param == "plain":
        monkeypatch.setitem(sys.modules, "inscriptis.html_engine", None)
    else:
        pytest.importorskip("inscriptis", reason="pip install 'pop3core[html]'")
    return str(request.param)


def test_html_alone_is_shown_as_text(html_reader: str) -> None:
    message = read_message(
        b"Content-Type: text/html\r\n\r\n<style>x{}</style><p>Hello&nbsp;<b>you</b></p><ul><li>one</ul>"
        b"<p style='display: none'>hidden</p><script>alert(1)</script>"
    )
    lines = [line for line in message.text.split("\n") if line]
    assert lines[0] == "Hello you"
    assert lines[1] == ("  * one" if html_reader == "inscriptis" else "- one")
    assert "hidden" not in message.text
    assert "alert" not in message.text
    assert message.attachments == ()


@pytest.mark.usefixtures("html_reader")
def test_html_shows_where_links_lead() -> None:
    assert html_to_text('<a href="https://evil.example/">your bank</a>') == "your bank <https://evil.example/>\n"
    assert html_to_text('<a href="https://a.example/">https://a.example/</a>') == "https://a.example/\n"
    assert html_to_text('<a href="https://e.example/">https://a.example/</a>.').endswith(" <https://e.example/>.\n")


def test_tables_stand_in_columns() -> None:
    pytest.importorskip("inscriptis", reason="pip install 'pop3core[html]'")
    rows = "<tr><td>a</td><td>1</td></tr><tr><td>long</td><td>2</td></tr>"
    assert html_to_text(f"<table>{rows}</table>").splitlines() == ["a     1", "long  2"]


@pytest.mark.parametrize(
    "html",
    [
        "<div>" * 200_000 + "x",
        "<table><tr><td>" * 5_000 + "x",
        "<table>" + "<tr><td>" + "y" * 500_000 + "</td></tr>" + "<tr><td>x</td></tr>" * 50_000 + "</table>",
        "<div style='padding-left:99999999em'>x</div>" * 1_000,
        "<ul>" * 250 + "<li>x" * 50_000,
        "<a href='https://a.example'>" * 20_000 + "x",
        "&#0;&#x1b;\x00<p>\ud800x",
        "<!--" * 1000 + "x",
        "x",
    ],
    ids=range(9),
)
@pytest.mark.usefixtures("html_reader")
def test_html_that_means_harm(html: str) -> None:
    assert len(html_to_text(html)) < 3_000_000


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


# --- attachments ---


def with_attachments(*names: str | None) -> bytes:
    message = EmailMessage()
    message["Subject"] = "files"
    message.set_content("see there\n")
    for number, name in enumerate(names):
        message.add_attachment(b"%d" % number, maintype="application", subtype="octet-stream", filename=name)
    return message.as_bytes().replace(b"\n", b"\r\n")


@pytest.mark.parametrize(
    ("wish", "name"),
    [
        ("a.pdf", "a.pdf"),
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("C:\\Windows\\a.exe", "a.exe"),
        (".bashrc", "bashrc"),
        ("...", ""),
        ("", ""),
        ("a\x1b[2J\n.txt", "a_[2J_.txt"),
        ("exe.\u202egpj", "exe.gpj"),
        ("x" * 300 + ".pdf", "x" * 116 + ".pdf"),
        ("é" * 300, "é" * 60),
        ("a." + "b" * 200, "a." + "b" * 118),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("a?b*.txt", "a_b_.txt"),
        ("a.txt/", ""),
    ],
)
def test_safe_names(wish: str, name: str) -> None:
    assert safe_name(wish) == name


@given(st.text())
def test_every_name_is_safe(wish: str) -> None:
    name = safe_name(wish)
    assert len(name.encode()) <= 121
    assert not name.startswith((".", " "))
    assert not set(name) & set("/\\\0\n\r\x1b")


def test_attachments_are_saved(pop3cli: Cli, serve: Serve, tmp_path: Path) -> None:
    names = ("a.pdf", "a.pdf", "../b.txt", None)
    server = serve(Mailbox([with_attachments(*names)]))
    folder = tmp_path / "new"
    common = (server.account(), 1, "--cacert", server.certificate, "--save-attachments", folder)
    ran = pop3cli("show", *common)
    assert ran.status == 0
    expected = {"a.pdf": b"0", "a-2.pdf": b"1", "b.txt": b"2", "attachment-4.bin": b"3"}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected
    assert f"Attached: a.pdf application/octet-stream, 1 B saved as {folder}/a.pdf" in ran.out.decode()
    again = json.loads(pop3cli("show", *common, "--json").out)
    assert again["attachments"][0]["file"] == f"{folder}/a-3.pdf"
    assert (folder / "a.pdf").read_bytes() == b"0"


def test_a_link_is_not_followed(pop3cli: Cli, serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").symlink_to(tmp_path / "elsewhere")
    server = serve(Mailbox([with_attachments("a.pdf")]))
    arguments = ("show", server.account(), 1, "--cacert", server.certificate, "--save-attachments", tmp_path)
    assert pop3cli(*arguments).status == 0
    assert not (tmp_path / "elsewhere").exists()
    assert (tmp_path / "a-2.pdf").read_bytes() == b"0"


def test_attachments_without_end(pop3cli: Cli, serve: Serve, tmp_path: Path) -> None:
    server = serve(Mailbox([with_attachments(*["x"] * (ATTACHMENTS_MAX + 1))]))
    common = (server.account(), 1, "--cacert", server.certificate, "--save-attachments", tmp_path / "x")
    ran = pop3cli("show", *common)
    assert (ran.status, ran.err) == (1, "the first 100 of 101 attachments were saved, and no more\n")
    assert len(list((tmp_path / "x").iterdir())) == ATTACHMENTS_MAX


def test_attachments_that_cannot_be_saved(pop3cli: Cli, serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    server = serve(Mailbox([with_attachments("x")]))
    common = (server.account(), 1, "--cacert", server.certificate)
    ran = pop3cli("show", *common, "--save-attachments", tmp_path / "file")
    assert (ran.status, "cannot write: Not a directory" in ran.err) == (74, True)
    assert pop3cli("show", *common, "--save-attachments", tmp_path, "--raw").status == 2


# --- lists ---


def many(count: int) -> list[bytes]:
    return [
        b"From: P%d <p%d@example.org>\r\nSubject: %s %d\r\nDate: Tue, 2 Jan 20%02d 09:00:00 +0000\r\n\r\nx\r\n"
        % (n % 3, n % 3, "漢字".encode(), n, 10 + n % 2)
        for n in range(1, count + 1)
    ]


def test_the_last_messages(pop3cli: Cli, serve: Serve) -> None:
    server = serve(Mailbox(many(7)))
    common = (server.account(), "--cacert", server.certificate)
    ran = pop3cli("list", *common, "--last", 2)
    assert [line.split()[0] for line in ran.out.decode().splitlines()] == ["No", "6", "7"]
    assert ran.err == "the last 2 of 7 messages; --all shows all\n"
    assert len(json.loads(pop3cli("list", *common, "--json").out)) == 7
    assert pop3cli("list", *common, "--all", "--last", 2).status == 2


@pytest.mark.parametrize("columns", [100, 60, 40])
def test_a_terminal_shows_the_last_and_no_line_is_broken(serve: Serve, columns: int) -> None:
    server = serve(Mailbox(many(205)))
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    arguments = ("list", server.account(), "--no-color", "--cacert", server.certificate)
    process = spawn(*arguments, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    screen = Screen(master)
    assert process.wait(20) == 0
    screen.until(b" 205 ")
    lines = screen.seen.decode().splitlines()
    assert "the last 200 of 205 messages; --all shows all" in lines
    assert sum(" 漢字" in line for line in lines) == 200
    assert all(len(line) + line.count("漢") + line.count("字") <= columns for line in lines if "漢" in line)


# --- what fills the mailbox ---


def test_stats(pop3cli: Cli, serve: Serve) -> None:
    messages = [*many(7), b"Subject: \x1b[2J\r\n\r\n" + b"x\r\n" * 10_000]
    server = serve(Mailbox(messages))
    common = (server.account(), "--cacert", server.certificate)
    found = json.loads(pop3cli("stats", *common, "--json").out)
    assert (found["messages"], found["octets"]) == (8, sum(map(len, messages)))
    counted = {one["sender"]: one["messages"] for one in found["senders"]}
    assert counted == {"(no sender)": 1, "p0@example.org": 2, "p1@example.org": 3, "p2@example.org": 2}
    assert {one["month"]: one["messages"] for one in found["months"]} == {"(no date)": 1, "2010-01": 3, "2011-01": 4}
    assert [one["messages"] for one in found["sizes"]] == [7, 1, 0, 0, 0]
    assert found["largest"][0]["number"] == 8
    ran = pop3cli("stats", *common, "--top", 1)
    assert ran.status == 0
    assert b"\x1b" not in ran.out
    text = ran.out.decode()
    assert text.startswith("8 messages, 29.9 KiB, 3.7 KiB on average\n\nSenders")
    assert "(no sender)                           1    29.3 KiB  ████████████████████\n(others) " in text
    assert "(earlier)                             3" in text


def test_stats_of_little(pop3cli: Cli, serve: Serve) -> None:
    server = serve(Mailbox([]))
    ran = pop3cli("stats", server.account(), "--cacert", server.certificate)
    assert (ran.status, ran.out) == (0, b"0 messages, 0 B\n")
    server = serve(Mailbox(many(2), unreadable=(2,)))
    ran = pop3cli("stats", server.account(), "--cacert", server.certificate)
    assert (ran.status, "the headers of 1 of 2 messages were refused" in ran.err) == (1, True)


def test_senders_without_end() -> None:
    found = Statistics()
    for number in range(1, 21_001):
        found.add(number, 1 << 70, Summary(f"x{number}@" + "y" * 300, "s" * 5000, None, ""))
    assert len(found.senders) == 20_001
    assert found.senders["(others)"].messages == 1_000
    assert max(map(len, found.senders)) == 200
    assert len(found.largest) == 10
    assert found.sizes["larger"].messages == 21_000


def test_bars() -> None:
    assert [bar(part, 160) for part in (0, 1, 8, 12, 160)] == ["", "▏", "█", "█▌", "█" * 20]
    assert bar(1, 10**9) == "▏"
    assert bar(0, 0) == ""


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
