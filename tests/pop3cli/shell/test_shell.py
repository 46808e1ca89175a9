"""The shell: a script through a pipe, and a person at a terminal."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pop3cli.accounts.url import Settings
from pop3cli.options import Options
from pop3cli.shell.shell import Shell
from pop3cli.terminal.terminal import Terminal
from pop3core.answers import CommitFailed
from pop3core.table import RULES
from tests.pop3cli.conftest import NASTY, PASSWORD, Liar, Mailbox, Ran, Screen, Serve, Server, spawn

Script = Callable[..., Ran]
ROOT = Path(__file__).parents[3]


@pytest.fixture
def script(pop3cli: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> Script:
    """``script(text, arguments...)``: a shell that reads ``text`` from a pipe."""

    def call(text: str, *arguments: object) -> Ran:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        return pop3cli("shell", *arguments)

    return call


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
        ("frob", "this line: unknown command; see help"),
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


def test_raw_is_not_checked(script: Script, server: Server) -> None:
    lines = "raw noop extra\nraw list\nraw\nraw retr 1\nnoop\nquit\n"
    ran = script(lines, server.account(), "--cacert", server.certificate)
    out = ran.out.decode().splitlines()[2:]
    assert out[:3] == ["-ERR usage: NOOP", f"+OK 5 messages ({sum(map(len, NASTY))} octets)", f"1 {len(NASTY[0])}"]
    assert out[-2:] == ["+OK", "+OK bye"]
    assert "...hidden" not in out
    assert "..hidden" in out  # as it is on the wire
    assert ran.err == "pop3cli: raw: usage: raw LINE\n"
    assert script("raw noop\n", "--cacert", server.certificate).err.startswith("pop3cli: raw: not connected")


def test_raw_to_a_server_that_is_silent_or_goes(script: Script, serve: Serve) -> None:
    server = serve(Liar({"XYZ": b""}))
    ran = script("raw xyz\nnoop\n", server.account(), "--cacert", server.certificate, "--timeout", "0.5")
    assert (ran.status, "no answer within 0.5 s" in ran.err) == (69, True)
    server = serve(Liar({"XYZ": b"\x1b[2Jhalf a line"}, cut="XYZ"))
    ran = script("raw xyz\n", server.account(), "--cacert", server.certificate)
    assert (ran.status, "the server closed the connection" in ran.err) == (69, True)
    assert ran.out.decode().splitlines()[-1] == "␛[2Jhalf a line"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("noop", ["NOOP          NOOP (RFC 1939 §5), valid in TRANSACTION", "+OK           done: one line"]),
        ("list", ["LIST          LIST [msg] (RFC 1939 §5)", "+OK           done: lines follow, ended by a dot alone"]),
        ("list 1", ["LIST          LIST [msg] (RFC 1939 §5)", "+OK           done: one line"]),
        ("retr 9", ["RETR          RETR msg", "-ERR          refused, and nothing was done"]),
    ],
)
def test_explain(script: Script, server: Server, line: str, told: list[str]) -> None:
    ran = script(f"{line}\nexplain\nquit\n", server.account(), "--cacert", server.certificate)
    shown = ran.out.decode().splitlines()
    for begun in told:
        assert any(one.startswith(begun) for one in shown), shown


def test_auth_does_the_exchange(script: Script, server: Server) -> None:
    nobody = server.account().replace("alice@", "")
    lines = ("auth", "auth user", "auth plain", "user alice", "auth plain", "explain", "stat", "quit", "")
    ran = script("\n".join(lines), nobody, "--cacert", server.certificate)
    shown = ran.out.decode().splitlines()
    assert shown[1:3] == ["+OK send PASS", f"+OK 5 messages ({sum(map(len, NASTY))} octets)"]
    assert shown[3].startswith("AUTH          AUTH mechanism [initial-response] (RFC 5034 §4), valid in AUTHORIZATION")
    assert "the mailbox is open, and locked for this session" in ran.out.decode()
    faults = ran.err.splitlines()
    assert faults[0] == faults[1]
    assert faults[0].startswith("pop3cli: auth: usage: auth MECHANISM; one of scram-sha-256-plus, ")
    assert faults[2] == "pop3cli: auth: who logs in is not known; open pop3s://user@host, or say user NAME before"
    assert len(faults) == 3
    assert PASSWORD not in ran.out.decode() + ran.err


def test_auth_that_is_refused_goes_on(script: Script, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POP3CLI_PASSWORD", "wrong")
    nobody = server.account().replace("alice@", "")
    ran = script(f"user alice\nauth plain\nuser alice\npass {PASSWORD}\nquit\n", nobody, "--cacert", server.certificate)
    assert ran.status == 77  # the first failure's
    assert f"+OK 5 messages ({sum(map(len, NASTY))} octets)" in ran.out.decode()
    assert ran.err.count("\n") == 1


def test_a_login_by_open_can_be_explained(script: Script, server: Server) -> None:
    ran = script("explain\nquit\n", server.account(), "--cacert", server.certificate)
    assert ran.err == ""
    assert "AUTH          AUTH mechanism [initial-response] (RFC 5034 §4)" in ran.out.decode()


def test_explain_codes(script: Script, serve: Serve) -> None:
    server = serve(Liar({"PASS": b"-ERR [SYS/TEMP/x] full\r\n", "NOOP": b"-ERR [X-\x1b[2J] y\r\n"}))
    lines = "explain\nuser a\npass b\nexplain\n"
    ran = script(lines, f"pop3s://127.0.0.1:{server.port}", "--cacert", server.certificate)
    assert "[SYS/TEMP]    RFC 3206 §4" in ran.out.decode()
    assert "-ERR          refused, and nothing was done; the login begins anew" in ran.out.decode()
    assert ran.err.startswith("pop3cli: explain: the server has not answered anything yet")


# --- a person ---


Person = Callable[..., tuple[Screen, "subprocess.Popen[bytes]"]]


@pytest.fixture(params=["prompt_toolkit", "readline"])
def person(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Person]:
    """``person(arguments...)`` starts a shell on a terminal, with the library of the extra and without it."""
    started: list[subprocess.Popen[bytes]] = []
    environment = {"XDG_STATE_HOME": str(tmp_path / "state")}
    if request.param == "readline":
        (tmp_path / "prompt_toolkit.py").write_text("raise ImportError('as if it were not installed')")
        environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", str(ROOT))])
    else:
        pytest.importorskip("prompt_toolkit", reason="pip install 'pop3core[shell]'")

    def start(*arguments: object) -> tuple[Screen, subprocess.Popen[bytes]]:
        master, slave = pty.openpty()
        streams = {"stdin": slave, "stdout": slave, "stderr": slave}
        process = spawn("shell", *arguments, **streams, start_new_session=True, environment=environment)
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
    behind = len(screen.seen)
    screen.type_until("\x1b[A", b"user alice")  # the last line of the history, once more
    screen.type("\r")
    screen.until(b"USER is not valid in the TRANSACTION state")
    assert PASSWORD.encode() not in screen.seen[behind:]
    screen.type("quit\r")
    assert process.wait(10) == 0


def test_commands_are_completed(person: Person, server: Server) -> None:
    screen, process = person(server.account(), "--cacert", server.certificate)
    screen.until(b"alice@127.0.0.1> ")
    screen.type("sta\t")
    screen.until_letters(b"stat")
    screen.type("\r")
    screen.until(b" 5 261")
    screen.type("quit\r")
    assert process.wait(10) == 0


def test_what_is_completed_is_the_table(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POP3CLI_PASSWORD", PASSWORD)
    shell = Shell(Options(settings=Settings(cacert=server.certificate)), Terminal(stdout=io.StringIO()))
    with shell._visit:
        words = [word for word, _ in shell._complete("")]
        assert words == ["explain", "help", "open", "raw"]  # nothing else is valid
        shell._open(server.account())
        words = [word for word, _ in shell._complete("re")]
        assert {"retr", "dele", "quit", "raw"} <= set(words)
        assert not {"user", "pass", "stls"} & set(words)
        assert list(shell._complete("retr ")) == []
        shell._do("stat")
        shell._do("uidl")
        assert list(shell._complete("retr "))[:2] == [("1", "uid-1"), ("2", "uid-2")]
        assert [word for word, _ in shell._complete("top 1")] == ["1", "2", "3", "4", "5"]
        assert list(shell._complete("top 1 ")) == list(shell._complete("noop ")) == list(shell._complete("x ")) == []
        shell._do("dele 2")
        assert [word for word, _ in shell._complete("dele ")] == ["1", "3", "4", "5"]
        shell._do("rset")
        assert len(list(shell._complete("dele "))) == 5


def test_the_history_outlives_the_shell_and_knows_no_password(person: Person, server: Server, tmp_path: Path) -> None:
    pytest.importorskip("prompt_toolkit", reason="pip install 'pop3core[shell]'")
    screen, process = person(f"pop3s://127.0.0.1:{server.port}", "--cacert", server.certificate)
    for line, answer in (("user alice", b"send PASS"), (f"pass {PASSWORD}", b"5 messages"), ("quit", b" bye")):
        screen.until(b"> ")
        screen.type(f"{line}\r")
        screen.until(answer)
    assert process.wait(10) == 0
    kept = tmp_path / "state" / "pop3cli" / "history"
    if (tmp_path / "prompt_toolkit.py").exists():
        assert not kept.exists()
        return
    assert [line for line in kept.read_text().splitlines() if line.startswith("+")] == ["+user alice", "+quit"]
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700


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
    behind = len(screen.seen)
    screen.type("s\r")
    screen.until(b"1 marked> ", behind=behind)
    screen.type("\x04")
    screen.until(b"[s]tay? ", behind=behind)
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
    behind = len(screen.seen)
    process.send_signal(signal.SIGINT)
    screen.until(b"alice@127.0.0.1> ", behind=behind)
    screen.type("noop\r")
    liar.until(b"NOOP\r\n")
    process.send_signal(signal.SIGINT)
    screen.until(b"interrupted: the connection is dropped")
    screen.until(b"not connected> ")
    screen.type("quit\r")
    assert process.wait(10) == 0


def test_ctrl_c_in_raw_drops_the_connection(person: Person, serve: Serve) -> None:
    liar = Liar({"XYZ": b""})
    server = serve(liar)
    screen, process = person(server.account(), "--cacert", server.certificate)
    screen.until(b"alice@127.0.0.1> ")
    screen.type("raw xyz\r")
    liar.until(b"xyz\r\n")
    process.send_signal(signal.SIGINT)
    screen.until(b"interrupted: the connection is dropped")
    screen.until(b"not connected> ")
    screen.type("quit\r")
    assert process.wait(10) == 0


def test_a_person_whose_output_is_a_file(server: Server, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    with (tmp_path / "out").open("wb") as out:
        process = spawn(
            "shell", server.account(), "--cacert", server.certificate, stdin=slave, stdout=out, stderr=slave
        )
    os.close(slave)
    os.write(master, b"stat\rquit\r")
    assert process.wait(20) == 0
    os.close(master)
    shown = (tmp_path / "out").read_text()
    assert "+OK 5 261" in shown
    assert "\x1b" not in shown
