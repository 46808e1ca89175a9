"""Dovecot's protocol against a peer that does not keep to it; the real one is in `test_dovecot`."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3d.auth import AuthUnavailable
from pop3d.auth.dovecot_socket import DovecotSocket, _unescaped, escaped

HANDSHAKE = b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tx\nSPID\t1\nCUID\t2\nCOOKIE\tab\nDONE\n"
Answer = Callable[[list[bytes]], bytes | None]


class Peer:
    """What listens where Dovecot should. ``answer``: what it says to a line; None: it hangs up."""

    def __init__(self, greeting: bytes, answer: Answer = lambda _: b"") -> None:
        self.greeting, self.answer = greeting, answer
        self.heard: list[bytes] = []
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            writer.write(self.greeting)
            while line := await reader.readline():
                self.heard.append(line)
                said = self.answer(line.rstrip(b"\n").split(b"\t"))
                if said is None:
                    break
                writer.write(said)
        finally:
            writer.close()


@asynccontextmanager
async def asking(peer: Peer, *, seconds_max: float = 20, master: bool = False) -> AsyncIterator[DovecotSocket]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "socket"
        server = await asyncio.start_unix_server(peer.serve, path)
        dovecot = DovecotSocket(path, master=master, seconds_max=seconds_max)
        try:
            async with asyncio.timeout(60):
                yield dovecot
        finally:
            await dovecot.close()
            server.close()


def to_auth(reply: bytes) -> Answer:
    """``reply``, with the number asked about in place of ``%d``, to AUTH alone."""
    return lambda line: reply.replace(b"%d", line[1]) if line[0] == b"AUTH" else b""


async def test_a_question_and_its_answer() -> None:
    peer = Peer(HANDSHAKE, to_auth(b"OK\t%d\tuser=\x01ta\x011b\tbare\n"))
    async with asking(peer) as dovecot:
        assert await dovecot.mechanisms() == {"PLAIN", "X"}
        reply = await dovecot.ask("AUTH", b"PLAIN", b"resp=" + b"x")
        assert (reply.word, reply.fields) == ("OK", {"user": "\ta\x01b", "bare": ""})
        assert peer.heard[0] == b"VERSION\t1\t2\n"
        assert peer.heard[1].startswith(b"CPID\t")
        assert peer.heard[2:] == [b"AUTH\t1\tPLAIN\tresp=x\n"]


async def test_a_dovecot_that_waits_for_our_version() -> None:
    """As 2.4 does."""

    def answer(line: list[bytes]) -> bytes:
        return HANDSHAKE if line[0] == b"VERSION" else to_auth(b"OK\t%d\tuser=alice\n")(line) or b""

    async with asking(Peer(b"", answer)) as dovecot:
        assert (await dovecot.ask("AUTH", b"PLAIN")).fields == {"user": "alice"}


async def test_answers_come_in_any_order() -> None:
    waiting: list[bytes] = []

    def answer(line: list[bytes]) -> bytes:
        if line[0] == b"AUTH":
            waiting.append(line[1])
        if len(waiting) < 50:
            return b""
        said = b"".join(b"OK\t%s\tuser=%s\n" % (number, number) for number in reversed(waiting))
        waiting.clear()
        return said

    async with asking(Peer(HANDSHAKE, answer)) as dovecot:
        replies = await asyncio.gather(*(dovecot.ask("AUTH", b"PLAIN") for _ in range(50)))
    assert [reply.first for reply in replies] == [f"user={number}" for number in range(1, 51)]


@pytest.mark.parametrize(
    ("greeting", "words"),
    [
        (b"+OK POP3 ready\r\n", "does not speak version 1"),
        (b"VERSION\t2\t0\nDONE\n", "does not speak version 1"),
        (b"MECH\tPLAIN\nDONE\n", "does not speak version 1"),
        (b"\xff\0" * 1000 + b"\n", "does not speak version 1"),
        (b"x" * 70_000, "more than 65536 octets"),
        (b"VERSION\t1\t2\n" + b"MECH\tPLAIN\n" * 200, "its handshake has no end"),
        (b"VERSION\t1\t2\nMECH", "says nothing"),
        (b"", "says nothing"),
    ],
)
async def test_no_handshake(greeting: bytes, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pop3d.auth.dovecot_socket._HANDSHAKE_SECONDS", 0.5)
    async with asking(Peer(greeting)) as dovecot:
        with pytest.raises(AuthUnavailable, match=words):
            await dovecot.ask("AUTH", b"PLAIN")


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b"+OK\n", "not of the authentication protocol"),
        (b"OK\n", "not of the authentication protocol"),
        (b"OK\tx\n", "not of the authentication protocol"),
        (b"OK\t" + b"1" * 5000 + b"\n", "not of the authentication protocol"),
        (b"\xff\xfe\0\n", "not of the authentication protocol"),
        (b"OK\t%d\tuser=" + b"x" * 70_000 + b"\n", "more than 65536 octets"),
        (b"CONT\t%d\t\n", "asks for more than a password"),
        (b"OK\t%d\tuser=alice", "did not answer"),  # and no end of the line
        (b"OK\t77\tuser=alice\n", "did not answer in"),
        (b"", "did not answer in"),
    ],
)
async def test_no_answer(reply: bytes, words: str) -> None:
    """It costs the question, and the next one is asked anew."""
    peer = Peer(HANDSHAKE, to_auth(reply))
    async with asking(peer, seconds_max=1) as dovecot:
        with pytest.raises(AuthUnavailable, match=words):
            await dovecot.ask("AUTH", b"PLAIN")
        peer.answer = to_auth(b"OK\t%d\tuser=alice\n")
        assert (await dovecot.ask("AUTH", b"PLAIN")).word == "OK"


async def test_octets_that_are_no_text_do_no_harm() -> None:
    async with asking(Peer(HANDSHAKE, to_auth(b"OK\t%d\tuser=\xff\x01\t\x01\t=\n"))) as dovecot:
        reply = await dovecot.ask("AUTH", b"PLAIN")
        assert reply.fields["user"] == "\udcff"


async def test_a_challenge_is_answered_once() -> None:
    def answer(line: list[bytes]) -> bytes:
        said = {b"AUTH": b"CONT\t%d\te30=\n", b"CONT": b"FAIL\t%d\n"}.get(line[0], b"")
        return said.replace(b"%d", line[1])

    peer = Peer(HANDSHAKE, answer)
    async with asking(peer) as dovecot:
        assert (await dovecot.ask("AUTH", b"XOAUTH2", continued=b"AQ==")).word == "FAIL"
        assert peer.heard[-1] == b"CONT\t1\tAQ==\n"


async def test_who_gives_up_ends_nothing_for_the_others() -> None:
    """A client that goes away while its password is checked: Dovecot is told, and the connection stays."""
    numbers: list[bytes] = []

    def answer(line: list[bytes]) -> bytes:
        if line[0] == b"AUTH":
            numbers.append(line[1])
        return b"OK\t%s\tuser=bob\n" % numbers[1] if line[0] == b"CANCEL" else b""

    peer = Peer(HANDSHAKE, answer)
    async with asking(peer) as dovecot:
        first = asyncio.create_task(dovecot.ask("AUTH", b"PLAIN"))
        second = asyncio.create_task(dovecot.ask("AUTH", b"PLAIN"))
        while len(numbers) < 2:
            await asyncio.sleep(0.01)
        first.cancel()
        assert (await second).fields == {"user": "bob"}
        assert b"CANCEL\t1\n" in peer.heard
        assert peer.connections == 1


async def test_a_peer_that_hangs_up_fails_all_that_wait() -> None:
    peer = Peer(HANDSHAKE, lambda line: None if line[1:2] == [b"3"] else b"")
    async with asking(peer) as dovecot:
        answers = await asyncio.gather(*(dovecot.ask("AUTH", b"PLAIN") for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in answers] == [AuthUnavailable] * 3


async def test_attempts_to_connect_are_shared_and_spaced() -> None:
    peer = Peer(b"garbage\n")
    async with asking(peer) as dovecot:
        begun = time.monotonic()
        for _ in range(4):
            waiting = (dovecot.ask("AUTH", b"PLAIN") for _ in range(50))
            answers = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(one) for one in answers] == [AuthUnavailable] * 50
        assert peer.connections == 4
        assert time.monotonic() - begun >= 0.1 + 0.2 + 0.4
        peer.greeting, peer.answer = HANDSHAKE, to_auth(b"OK\t%d\tuser=alice\n")
        assert (await dovecot.ask("AUTH", b"PLAIN")).word == "OK"


async def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    dovecot = DovecotSocket(tmp_path / "none", seconds_max=5)
    with pytest.raises(AuthUnavailable, match="No such file or directory; start Dovecot, with this unix_listener"):
        await dovecot.mechanisms()
    await dovecot.close()


async def test_the_handshake_of_the_userdb_is_shorter() -> None:
    peer = Peer(b"VERSION\t1\t1\nSPID\t1\n", lambda line: b"USER\t1\talice\thome=/h\n" if line[0] == b"USER" else b"")
    async with asking(peer, master=True) as dovecot:
        reply = await dovecot.ask("USER", b"Alice", b"service=pop3")
        assert (reply.word, reply.first, reply.fields["home"]) == ("USER", "alice", "/h")
        assert peer.heard[0] == b"VERSION\t1\t1\n"


@given(st.binary())
def test_a_field_comes_back_as_it_was(octets: bytes) -> None:
    line = escaped(octets)
    assert not set(line) & set(b"\0\t\r\n")
    assert _unescaped(line) == octets
