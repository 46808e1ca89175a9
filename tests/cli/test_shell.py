"""The shell: a script through a pipe, and a person at a terminal."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from pop3core.answers import CommitFailed
from pop3core.table import RULES

from .conftest import NASTY, PASSWORD, Liar, Mailbox, Ran, Screen, Serve, Server, spawn

Script = Callable[..., Ran]


@pytest.fixture
def script(pop3cli: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> Script:
    """``script(text, arguments...)``: a shell that reads ``text`` from a pipe."""

    def call(text: str, *arguments: object) -> Ran:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        return pop3cli("shell", *arguments)

    return call


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def server(serve: Serve, mailbox: Mailbox) -> Server:
    return serve(mailbox)


def test_every_command(script: Script, server: Server, mailbox: Mailbox) -> None:
    said = """capa
utf8
user alice
pass s e c r e t
stat
list
LIST 1
uidl
uidl 2
retr 1
top 1 1
lang
lang en
dele 1
noop
rset
dele 4
capa
quit
"""
    assert {line.split()[0].upper() for line in said.splitlines()} == {rule.keyword for rule in RULES} - {
        "AUTH",
        "APOP",
        "STLS",
    }
    octets = sum(map(len, NASTY))
    ran = script(said, f"pop3s://127.0.0.1:{server.port}", "--cacert", server.certificate)
    assert (ran.status, ran.err) == (0, "")
    capa = (
        "+OK capabilities follow\nUSER\nSASL PLAIN\nTOP\nUIDL\nRESP-CODES\nAUTH-RESP-CODE\nPIPELINING\n"
        "UTF8 USER\nLANG\nIMPLEMENTATION pop3core\n.\n"
    )
    listed = "".join(f"{n} {len(message)}\n" for n, message in enumerate(NASTY, 1))
    assert ran.out.decode() == (
        f"+OK POP3 server ready\n{capa}+OK UTF8 is on\n+OK send PASS\n+OK 5 messages ({octets} octets)\n"
        f"+OK 5 {octets}\n+OK 5 messages ({octets} octets)\n{listed}.\n+OK 1 {len(NASTY[0])}\n"
        f"+OK unique-ids follow\n1 uid-1\n2 uid-2\n3 uid-3\n4 uid-4\n5 uid-5\n.\n+OK 2 uid-2\n"
        f"+OK {len(NASTY[0])} octets\n{NASTY[0].decode().replace(chr(13), '')}.\n"
        f"+OK top of message follows\n{NASTY[0].decode().replace(chr(13), '').partition('..')[0]}.\n"
        "+OK languages follow\nen English\nde Deutsch\nfr Français\nes Español\n.\n+OK en this is spoken now\n"
        f"+OK marked as deleted\n+OK\n+OK 5 messages ({octets} octets)\n+OK marked as deleted\n{capa}+OK bye\n"
    )
    assert mailbox.deleted == (4,)
    assert mailbox.logins == [("alice", PASSWORD.encode())]


def test_an_account_with_a_user_is_logged_in(script: Script, server: Server) -> None:
    ran = script("stat\nquit\n", server.account(), "--cacert", server.certificate)
    assert ran.out.decode().splitlines()[1:2] == [f"+OK 5 messages ({sum(map(len, NASTY))} octets)"]
    assert ran.status == 0


def test_a_command_before_being_connected(script: Script, server: Server) -> None:
    ran = script(f"stat\nopen {server.account()}\nstat\nquit\n", "--cacert", server.certificate)
    assert ran.err == "pop3cli: STAT: not connected to a server; open pop3s://user@host first\n"
    assert "+OK 5 " in ran.out.decode()
    assert ran.status == 2  # the first failure's


def test_quit_without_a_connection(script: Script) -> None:
    assert script("quit\n") == Ran(0, b"", "")
    assert script("") == Ran(0, b"", "")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("frob", "'frob': unknown command; see help"),
        ("retr", "retr: usage: RETR msg"),
        ("retr x", "retr: a number has 1 to 10 ASCII digits; usage: RETR msg"),
        ("list 0", "list: message numbers begin with 1; usage: LIST [msg]"),
        ("top 1", "top: usage: TOP msg n"),
        ("stat 1", "stat: usage: STAT"),
        ("user bob", "not sent: USER is not valid in the TRANSACTION state (RFC 1939 §7)"),
        ("open", "open: usage: open ACCOUNT, a name or pop3s://[user@]host[:port]"),
        ("open pop3s://a@b", "connect to b: still connected to 127.0.0.1 port {port}; quit first"),
        (
            "open alice",
            "account alice: no account of that name (none has been added yet); add it: pop3cli account add alice URL",
        ),
    ],
)
def test_what_is_wrong_is_told_and_not_sent(script: Script, server: Server, line: str, text: str) -> None:
    ran = script(f"{line}\nnoop  \nquit\n", server.account(), "--cacert", server.certificate)
    assert ran.err == f"pop3cli: {text.format(port=server.port)}\n"
    assert ran.out.decode().splitlines()[2:] == ["+OK", "+OK bye"]
    assert ran.status == 2


def test_help_is_the_table(script: Script) -> None:
    ran = script("help\n")
    for rule in RULES:
        assert f"{rule.keyword.lower()}{rule.usage.removeprefix(rule.keyword)}" in ran.out.decode()
        assert rule.rfc in ran.out.decode()


def test_a_refusal_is_shown_and_is_the_status(script: Script, server: Server) -> None:
    ran = script("retr 9\nquit\n", server.account(), "--cacert", server.certificate)
    assert (ran.status, ran.out.decode().splitlines()[2]) == (67, "-ERR no such message")
    ran = script("user alice\npass wrong\nquit\n", f"pop3s://localhost:{server.port}", "--cacert", server.certificate)
    assert (ran.status, ran.out.decode().splitlines()[2]) == (77, "-ERR [AUTH] wrong user name or password")


def test_a_wrong_password_at_the_start_ends_it(script: Script, server: Server) -> None:
    arguments = (server.account(), "--cacert", server.certificate, "--password-command", "echo wrong")
    ran = script("stat\n", *arguments)
    assert (ran.status, "wrong user name or password" in ran.err) == (77, True)


def test_the_end_of_a_script_commits_nothing(script: Script, server: Server, mailbox: Mailbox) -> None:
    ran = script("dele 1\ndele 2\n", server.account(), "--cacert", server.certificate)
    assert ran.err == "pop3cli: input ended without quit: 2 marked message(s) are not deleted\n"
    assert (ran.status, mailbox.committed) == (1, 0)
    assert script("noop\n", server.account(), "--cacert", server.certificate).status == 0


def test_a_quit_that_fails(script: Script, serve: Serve) -> None:
    server = serve(Mailbox(commit=CommitFailed((1,), "SYS/PERM")))
    ran = script("dele 1\nquit\n", server.account(), "--cacert", server.certificate)
    assert (ran.status, ran.out.decode().splitlines()[-1][:15]) == (1, "-ERR [SYS/PERM]")


def test_a_server_that_goes_away_ends_it(script: Script, serve: Serve) -> None:
    server = serve(Liar({"NOOP": b""}, cut="NOOP"))
    ran = script("noop\nstat\n", server.account(), "--cacert", server.certificate)
    assert ran.status == 69
    assert ran.err == f"pop3cli: 127.0.0.1 port {server.port}: the server went away during NOOP; try again\n"


def test_what_the_server_says_is_harmless(script: Script, serve: Serve) -> None:
    evil = b"+OK \x1b]0;owned\x07 \xe2\x80\xae[bold]\r\n"
    replies = {"NOOP": evil, "CAPA": b"+OK\r\nX\x1b[2J\r\n.\r\n", "RETR": b"+OK\r\n\x1b[2J\r\n\x9b\r\n.\r\n"}
    server = serve(Liar(replies, greeting=evil))
    ran = script("noop\ncapa\nretr 1\nquit\n", server.account(), "--cacert", server.certificate)
    assert "+OK ␛]0;owned␇ [bold]" in ran.out.decode()
    assert not {0x1B, 0x07} & set(ran.out)
    assert "\u202e" not in ran.out.decode()


def test_opening_what_cannot_be_opened_ends_nothing(script: Script, server: Server) -> None:
    lines = f"open pop3s://a@127.0.0.1:1\nopen {server.account()}\nnoop\nquit\n"
    ran = script(lines, "--cacert", server.certificate)
    assert "127.0.0.1 port 1: Connection refused" in ran.err
    assert (ran.status, ran.out.decode().splitlines()[-2:]) == (69, ["+OK", "+OK bye"])


# --- a person ---


Person = Callable[..., tuple[Screen, "subprocess.Popen[bytes]"]]


@pytest.fixture
def person() -> Iterator[Person]:
    """``person(arguments...)`` starts a shell on a terminal."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: object) -> tuple[Screen, subprocess.Popen[bytes]]:
        master, slave = pty.openpty()
        process = spawn("shell", *arguments, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        started.append(process)
        return Screen(master), process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_a_person_quits(person: Person, server: Server, mailbox: Mailbox) -> None:
    screen, process = person(f"pop3s://127.0.0.1:{server.port}", "--cacert", server.certificate)
    screen.until(b"not logged in> ")
    screen.type("user alice\r")
    screen.until(b"send PASS")
    screen.type("pass\r")
    screen.until(b"Password: ")
    screen.type(PASSWORD + "\r")
    screen.until(b"5 messages")
    screen.type("dele 2\r")
    screen.until(b"1 marked")
    assert b"\x1b[32m+OK\x1b[0m" in screen.seen
    assert PASSWORD.encode() not in screen.seen
    screen.type("quit\r")
    assert process.wait(10) == 0
    assert mailbox.deleted == (2,)


def test_a_typed_password_is_not_in_the_history(person: Person, server: Server) -> None:
    screen, process = person(f"pop3s://127.0.0.1:{server.port}", "--cacert", server.certificate)
    screen.until(b"not logged in> ")
    screen.type("user alice\r")
    screen.until(b"send PASS")
    screen.type(f"pass {PASSWORD}\r")
    screen.until(b"alice@127.0.0.1> ")
    screen.type("\x1b[A\r")  # the last line of the history, once more
    screen.until(b"USER is not valid in the TRANSACTION state")
    assert screen.seen.count(PASSWORD.encode()) == 1
    screen.type("quit\r")
    assert process.wait(10) == 0


@pytest.mark.parametrize(("answer", "deleted", "status"), [("c\r", (1,), 0), ("l\r", None, 0), ("\x04", None, 0)])
def test_ctrl_d_asks(
    person: Person, server: Server, mailbox: Mailbox, answer: str, deleted: tuple[int, ...] | None, status: int
) -> None:
    screen, process = person(server.account(), "--cacert", server.certificate)
    screen.until(b"alice@127.0.0.1> ")
    screen.type("dele 1\r")
    screen.until(b"1 marked> ")
    screen.type("\x04")
    screen.until(b"[s]tay? ")
    screen.type("s\r")
    screen.until(b"1 marked> ", times=2)
    screen.type("\x04")
    screen.until(b"[s]tay? ", times=2)
    screen.type(answer)
    assert process.wait(10) == status
    assert mailbox.deleted == deleted


def test_ctrl_c_drops_the_command_and_not_the_shell(person: Person, serve: Serve) -> None:
    liar = Liar({"NOOP": b""})
    server = serve(liar)
    screen, process = person(server.account(), "--cacert", server.certificate)
    screen.until(b"alice@127.0.0.1> ")
    screen.type("half a li")
    screen.until(b"half a li")
    process.send_signal(signal.SIGINT)
    screen.until(b"alice@127.0.0.1> ", times=2)
    screen.type("noop\r")
    liar.until(b"NOOP\r\n")
    process.send_signal(signal.SIGINT)
    screen.until(b"interrupted: the connection is dropped")
    screen.until(b"not connected> ")
    screen.type("quit\r")
    assert process.wait(10) == 0
