"""`pop3cli show` and `get`: a message for people, and its exact octets."""

from __future__ import annotations

import json
import os
import pty
from pathlib import Path

import pytest

from tests.pop3cli.conftest import NASTY, Cli, Liar, Mailbox, Ran, Screen, Serve, Server, one_line, spawn


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


def test_output_that_cannot_be_written(pop3cli: Cli, server: Server) -> None:
    ran = pop3cli("get", server.account(), 1, "-o", "/no/such/folder/m", "--cacert", server.certificate)
    assert (ran.status, one_line(ran)) == (74, "/no/such/folder/m: cannot write: No such file or directory")
