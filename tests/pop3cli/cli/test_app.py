"""The command line: what each command writes, every exit status, one line for every error."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pop3core.answers import CommitFailed, LoginRejected
from tests.pop3cli.conftest import NASTY, PASSWORD, Cli, Liar, Mailbox, Ran, Screen, Serve, Server, spawn


def one_line(ran: Ran) -> str:
    """The error, which is one line of ours and nothing else."""
    assert ran.err.startswith("pop3cli: ")
    assert ran.err.count("\n") == 1
    assert "Traceback" not in ran.err
    return ran.err.removeprefix("pop3cli: ").rstrip("\n")


# --- commands ---


def test_stat(pop3cli: Cli, server: Server, mailbox: Mailbox) -> None:
    ran = pop3cli("stat", server.account(), "--cacert", server.certificate)
    octets = sum(map(len, NASTY))
    assert (ran.status, ran.out.decode(), ran.err) == (0, f"5 messages, {octets} B ({octets} octets)\n", "")
    assert (mailbox.committed, mailbox.deleted) == (1, ())  # it ended with QUIT, and nothing was marked


def test_list(pop3cli: Cli, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    ran = pop3cli("list", server.account(), "--cacert", server.certificate)
    assert ran.status == 0
    title, first, *_, last = ran.out.decode().splitlines()
    assert title.split() == ["No", "From", "Subject", "Date", "Size"]
    assert first.split() == ["1", "Jörg", "<joerg@example.org>", "dots", "2024-01-02", "09:00", str(len(NASTY[0])), "B"]
    assert "␛[31mred␛[0m evil [bold]markup[/]" in last
    assert b"\x1b" not in ran.out
    assert "\u202e" not in ran.out.decode()


def test_uidl(pop3cli: Cli, server: Server) -> None:
    ran = pop3cli("uidl", server.account(), "--cacert", server.certificate)
    assert [line.split() for line in ran.out.decode().splitlines()][1:] == [[f"{n}", f"uid-{n}"] for n in range(1, 6)]


def test_show(pop3cli: Cli, server: Server) -> None:
    ran = pop3cli("show", server.account(), 1, "--cacert", server.certificate)
    assert ran.out.decode().splitlines() == [
        "From:    Jörg <joerg@example.org>",
        "Date:    Tue, 2 Jan 2024 09:00:00 +0000",
        "Subject: dots",
        "",
        ".",
        "..",
        ".hidden",
        "a.b",
    ]


def test_show_does_nothing_to_a_terminal(pop3cli: Cli, server: Server) -> None:
    for extra in ((), ("--headers",), ("--json",)):
        ran = pop3cli("show", server.account(), 5, "--cacert", server.certificate, *extra)
        assert ran.status == 0
        assert not {0x1B, 0x07} & set(ran.out)


def test_show_headers(pop3cli: Cli, server: Server) -> None:
    ran = pop3cli("show", server.account(), 1, "--headers", "--cacert", server.certificate)
    assert ran.out.decode().splitlines()[:2] == ["From: Jörg <joerg@example.org>", "Subject: dots"]


def test_show_headers_without_top(pop3cli: Cli, serve: Serve) -> None:
    replies = {"LIST": b"+OK 1 9\r\n", "TOP": b"-ERR what?\r\n", "RETR": b"+OK\r\nSubject: a\r\n\r\nbody\r\n.\r\n"}
    server = serve(Liar(replies))
    ran = pop3cli("show", server.account(), 1, "--headers", "--cacert", server.certificate)
    assert (ran.status, ran.out) == (0, b"Subject: a\n")


@pytest.mark.parametrize("number", range(1, 6))
def test_get_gives_the_exact_bytes(pop3cli: Cli, server: Server, tmp_path: Path, number: int) -> None:
    common = (server.account(), number, "--cacert", server.certificate)
    assert pop3cli("get", *common) == Ran(0, NASTY[number - 1], "")
    assert pop3cli("show", "--raw", *common) == Ran(0, NASTY[number - 1], "")
    assert pop3cli("get", *common, "-o", tmp_path / "m.eml") == Ran(0, b"", "")
    assert (tmp_path / "m.eml").read_bytes() == NASTY[number - 1]


def test_get_does_nothing_to_a_terminal(server: Server) -> None:
    master, slave = pty.openpty()
    arguments = ("get", server.account(), 5, "--no-color", "--cacert", server.certificate)
    process = spawn(*arguments, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    screen = Screen(master)
    screen.until(b"-o FILE has the exact octets")
    assert process.wait(10) == 0
    assert "Subject: ␛[31mred␛[0m evil [bold]markup[/]\r\n" in screen.seen.decode()
    assert not {0x1B, 0x07} & set(screen.seen)


def test_delete(pop3cli: Cli, server: Server, mailbox: Mailbox) -> None:
    ran = pop3cli("delete", server.account(), 2, 4, 2, "--yes", "--cacert", server.certificate)
    assert (ran.status, ran.out, mailbox.deleted) == (0, b"2 messages deleted\n", (2, 4))


def test_delete_is_all_or_nothing(pop3cli: Cli, server: Server, mailbox: Mailbox) -> None:
    ran = pop3cli("delete", server.account(), 2, 9, 8, "--yes", "--cacert", server.certificate)
    assert (ran.status, ran.out, mailbox.committed) == (67, b"", 0)
    assert one_line(ran) == "message 8, 9: no such message; nothing was deleted"


def test_delete_without_being_sure(pop3cli: Cli, server: Server, mailbox: Mailbox) -> None:
    ran = pop3cli("delete", server.account(), 1, "--cacert", server.certificate)
    assert (ran.status, mailbox.logins) == (2, [])
    assert "there is no terminal to ask at; give --yes" in one_line(ran)


def test_delete_says_nothing_before_it_is_done(pop3cli: Cli, serve: Serve) -> None:
    server = serve(Mailbox(commit=CommitFailed((1,), "SYS/TEMP")))
    ran = pop3cli("delete", server.account(), 1, "--yes", "--cacert", server.certificate)
    assert (ran.status, ran.out) == (75, b"")
    assert "1 of 1 deleted messages could not be removed" in one_line(ran)


def test_delete_that_is_refused_midway(pop3cli: Cli, serve: Serve) -> None:
    liar = Liar({"LIST": b"+OK\r\n1 1\r\n2 1\r\n.\r\n", "DELE": b"-ERR read-only\r\n"})
    server = serve(liar)
    ran = pop3cli("delete", server.account(), 1, 2, "--yes", "--cacert", server.certificate)
    assert ran.status == 1
    assert one_line(ran).endswith("read-only; nothing was deleted")
    assert b"QUIT\r\n" not in liar.seen


def test_json(pop3cli: Cli, server: Server, tmp_path: Path) -> None:
    common = (server.account(), "--cacert", server.certificate, "--json")

    def said(command: str, *arguments: object) -> object:
        ran = pop3cli(command, *common, *arguments)
        assert (ran.status, ran.err) == (0, "")
        return json.loads(ran.out)

    assert said("stat") == {"messages": 5, "octets": sum(map(len, NASTY))}
    listed = said("list")
    assert isinstance(listed, list)
    assert listed[0] == {
        "number": 1,
        "octets": len(NASTY[0]),
        "from": "Jörg <joerg@example.org>",
        "subject": "dots",
        "date": listed[0]["date"],
    }
    assert [row["date"] for row in listed[1:]] == [None] * 4
    assert said("uidl") == [{"number": n, "uid": f"uid-{n}"} for n in range(1, 6)]
    shown = said("show", 1)
    assert isinstance(shown, dict)
    assert (shown["number"], shown["subject"], shown["attachments"]) == (1, "dots", [])
    assert said("show", 1, "--headers") == {
        "number": 1,
        "headers": [
            ["From", "Jörg <joerg@example.org>"],
            ["Subject", "dots"],
            ["Date", "Tue, 2 Jan 2024 09:00:00 +0000"],
        ],
    }
    file = str(tmp_path / "m")
    assert said("get", 1, "-o", file) == {"number": 1, "octets": len(NASTY[0]), "file": file}
    assert said("delete", 3, 1, "--yes") == {"deleted": [1, 3]}


def test_json_of_an_empty_mailbox(pop3cli: Cli, serve: Serve) -> None:
    server = serve(Mailbox([]))
    assert pop3cli("list", server.account(), "--json", "--cacert", server.certificate).out == b"[]\n"


def test_list_without_top(pop3cli: Cli, serve: Serve) -> None:
    server = serve(Liar({"LIST": b"+OK\r\n1 10\r\n2 20\r\n.\r\n", "CAPA": b"-ERR\r\n", "TOP": b"-ERR what?\r\n"}))
    ran = pop3cli("list", server.account(), "--cacert", server.certificate)
    assert ran.status == 0
    assert [line.split() for line in ran.out.decode().splitlines()[1:]] == [["1", "10", "B"], ["2", "20", "B"]]
    assert "this server shows no headers" in ran.err


def test_list_with_a_message_that_fails(pop3cli: Cli, serve: Serve) -> None:
    server = serve(Mailbox(unreadable=(2,)))
    ran = pop3cli("list", server.account(), "--cacert", server.certificate)
    assert (ran.status, len(ran.out.splitlines())) == (1, 6)
    assert "the headers of 1 of 5 messages were refused" in ran.err


@pytest.mark.parametrize("before", [True, False])
def test_options_before_and_after(pop3cli: Cli, server: Server, before: bool) -> None:
    options = ["--json", "--no-color", "--timeout", "5", f"--cacert={server.certificate}"]
    options += ["--password-command", f"echo '{PASSWORD}'"]
    ran = pop3cli(*options, "stat", server.account()) if before else pop3cli("stat", server.account(), *options)
    assert (ran.status, json.loads(ran.out)["messages"]) == (0, 5)


def test_help_and_version(pop3cli: Cli) -> None:
    ran = pop3cli("--no-color", "--help")
    assert ran.status == 0
    for word in ("stat", "list", "uidl", "show", "get", "delete", "shell", "--cacert", "--password-command"):
        assert word in ran.out.decode()
    assert b"--cacert" in pop3cli("--no-color", "get", "--help").out
    assert pop3cli("--version").out.startswith(b"pop3cli")
    assert pop3cli().status == 2


# --- errors ---


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["frob"], "No such command 'frob'; see pop3cli --help"),
        (["get", "pop3s://a@b"], "Missing argument 'N'; see pop3cli get --help"),
        (["get", "pop3s://a@b", "0"], "Invalid value for 'N'"),
        (["stat", "pop3s://a@b", "--frob"], "No such option: --frob"),
        (
            ["stat", "alice"],
            "account alice: no account of that name (none has been added yet); add it: pop3cli account add alice URL",
        ),
        (["stat", "pop3s://a:pa55@b"], "a password in the account's URL"),
        (["stat", "pop3s://a@b", "--timeout", "0"], "Invalid value for '--timeout'"),
        (["get", "pop3s://a@b", "1", "--json"], "give -o FILE as well"),
        (["show", "pop3s://a@b", "1", "--raw", "--json"], "does not go with"),
        (["shell", "--json"], "a dialogue has no JSON form"),
    ],
)
def test_usage(pop3cli: Cli, arguments: list[str], text: str) -> None:
    ran = pop3cli(*arguments)
    assert (ran.status, ran.out) == (2, b"")
    assert text in one_line(ran)


def test_server_down(pop3cli: Cli) -> None:
    ran = pop3cli("stat", "pop3s://alice@127.0.0.1:1")
    assert ran.status == 69
    assert one_line(ran) == (
        "127.0.0.1 port 1: Connection refused; is the server running, and is it the right host and port?"
    )


def test_certificates(pop3cli: Cli, server: Server, serve: Serve) -> None:
    ran = pop3cli("stat", server.account())
    assert ran.status == 77
    assert one_line(ran).startswith(
        f"certificate of 127.0.0.1 port {server.port} refused: not signed by anyone trusted;"
    )
    bare = serve(Mailbox(), "cn")
    ran = pop3cli("stat", bare.account(host="localhost"), "--cacert", bare.certificate)
    assert ran.status == 77
    assert "only a common name" in one_line(ran)
    assert "pop3d cert create --host localhost" in one_line(ran)


def test_login(pop3cli: Cli, server: Server, serve: Serve) -> None:
    ran = pop3cli("stat", server.account(), "--cacert", server.certificate, "--password-command", "echo wrong")
    assert ran.status == 77
    assert "wrong user name or password; check user name and password" in one_line(ran)
    busy = serve(Mailbox(login=LoginRejected("IN-USE", "the mailbox is open")))
    ran = pop3cli("stat", busy.account(), "--cacert", busy.certificate)
    assert ran.status == 75
    assert "[IN-USE] the mailbox is open; the mailbox is open in another session" in one_line(ran)


@pytest.mark.parametrize("command", ["get", "show"])
def test_no_such_message(pop3cli: Cli, server: Server, command: str) -> None:
    ran = pop3cli(command, server.account(), 9, "--cacert", server.certificate)
    assert (ran.status, one_line(ran)) == (67, "message 9: no such message; `list` shows what there is")


def test_a_cut_in_the_middle_leaves_no_file(pop3cli: Cli, serve: Serve, tmp_path: Path) -> None:
    server = serve(Liar({"LIST": b"+OK 1 1000\r\n", "RETR": b"+OK\r\nhalf a message\r\n"}, cut="RETR"))
    file = tmp_path / "m.eml"
    file.write_bytes(b"before")
    ran = pop3cli("get", server.account(), 1, "-o", file, "--cacert", server.certificate)
    assert ran.status == 69
    assert one_line(ran) == f"127.0.0.1 port {server.port}: the server went away during RETR; try again"
    assert (file.read_bytes(), list(tmp_path.iterdir())) == (b"before", [file])


def test_a_broken_protocol(pop3cli: Cli, serve: Serve) -> None:
    server = serve(Liar({"STAT": b"+OK lots\r\n"}))
    ran = pop3cli("stat", server.account(), "--cacert", server.certificate)
    assert ran.status == 76
    assert "broke the protocol in answer to STAT: numbers are missing" in one_line(ran)


def test_a_server_that_is_silent(pop3cli: Cli, serve: Serve) -> None:
    server = serve(Liar({"STAT": b""}))
    ran = pop3cli("stat", server.account(), "--cacert", server.certificate, "--timeout", "0.3")
    assert (ran.status, "no answer within 0.3 s" in one_line(ran)) == (69, True)


def test_of_a_large_message_the_beginning_is_shown(
    pop3cli: Cli, serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    attached = b"--B\r\nContent-Type: application/pdf\r\n\r\n" + b"A" * 5000 + b"\r\n"
    text = b"--B\r\nContent-Type: text/plain\r\n\r\nthe text\r\n"
    head = b"Subject: large\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\n"
    server = serve(Mailbox([head + text + attached + b"--B--\r\n"]))
    common = ("show", server.account(), 1, "--cacert", server.certificate)
    assert "Attached" in pop3cli(*common).out.decode()
    monkeypatch.setattr("pop3cli.commands.show.WHOLE_MAX", 4000)
    monkeypatch.setattr("pop3cli.commands.show.BEGINNING", 1000)
    ran = pop3cli(*common)
    assert (ran.status, ran.out) == (0, b"Subject: large\n\nthe text\n")
    assert ran.err == "the message is larger than 16 MiB: only its beginning is shown; get -o FILE has all of it\n"
    assert json.loads(pop3cli(*common, "--json").out)["cut"].startswith("the message is larger")
    assert pop3cli(*common, "--save-attachments", tmp_path / "a").status == 0
    monkeypatch.setattr("pop3cli.commands.show._SAVED_MAX", 4000)
    ran = pop3cli(*common, "--save-attachments", tmp_path / "b")
    assert (ran.status, "too large to take apart; use get with -o FILE" in ran.err) == (65, True)
    assert not (tmp_path / "b").exists()


def test_headers_of_a_message_that_top_sends_whole(pop3cli: Cli, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pop3cli.commands.show.HEADERS_MAX", 100)
    content = b"Subject: one\r\n\r\n" + b"x\r\n" * 5000
    for top in (b"+OK\r\n" + content + b".\r\n", b"-ERR no such command\r\n"):
        liar = Liar({"LIST": b"+OK 1 15000\r\n", "TOP": top, "RETR": b"+OK\r\n" + content + b".\r\n"})
        server = serve(liar)
        ran = pop3cli("show", server.account(), 1, "--headers", "--cacert", server.certificate)
        assert (ran.status, ran.out) == (0, b"Subject: one\n"), ran.err
        assert b"QUIT\r\n" not in liar.seen


def test_settings(pop3cli: Cli, server: Server) -> None:
    ran = pop3cli("stat", server.account(), "--cacert", "/no/such/file")
    assert (ran.status, one_line(ran)) == (78, "--cacert /no/such/file: cannot be read: No such file or directory")
    ran = pop3cli("stat", server.account(), "--cacert", server.certificate, "--password-command", "false")
    assert (ran.status, one_line(ran)) == (78, "--password-command: false ended with status 1")


def test_output_that_cannot_be_written(pop3cli: Cli, server: Server) -> None:
    ran = pop3cli("get", server.account(), 1, "-o", "/no/such/folder/m", "--cacert", server.certificate)
    assert (ran.status, one_line(ran)) == (74, "/no/such/folder/m: cannot write: No such file or directory")


def test_a_bug_of_ours_is_one_line(pop3cli: Cli, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pop3cli.commands.list.human_size", lambda octets: 1 // 0)
    ran = pop3cli("stat", server.account(), "--cacert", server.certificate)
    assert ran.status == 70
    assert "a bug of ours: ZeroDivisionError" in one_line(ran)
    ran = pop3cli("stat", server.account(), "--cacert", server.certificate, "--debug")
    assert (ran.status, "Traceback" in ran.err) == (70, True)


# --- as a process ---


def test_full_and_closed_outputs(server: Server) -> None:
    arguments = ("list", server.account(), "--cacert", server.certificate)
    with open("/dev/full", "wb") as full:
        done = spawn(*arguments, stdout=full, stderr=subprocess.PIPE)
        _, err = done.communicate(timeout=20)
    assert (done.returncode, err) == (74, b"pop3cli: standard output: cannot write: No space left on device\n")
    reading, writing = os.pipe()
    os.close(reading)
    done = spawn(*arguments, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    _, err = done.communicate(timeout=20)
    assert (done.returncode, err) == (74, b"")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["sync", "--help"], []])
def test_help_on_a_full_disk(arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = spawn(*arguments, stdout=full, stderr=subprocess.PIPE)
        _, err = done.communicate(timeout=20)
    assert (done.returncode, err) == (74, b"pop3cli: standard output: cannot write: No space left on device\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_locale_without_the_characters(server: Server, encoding: str) -> None:
    common = (server.account(), "--cacert", server.certificate)
    for arguments, seen in (
        (("list", *common), "J\xf6rg"),
        (("show", *common[:1], 1, *common[1:]), "J\xf6rg"),
        (("get", *common[:1], 2, *common[1:]), "Subject: 8-bit \xff\xfe"),
        (("stats", *common), "####################\n"),
    ):
        done = spawn(
            *arguments, environment={"PYTHONIOENCODING": encoding}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = done.communicate(timeout=20)
        # a message's octets are no text, and stay what they are
        wanted = seen.encode("latin-1" if arguments[0] == "get" else encoding, "replace")
        assert (done.returncode, err) == (0, b"")
        assert wanted in out


def test_an_address_is_no_account(pop3cli: Cli) -> None:
    ran = pop3cli("list", "alice@example.org")
    assert ran.status == 2
    assert one_line(ran).endswith("the server of an address is found by pop3cli discover alice@example.org")


def test_ctrl_c(serve: Serve) -> None:
    liar = Liar({"STAT": b""})
    server = serve(liar)
    process = spawn("stat", server.account(), "--cacert", server.certificate, stderr=subprocess.PIPE)
    liar.until(b"STAT\r\n")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (130, b"pop3cli: interrupted\n")


def test_the_password_is_asked_for_on_a_terminal(server: Server) -> None:
    master, slave = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "POP3CLI_PASSWORD"}
    command = [sys.executable, "-m", "pop3cli", "stat", server.account(), "--cacert", str(server.certificate)]
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
    )
    os.close(slave)
    screen = Screen(master)
    screen.until(b"Password for alice@127.0.0.1: ")
    screen.type(PASSWORD + "\r")
    screen.until(b"5 messages")
    assert process.wait(10) == 0
    assert PASSWORD.encode() not in screen.seen


def test_a_terminal_is_asked_before_deleting(server: Server, mailbox: Mailbox) -> None:
    for answer, status, said in (("n", 1, b"nothing was deleted"), ("y", 0, b"1 message deleted")):
        master, slave = pty.openpty()
        process = spawn(
            "delete", server.account(), 1, "--cacert", server.certificate, stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)
        screen = Screen(master)
        screen.until(b"Delete this 1 message of alice@127.0.0.1? [y/N] ")
        assert b"dots" in screen.seen
        screen.type(answer + "\r")
        screen.until(said)
        assert process.wait(10) == status
    assert mailbox.deleted == (1,)
