"""`pop3cli sync` and servers that lie: what is said is clear, and nothing is lost."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pop3cli.sync import run as run_module
from tests.pop3cli.conftest import Liar, Mailbox, Ran, Serve, Server

TWO = {
    "CAPA": b"-ERR\r\n",
    "LIST": b"+OK\r\n1 7\r\n2 7\r\n.\r\n",
    "UIDL": b"+OK\r\n1 one\r\n2 two\r\n.\r\n",
    "RETR": b"+OK\r\nA: b\r\n\r\n.\r\n",  # 8 octets
}
HONEST = {**TWO, "LIST": b"+OK\r\n1 8\r\n2 8\r\n.\r\n"}
Fetch = Callable[..., Ran]


@pytest.fixture
def fetch(pop3cli: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fetch:
    """`fetch(server, options...)`: into `tmp_path/out`."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "remembered"))
    monkeypatch.setattr("pop3cli.mailbox.index.Reconnect.pauses", lambda _: iter((0.0,)))

    def run(server: Server, *options: object) -> Ran:
        return pop3cli("sync", server.account(), tmp_path / "out", "--cacert", server.certificate, *options)

    return run


def kept(tmp_path: Path) -> list[bytes]:
    assert not list((tmp_path / "out/tmp").iterdir())
    return [path.read_bytes() for path in (tmp_path / "out/new").iterdir()]


def test_without_a_terminator_nothing_was_received(serve: Serve, fetch: Fetch, tmp_path: Path) -> None:
    liar = Liar({**HONEST, "RETR": b"+OK\r\nA: b\r\n\r\n"}, cut="RETR")
    ran = fetch(serve(liar), "--delete")
    assert ran.status == 69
    assert "went away during RETR" in ran.err
    assert kept(tmp_path) == []
    assert not [line for line in liar.seen if line.startswith(b"DELE")]


def test_a_wrong_size_is_believed_after_a_second_time(serve: Serve, fetch: Fetch, tmp_path: Path) -> None:
    liar = Liar(TWO)
    server = serve(liar)
    assert fetch(server).status == 0
    assert kept(tmp_path) == [b"A: b\n\n"] * 2
    assert liar.seen.count(b"RETR 1\r\n") == 1
    ran = fetch(server, "--delete")
    assert ran.out == b"alice@127.0.0.1: nothing new; 2 deleted\n"
    assert liar.seen.count(b"RETR 1\r\n") == 2
    assert liar.seen[-3:] == [b"DELE 1\r\n", b"DELE 2\r\n", b"QUIT\r\n"]
    assert len(kept(tmp_path)) == 2


def test_an_odd_message_that_comes_otherwise_is_not_deleted(serve: Serve, fetch: Fetch, tmp_path: Path) -> None:
    replies = dict(TWO)
    liar = Liar(replies)
    server = serve(liar)
    fetch(server)
    replies["RETR"] = b"+OK\r\nA: c\r\n\r\n.\r\n"
    ran = fetch(server, "--delete")
    assert ran.status == 1
    assert "not as LIST announced, nor as it came before" in ran.err
    assert not [line for line in liar.seen if line.startswith(b"DELE")]


def test_a_message_of_another_size_is_deleted_when_it_comes_as_before(
    serve: Serve, fetch: Fetch, tmp_path: Path
) -> None:
    replies = dict(HONEST)
    liar = Liar(replies)
    server = serve(liar)
    fetch(server)
    replies["LIST"] = b"+OK\r\n1 8\r\n2 800\r\n.\r\n"
    ran = fetch(server, "--delete")
    assert (ran.status, ran.out) == (0, b"alice@127.0.0.1: nothing new; 2 deleted\n")
    assert [line for line in liar.seen if line[:4] == b"RETR"] == [b"RETR 1\r\n", b"RETR 2\r\n", b"RETR 2\r\n"]
    assert kept(tmp_path) == [b"A: b\n\n"] * 2


@pytest.mark.parametrize("listed", [b"+OK\r\n1 8\r\n1 9\r\n.\r\n", b"+OK\r\n1 8\r\n2 8\r\n1 8\r\n.\r\n"])
def test_a_message_that_is_listed_twice_ends_the_run(serve: Serve, fetch: Fetch, tmp_path: Path, listed: bytes) -> None:
    liar = Liar({**HONEST, "LIST": listed})
    ran = fetch(serve(liar), "--delete")
    assert ran.status == 76
    assert "LIST names message 1 twice; nothing was done" in ran.err
    liar = Liar({**HONEST, "UIDL": b"+OK\r\n1 one\r\n1 two\r\n.\r\n"})
    assert "UIDL names message 1 twice; nothing was done" in fetch(serve(liar), "--delete").err
    assert not [line for line in liar.seen if line[:4] in (b"RETR", b"DELE")]


@pytest.mark.parametrize("pipelining", [b"-ERR\r\n", b"+OK\r\nPIPELINING\r\n.\r\n"])
def test_one_refused_deletion_stops_no_other(serve: Serve, fetch: Fetch, tmp_path: Path, pipelining: bytes) -> None:
    liar = Liar({**HONEST, "CAPA": pipelining, "DELE": b"-ERR not that one\r\n"})
    ran = fetch(serve(liar), "--delete")
    assert (ran.status, ran.out) == (1, b"alice@127.0.0.1: 2 messages fetched, 16 B; 2 left\n")
    assert "DELE 1 refused by" in ran.err and "DELE 2 refused by" in ran.err
    assert liar.seen[-1] == b"QUIT\r\n"


def test_unique_ids_that_are_too_long_to_keep_are_left_and_told(serve: Serve, fetch: Fetch, tmp_path: Path) -> None:
    uids = b"+OK\r\n1 " + b"x" * 251 + b"\r\n2 two\r\n3 " + b"y" * 250 + b"\r\n.\r\n"
    liar = Liar({**HONEST, "LIST": b"+OK\r\n1 8\r\n2 8\r\n3 8\r\n.\r\n", "UIDL": uids})
    ran = fetch(serve(liar))
    assert ran.status == 1
    assert "a message has no unique-id, or a too long one, and stays on the server" in ran.err
    assert [line for line in liar.seen if line[:4] == b"RETR"] == [b"RETR 2\r\n", b"RETR 3\r\n"]
    assert len(kept(tmp_path)) == 2


def test_shared_unique_ids_are_left_and_told(serve: Serve, fetch: Fetch, tmp_path: Path) -> None:
    three = {"LIST": b"+OK\r\n1 8\r\n2 8\r\n3 8\r\n4 8\r\n.\r\n", "UIDL": b"+OK\r\n1 one\r\n2 two\r\n3 one\r\n.\r\n"}
    liar = Liar({**HONEST, **three})
    ran = fetch(serve(liar), "--delete")
    assert ran.status == 1
    assert "several messages have the unique-id one, and stay on the server" in ran.err
    assert "a message has no unique-id" in ran.err
    assert [line for line in liar.seen if line[:4] in (b"RETR", b"DELE")] == [b"RETR 2\r\n", b"DELE 2\r\n"]
    assert len(kept(tmp_path)) == 1


def test_unique_ids_are_no_paths(serve: Serve, fetch: Fetch, tmp_path: Path) -> None:
    liar = Liar({**HONEST, "UIDL": b"+OK\r\n1 ../../../evil\r\n2 /etc/passwd\r\n.\r\n"})
    server = serve(liar)
    assert fetch(server).status == 0
    assert len(kept(tmp_path)) == 2
    assert not list(tmp_path.rglob("*evil*"))
    assert fetch(server).out == b"alice@127.0.0.1: nothing new\n"


def test_no_unique_ids_at_all(serve: Serve, fetch: Fetch, tmp_path: Path) -> None:
    ran = fetch(serve(Liar({**HONEST, "UIDL": b"-ERR what?\r\n"})))
    assert ran.status == 76
    assert "has no UIDL: what?; without unique-ids nobody can tell what was fetched already" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_message_that_does_not_end(
    serve: Serve, fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "_ABOVE", 1_000_000)
    liar = Liar({**HONEST, "RETR": b"+OK\r\n"}, endless={"RETR": b"x" * 70 + b"\r\n"})
    ran = fetch(serve(liar))
    assert ran.status == 76
    assert "a message does not end; it was not kept" in ran.err
    assert kept(tmp_path) == []


def test_what_the_server_refuses_stays_there(serve: Serve, fetch: Fetch, tmp_path: Path) -> None:
    mailbox = Mailbox(messages=[b"A: %d\r\n\r\n" % n for n in range(4)], unreadable=(2,))
    ran = fetch(serve(mailbox), "--delete", "--json")
    row = json.loads(ran.out)
    assert (ran.status, row["fetched"], row["deleted"], row["left"]) == (1, 3, 3, 1)
    assert mailbox.deleted == (1, 3, 4)
    assert "the disk is asleep" in row["problems"][0]


def test_a_quit_that_is_refused_forgets_nothing(serve: Serve, fetch: Fetch, tmp_path: Path) -> None:
    liar = Liar({**HONEST, "QUIT": b"-ERR [SYS/TEMP] 2 messages not deleted\r\n"})
    server = serve(liar)
    ran = fetch(server, "--delete")
    assert ran.status == 75
    assert "2 fetched" not in ran.out.decode()
    liar.replies = HONEST
    assert fetch(server, "--delete").out == b"alice@127.0.0.1: nothing new; 2 deleted\n"
    assert len(kept(tmp_path)) == 2


def test_a_list_that_is_lost_for_a_day_fetches_nothing_again(serve: Serve, fetch: Fetch, tmp_path: Path) -> None:
    liar = Liar(HONEST)
    server = serve(liar)
    fetch(server)
    liar.replies = {**HONEST, "LIST": b"+OK\r\n.\r\n", "UIDL": b"+OK\r\n.\r\n"}
    assert fetch(server).out == b"alice@127.0.0.1: nothing new\n"
    liar.replies = HONEST
    assert fetch(server).out == b"alice@127.0.0.1: nothing new\n"
    assert len(kept(tmp_path)) == 2


def test_a_message_larger_than_a_batch_is_whole(serve: Serve, fetch: Fetch, tmp_path: Path) -> None:
    line = b"." + b"x" * 61 + b"\r\n"
    content = (b"." + line) * 300_000  # stuffed
    replies = {**HONEST, "LIST": b"+OK\r\n1 %d\r\n.\r\n" % (len(line) * 300_000), "UIDL": b"+OK\r\n1 one\r\n.\r\n"}
    liar = Liar({**replies, "RETR": b"+OK\r\n" + content + b".\r\n"})
    assert fetch(serve(liar)).status == 0
    (path,) = (tmp_path / "out/new").iterdir()
    assert path.read_bytes() == line.replace(b"\r", b"") * 300_000
