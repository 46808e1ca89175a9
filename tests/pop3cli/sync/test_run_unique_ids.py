"""`pop3cli sync` and unique-ids given to another message (RFC 1939 §7): nothing is deleted that was not fetched."""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pop3cli.sync.maildir import Maildir
from pop3cli.sync.state import Kind, SyncState
from tests.pop3cli.conftest import Ran, Serve

ONE, TWO = b"Subject: one\r\n\r\n", b"Subject: two\r\n\r\n"  # as many octets
LARGE = b"Subject: large\r\n\r\ntext\r\n"


@dataclass
class Shelf:
    """A server whose messages can be exchanged under their unique-ids. ``quit``: its answer, None for a cut."""

    mails: dict[str, bytes]
    quit: bytes | None = b"+OK\r\n"
    removes: bool = True
    said: list[str] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"+OK\r\n")
        mails, marked = list(self.mails.items()), set[str]()
        while line := (await reader.readline()).decode():
            keyword, _, number = line.strip().partition(" ")
            uid, content = mails[int(number) - 1] if number.isdigit() else ("", b"")
            match keyword:
                case "LIST":
                    lines = [b"%d %d" % (n, len(mail)) for n, (_, mail) in enumerate(mails, 1)]
                    writer.write(b"\r\n".join([b"+OK", *lines, b".", b""]))
                case "UIDL":
                    lines = [b"%d %s" % (n, one.rstrip("*").encode()) for n, (one, _) in enumerate(mails, 1)]
                    writer.write(b"\r\n".join([b"+OK", *lines, b".", b""]))
                case "RETR":
                    self.said.append(f"RETR {uid}")
                    writer.write(b"+OK\r\n" + content + b".\r\n")
                case "DELE":
                    self.said.append(f"DELE {uid}")
                    marked.add(uid)
                    writer.write(b"+OK\r\n")
                case "QUIT":
                    if self.removes:
                        self.mails = {one: mail for one, mail in self.mails.items() if one not in marked}
                    writer.write(self.quit or b"")
                    return
                case "CAPA":
                    writer.write(b"-ERR\r\n")
                case _:
                    writer.write(b"+OK\r\n")

    def took(self) -> list[str]:
        """What was fetched and deleted since this was asked."""
        said, self.said = self.said, []
        return said


Fetch = Callable[..., Ran]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf({"1": ONE, "2": LARGE})


@pytest.fixture
def fetch(
    serve: Serve, shelf: Shelf, pop3cli: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Fetch:
    """`fetch(options...)`: from the shelf into `tmp_path/out`."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "remembered"))
    monkeypatch.setattr("pop3cli.mailbox.index.Reconnect.pauses", lambda _: iter(()))
    server = serve(shelf)

    def run(*options: object) -> Ran:
        return pop3cli("sync", server.account(), tmp_path / "out", "--cacert", server.certificate, *options)

    return run


def kept(tmp_path: Path) -> list[bytes]:
    return sorted(path.read_bytes().replace(b"\n", b"\r\n") for path in (tmp_path / "out/new").iterdir())


def test_what_our_quit_removed_is_forgotten_at_once(fetch: Fetch, shelf: Shelf, tmp_path: Path) -> None:
    fetch("--delete")
    shelf.took()
    shelf.mails = {"1": TWO}
    assert fetch("--delete").out == b"alice@127.0.0.1: 1 message fetched, 16 B; 1 deleted\n"
    assert shelf.took() == ["RETR 1", "DELE 1"]
    assert kept(tmp_path) == sorted([ONE, TWO, LARGE])


def test_what_a_quit_without_an_answer_may_have_removed_is_compared(fetch: Fetch, shelf: Shelf, tmp_path: Path) -> None:
    shelf.quit = None
    assert fetch("--delete").status == 69
    shelf.took()
    shelf.mails, shelf.quit = {"1": TWO, "2": LARGE}, b"+OK\r\n"
    assert fetch("--delete").out == b"alice@127.0.0.1: 1 message fetched, 16 B; 2 deleted\n"
    assert shelf.took() == ["RETR 1", "RETR 2", "DELE 1", "DELE 2"]
    assert kept(tmp_path) == sorted([ONE, TWO, LARGE])


def test_what_was_away_is_compared_before_it_is_deleted(fetch: Fetch, shelf: Shelf, tmp_path: Path) -> None:
    fetch()
    mails, shelf.mails = shelf.mails, {}
    fetch()
    shelf.mails = {**mails, "1": TWO}
    shelf.took()
    assert fetch().out == b"alice@127.0.0.1: nothing new\n"  # the list may have been lost for a day
    assert shelf.took() == []
    assert fetch("--delete").out == b"alice@127.0.0.1: 1 message fetched, 16 B; 2 deleted\n"
    assert shelf.took() == ["RETR 1", "RETR 2", "DELE 1", "DELE 2"]
    assert kept(tmp_path) == sorted([ONE, TWO, LARGE])


def test_what_the_user_has_removed_from_the_destination_is_still_known(
    fetch: Fetch, shelf: Shelf, tmp_path: Path
) -> None:
    fetch()
    mails, shelf.mails = shelf.mails, {}
    fetch()
    shelf.mails = mails
    for path in (tmp_path / "out/new").iterdir():
        path.unlink()
    assert fetch("--delete").out == b"alice@127.0.0.1: nothing new; 2 deleted\n"
    assert kept(tmp_path) == []


@pytest.mark.parametrize("options", [(), ("--delete",)])
def test_an_id_of_another_size_is_a_new_message(
    fetch: Fetch, shelf: Shelf, tmp_path: Path, options: tuple[str, ...]
) -> None:
    fetch()
    shelf.mails["1"] = LARGE.replace(b"text", b"more")
    ran = fetch(*options)
    assert (ran.status, b"1 message fetched" in ran.out) == (0, True)
    assert kept(tmp_path) == sorted([ONE, LARGE, LARGE.replace(b"text", b"more")])
    assert fetch().out == b"alice@127.0.0.1: nothing new\n"


def test_a_server_that_gives_one_id_out_again_is_trusted_with_no_other(
    fetch: Fetch, shelf: Shelf, tmp_path: Path
) -> None:
    fetch()
    shelf.mails = {"1": LARGE.replace(b"text", b"more"), "2": LARGE.replace(b"text", b"next")}
    shelf.took()
    assert fetch("--delete").out == b"alice@127.0.0.1: 2 messages fetched, 48 B; 2 deleted\n"
    assert shelf.took() == ["RETR 1", "RETR 2", "DELE 1", "DELE 2"]
    assert len(kept(tmp_path)) == 4


def test_an_id_that_two_messages_had_is_compared(fetch: Fetch, shelf: Shelf, tmp_path: Path) -> None:
    fetch()
    shelf.mails["1*"] = TWO  # told as the other "1"
    ran = fetch("--delete")
    assert "several messages have the unique-id 1" in ran.err
    del shelf.mails["1"]
    shelf.mails = {"1": shelf.mails["1*"]}
    shelf.took()
    assert fetch("--delete").out == b"alice@127.0.0.1: 1 message fetched, 16 B; 1 deleted\n"
    assert kept(tmp_path) == sorted([ONE, TWO, LARGE])


def test_after_a_lost_state_what_is_found_again_is_compared_before_it_is_deleted(
    fetch: Fetch, shelf: Shelf, tmp_path: Path
) -> None:
    fetch("--delete")
    for path in (tmp_path / "remembered/pop3cli").iterdir():
        path.unlink()
    shelf.mails = {"1": TWO, "2": LARGE}
    shelf.took()
    assert fetch().out == b"alice@127.0.0.1: nothing new\n"
    assert fetch("--delete").out == b"alice@127.0.0.1: 1 message fetched, 16 B; 2 deleted\n"
    assert shelf.took() == ["RETR 1", "RETR 2", "DELE 1", "DELE 2"]
    assert kept(tmp_path) == sorted([ONE, TWO, LARGE])


def test_what_the_filter_did_not_want_is_judged_again_when_it_is_another_message(
    fetch: Fetch, shelf: Shelf, tmp_path: Path
) -> None:
    command = f"""{sys.executable} -c 'import sys; sys.exit(101 if "one" in sys.stdin.read() else 0)'"""
    shelf.removes, shelf.quit = False, b"-ERR not now\r\n"
    fetch("--filter", command)
    shelf.mails["1"] = TWO
    shelf.removes, shelf.quit = True, b"+OK\r\n"
    shelf.took()
    assert fetch("--filter", command).out == b"alice@127.0.0.1: 1 message fetched, 16 B\n"
    assert shelf.took() == ["RETR 1"]
    assert TWO in kept(tmp_path)


def test_headers_are_found_again_as_headers_behind_a_run_that_was_killed(tmp_path: Path) -> None:
    maildir = Maildir(tmp_path / "box", "alice", headers_only=True)
    maildir.prepare()
    draft = maildir.begin("2")
    draft.write(b"Subject: large\r\n\r\n")
    draft.finish()
    with SyncState.opened(tmp_path / "state", "alice") as state:
        maildir.store([draft], state, [])
        assert state.run_open
        maildir.recover(state, [("2", len(LARGE))])
        assert state.entries["2"].kind is Kind.HEADERS
