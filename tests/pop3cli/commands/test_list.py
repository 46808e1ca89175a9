"""`pop3cli list`: which messages, and lines that fit a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import termios

import pytest

from tests.pop3cli.conftest import Cli, Mailbox, Screen, Serve, many_messages, spawn


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
