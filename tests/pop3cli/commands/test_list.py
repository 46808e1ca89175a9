"""`pop3cli stat`, `uidl` and `list`: what they show, which messages, and lines that fit a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import termios
import time

import pytest

from tests.pop3cli.conftest import NASTY, Cli, Liar, Mailbox, Screen, Serve, Server, many_messages, spawn


def test_the_last_messages(pop3cli: Cli, serve: Serve) -> None:
    server = serve(Mailbox(many_messages(7)))
    common = (server.account(), "--cacert", server.certificate)
    ran = pop3cli("list", *common, "--last", 2)
    assert [line.split()[0] for line in ran.out.decode().splitlines()] == ["No", "6", "7"]
    assert ran.err == "the last 2 of 7 messages; --all shows all\n"
    assert len(json.loads(pop3cli("list", *common, "--json").out)) == 7
    assert pop3cli("list", *common, "--all", "--last", 2).status == 2


@pytest.mark.parametrize("columns", [100, 60, 40])
def test_a_terminal_shows_the_last_and_no_line_is_broken(serve: Serve, columns: int) -> None:
    server = serve(Mailbox(many_messages(205)))
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
