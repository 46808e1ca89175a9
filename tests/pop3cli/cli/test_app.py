"""The command line: JSON, help, every exit status, one line for every error."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pop3core.answers import LoginRejected
from tests.pop3cli.conftest import NASTY, PASSWORD, Cli, Liar, Mailbox, Screen, Serve, Server, one_line, spawn


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


def test_a_broken_protocol(pop3cli: Cli, serve: Serve) -> None:
    server = serve(Liar({"STAT": b"+OK lots\r\n"}))
    ran = pop3cli("stat", server.account(), "--cacert", server.certificate)
    assert ran.status == 76
    assert "broke the protocol in answer to STAT: numbers are missing" in one_line(ran)


def test_a_server_that_is_silent(pop3cli: Cli, serve: Serve) -> None:
    server = serve(Liar({"STAT": b""}))
    ran = pop3cli("stat", server.account(), "--cacert", server.certificate, "--timeout", "0.3")
    assert (ran.status, "no answer within 0.3 s" in one_line(ran)) == (69, True)


def test_settings(pop3cli: Cli, server: Server) -> None:
    ran = pop3cli("stat", server.account(), "--cacert", "/no/such/file")
    assert (ran.status, one_line(ran)) == (78, "--cacert /no/such/file: cannot be read: No such file or directory")
    ran = pop3cli("stat", server.account(), "--cacert", server.certificate, "--password-command", "false")
    assert (ran.status, one_line(ran)) == (78, "--password-command: false ended with status 1")


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
