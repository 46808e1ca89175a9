"""The client's parts that need no server: accounts, passwords, harmless text, mail, files, tables."""

from __future__ import annotations

import io
import os
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3cli.accounts.url import Account, parse_account
from pop3cli.auth.passwords import find_password
from pop3cli.cli.global_options import sorted_out
from pop3cli.errors import OutputFailed, SettingFault, UsageFault
from pop3cli.files import whole_file
from pop3cli.message.reading import parse_headers, read_message, summarize
from pop3cli.sanitize import harmless, harmless_lines
from pop3cli.terminal.tables import Column
from pop3cli.terminal.terminal import ContentPrinter, Terminal
from pop3cli.terminal.units import human_size

# --- accounts ---


@pytest.mark.parametrize(
    ("url", "account"),
    [
        ("pop3s://alice@mail.example.org", Account("mail.example.org", 995, "alice")),
        ("POP3S://alice@10.0.0.1:8000/", Account("10.0.0.1", 8000, "alice")),
        ("pop3s://a@[::1]:995", Account("::1", 995, "a")),
        ("pop3s://alice%40example.org@mail.example.org", Account("mail.example.org", 995, "alice@example.org")),
        ("pop3://alice@host", Account("host", 110, "alice", stls=True)),
        ("pop3://alice@host:1110", Account("host", 1110, "alice", stls=True)),
        ("pop3s://j%C3%B6rg@host", Account("host", 995, "jörg")),
    ],
)
def test_accounts(url: str, account: Account) -> None:
    assert parse_account(url) == account


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("alice", "not a POP3 URL; give pop3s://user@host"),
        ("imaps://alice@host", "not a POP3 URL"),
        ("pop3s://alice:pa55@host", "a password in the account's URL: other users of this machine could read it"),
        ("pop3s://host", "no user in it"),
        ("pop3s://", "not of the form"),
        ("pop3s://a@.example.org", "not of the form"),
        ("pop3s://a@host/INBOX", "not of the form"),
        ("pop3s://a@host:99999", "Port out of range"),
        ("pop3s://a@host:x", "[Pp]ort"),
        ("pop3s://a@[::1", "Invalid IPv6"),
        ("pop3s://a%0D%0ADELE@host", "no blanks or control characters"),
        ("pop3s://a%20b@host", "no blanks or control characters"),
        ("pop3s://%FF@host", "not UTF-8"),
    ],
)
def test_accounts_that_are_none(url: str, text: str) -> None:
    with pytest.raises(UsageFault, match=text) as caught:
        parse_account(url)
    assert caught.value.status == 2
    assert "pa55" not in str(caught.value)


def test_a_user_may_be_missing_where_nobody_is_needed() -> None:
    assert parse_account("pop3s://host", user_required=False) == Account("host", 995, None)


ALICE = Account("host", 995, "alice")


def test_a_password_from_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POP3CLI_PASSWORD", "other")
    assert find_password(ALICE, r"printf '  s e c \n rest'") == b"  s e c "
    assert find_password(ALICE, f'{sys.executable} -c "print(chr(36))"') == b"$"


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("", "it is empty"),
        ("'", "quotes do not match"),
        ("/no/such/program x", "/no/such/program: No such file or directory"),
        ("false", "false ended with status 1"),
        ("true", "true printed no password"),
    ],
)
def test_password_commands_that_fail(command: str, text: str) -> None:
    with pytest.raises(SettingFault, match=text) as caught:
        find_password(ALICE, command)
    assert caught.value.status == 78


def test_a_password_command_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pop3cli.auth.passwords._COMMAND_SECONDS", 0.1)
    with pytest.raises(SettingFault, match="did not end within"):
        find_password(ALICE, "sleep 10")


def test_a_password_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POP3CLI_PASSWORD", "s e c ö")
    assert find_password(ALICE, None) == "s e c ö".encode()


def test_no_password_and_nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POP3CLI_PASSWORD", raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(UsageFault, match=r"no password for alice@host: .*; give `password_command=CMD`, or"):
        find_password(ALICE, None)


# --- options before and after ---


@pytest.mark.parametrize(
    ("arguments", "ours", "others"),
    [
        ("list URL --json", "--json", "list URL"),
        ("--cacert F list URL", "--cacert F", "list URL"),
        ("list URL --cacert F", "--cacert F", "list URL"),
        ("get URL --cacert=F 1 -o X --json", "--cacert=F --json", "get URL 1 -o X"),
        ("get -- --json URL", "", "get -- --json URL"),
        ("list URL --cacert", "--cacert", "list URL"),
    ],
)
def test_options_anywhere(arguments: str, ours: str, others: str) -> None:
    assert sorted_out(arguments.split(), {"--json": False, "--cacert": True}) == (ours.split(), others.split())


# --- harmless text ---


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("a\r\nb\tc\x00\x7f", "a␍␊b␉c␀␡"),
        ("\x9b31m\x85", "\ufffd31m\ufffd"),
        ("\u202etxt.exe\u202c \u2066x\u2069\u200f\u061c\u200b\ufeff", "txt.exe x"),
        ("a\u2028b\u2029c", "a b c"),
        ("\udcff", "\ufffd"),
        ("Jörg ✓ 👩\u200d💻", "Jörg ✓ 👩\u200d💻"),
    ],
)
def test_harmless(text: str, shown: str) -> None:
    assert harmless(text) == shown


def test_harmless_lines_keep_lines() -> None:
    assert harmless_lines("a\r\nb\rc\n\td\x1b\x0ce") == "a\nb\nc\n        d␛\ne"


@given(st.text())
def test_harmless_is_harmless(text: str) -> None:
    shown = harmless(text)
    assert shown.isprintable() or all(
        c.isprintable() or c in "\u200c\u200d" or c.isspace() or c >= "\x80" for c in shown
    )
    assert not set(shown) & {chr(octet) for octet in (*range(0x20), *range(0x7F, 0xA0))}
    assert harmless(shown) == shown


# --- mail ---


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


# --- files ---


def test_a_file_appears_whole(tmp_path: Path) -> None:
    file = tmp_path / "m.eml"
    file.write_bytes(b"before")
    os.umask(mask := os.umask(0))
    with whole_file(file) as stream:
        stream.write(b"after")
        stream.flush()
        assert file.read_bytes() == b"before"
    assert file.read_bytes() == b"after"
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_was_exchanged_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def told_fsync(descriptor: int) -> None:
        calls.append("fsync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "fsync file")
        fsync(descriptor)

    def told_replace(path: Path, target: Path) -> Path:
        calls.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", told_fsync)
    monkeypatch.setattr(Path, "replace", told_replace)
    with whole_file(tmp_path / "token") as stream:
        stream.write(b"rotated")
    assert calls == ["fsync file", "rename", "fsync folder"]


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_or_not_at_all(tmp_path: Path, fault: type[BaseException]) -> None:
    with pytest.raises(fault), whole_file(tmp_path / "m.eml") as stream:
        stream.write(b"half")
        raise fault
    assert list(tmp_path.iterdir()) == []


def test_links_stay_and_devices_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"")
    (tmp_path / "link").symlink_to("real")
    with whole_file(tmp_path / "link") as stream:
        stream.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    with whole_file(Path("/dev/null")) as stream:
        stream.write(b"gone")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize("name", ["no/such/folder/m.eml", ".", "x" * 300, "/dev/full"])
def test_what_cannot_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputFailed) as caught, whole_file(tmp_path / name) as stream:
        stream.write(b"x")
        stream.flush()
    assert caught.value.status == 74


# --- what is shown ---


@pytest.mark.parametrize(
    ("octets", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1023 * 1024, "1.0 MiB"), (5 * 1024**4 * 1024, "5120.0 TiB")],
)
def test_sizes(octets: int, text: str) -> None:
    assert human_size(octets) == text


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [200, 80, 40, 20])
def test_a_table_fits_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    out = Tty()
    table = Terminal(color=False, stdout=out).table(
        (Column("No", 4, right=True), Column("A", 9, share=1), Column("B", 9, share=2))
    )
    table.row("1", "short", "漢字" * 200)
    table.row("2", "long " * 100, "[bold]\x1b[1m")
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert "\x1b" not in out.getvalue()
    if width >= 40:
        assert "…" in lines[1]
        assert "[bold]" in lines[2]


def test_nothing_is_cut_for_a_pipe() -> None:
    out = io.StringIO()
    Terminal(stdout=out).table((Column("No", 4, right=True), Column("A", 3, share=1))).row("1", "long " * 100 + "end")
    assert out.getvalue().endswith("end\n")


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def shown(out: io.StringIO, *, color: bool = True) -> bool:
        Terminal(color=color, stdout=out).line(("text", "ok"), ("bold", "strong"))
        return "\x1b" in out.getvalue()

    assert shown(Tty())
    assert not shown(io.StringIO())
    assert not shown(Tty(), color=False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not shown(Tty())


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_content_is_shown_the_same_however_it_is_cut(size: int) -> None:
    content = "one\r\ntwo ✓\rthree\n\x1b[1mfour\r".encode()
    out = io.StringIO()
    printer = ContentPrinter(Terminal(stdout=out))
    for start in range(0, len(content), size):
        printer.feed(content[start : start + size])
    printer.end()
    assert out.getvalue() == "one\ntwo ✓\nthree\n␛[1mfour\n"


def test_progress_is_for_long_work_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for stream, seconds, shown in ((Tty(), -1.0, True), (Tty(), 60.0, False), (io.StringIO(), -1.0, False)):
        monkeypatch.setattr("pop3cli.terminal.progress._SOON", seconds)
        for octets in (True, False):
            with Terminal(stdout=io.StringIO(), stderr=stream).progress("message [1]", 100, octets=octets) as meter:
                meter.advance(50)
                meter.advance(50)
        assert ("message [1]" in stream.getvalue()) is shown


def test_progress_beside_output_is_for_work_that_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("pop3cli.terminal.progress._SOON", -1.0)
    for alone in (True, False):
        stream = Tty()
        terminal = Terminal(stdout=Tty(), stderr=stream)
        with terminal.progress("headers", 10, octets=False, alone=alone) as meter:
            meter.advance(5)
        assert ("headers" in stream.getvalue()) is alone
