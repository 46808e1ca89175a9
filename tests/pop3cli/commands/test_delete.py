"""`pop3cli delete`: all or nothing, confirmed, and told once it is done."""

from __future__ import annotations

import os
import pty

from pop3core.answers import CommitFailed
from tests.pop3cli.conftest import Cli, Liar, Mailbox, Screen, Serve, Server, one_line, spawn


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
