"""The async client against honest servers: every command, exact octets, pipelining, order, what is not valid."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from pop3cli.errors import (
    CommandRefused,
    LoginRefused,
    NoSuchMessage,
    NotConnected,
    NotValid,
    TryLater,
)
from pop3cli.exit_status import ExitStatus
from pop3cli.net.session import Session
from pop3core.answers import CommitFailed, LoginRejected
from pop3core.commands import Capa, List, Quit, Stat
from pop3core.events import CapabilityItem, ListEnded, ListItem, Replied, StatItem
from pop3core.table import State
from tests.pop3cli.conftest import NASTY, PASSWORD, Liar, Mailbox, Serve, Server


async def opened(server: Server) -> Session:
    session = Session()
    await session.connect("127.0.0.1", server.port, tls=server.tls, timeout=5)
    await session.login("alice", PASSWORD)
    return session


async def octets(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


async def test_a_whole_session(serve: Serve) -> None:
    mailbox = Mailbox()
    server = serve(mailbox)
    async with Session() as session:
        assert not session.connected
        assert session.state is State.CLOSED
        greeting = await session.connect("localhost", server.port, tls=server.tls)
        assert greeting.ok
        assert session.tls_version == "TLSv1.3"
        assert session.state is State.AUTHORIZATION
        assert "5 messages" in await session.login("alice", PASSWORD)
        assert "PIPELINING" in await session.capa()
        assert await session.stat() == StatItem(5, sum(map(len, NASTY)))
        assert [item async for item in session.list()] == [ListItem(n, len(m)) for n, m in enumerate(NASTY, 1)]
        assert await session.size(2) == len(NASTY[1])
        assert [item.octets async for item in session.list(1)] == [len(NASTY[0])]
        assert [item.uid async for item in session.uidl()] == [f"uid-{n}" for n in range(1, 6)]
        assert [item.uid async for item in session.uidl(3)] == ["uid-3"]
        for number, message in enumerate(NASTY, 1):
            assert await octets(session.retrieve(number)) == message
        assert await octets(session.top(1, 1)) == NASTY[0].partition(b"..\r\n")[0]
        await session.noop()
        await session.dele(1)
        await session.dele(2)
        assert session.marked == 2
        await session.rset()
        assert session.marked == 0
        await session.dele(4)
        await session.quit()
        assert not session.connected
    assert mailbox.deleted == (4,)
    assert mailbox.logins == [("alice", PASSWORD.encode())]


async def test_leaving_without_quit_deletes_nothing(serve: Serve) -> None:
    mailbox = Mailbox()
    async with await opened(serve(mailbox)) as session:
        await session.dele(1)
    await asyncio.sleep(0.05)
    assert mailbox.committed == 0


async def test_one_session_object_connects_again(serve: Serve) -> None:
    server = serve(Mailbox())
    async with await opened(server) as session:
        await session.dele(1)
        await session.quit()
        await session.connect("127.0.0.1", server.port, tls=server.tls)
        await session.login("alice", PASSWORD)
        assert session.marked == 0
        assert (await session.stat()).messages == 5


CALLS: list[Callable[[Session], Any]] = [
    lambda s: s.login("a", "b"),
    lambda s: s.capa(),
    lambda s: s.stat(),
    lambda s: octets(s.retrieve(1)),
    lambda s: octets(s.top(1, 0)),
    lambda s: anext(aiter(s.list())),
    lambda s: anext(aiter(s.uidl())),
    lambda s: anext(aiter(s.headers([1]))),
    lambda s: anext(aiter(s.exchange(Stat()))),
    lambda s: s.size(1),
    lambda s: s.dele(1),
    lambda s: s.rset(),
    lambda s: s.noop(),
    lambda s: s.quit(),
]


@pytest.mark.parametrize("call", CALLS)
async def test_any_command_before_connecting_says_so(call: Callable[[Session], Any]) -> None:
    with pytest.raises(NotConnected, match="not connected") as caught:
        await call(Session())
    assert caught.value.status == ExitStatus.USAGE


async def test_any_command_after_quit_says_so(serve: Serve) -> None:
    async with await opened(serve(Mailbox())) as session:
        await session.quit()
        with pytest.raises(NotConnected):
            await session.noop()


async def test_a_command_in_the_wrong_state_is_not_sent(serve: Serve) -> None:
    server = serve(Mailbox())
    async with Session() as session:
        await session.connect("127.0.0.1", server.port, tls=server.tls)
        with pytest.raises(NotValid, match=r"STAT is not valid in the AUTHORIZATION state.*; log in first"):
            await session.stat()
        await session.login("alice", PASSWORD)
        with pytest.raises(NotValid, match="USER is not valid in the TRANSACTION state"):
            await session.login("alice", PASSWORD)
        assert (await session.stat()).messages == 5


@pytest.mark.parametrize("password", ["a\r\nDELE 1", "a\0b", "x" * 300])
async def test_nothing_that_ends_a_line_is_sent(serve: Serve, password: str) -> None:
    server = serve(Mailbox())
    async with Session() as session:
        await session.connect("127.0.0.1", server.port, tls=server.tls)
        with pytest.raises(NotValid) as caught:
            await session.login("alice", password)
        assert password not in str(caught.value)


async def test_connecting_twice_is_refused(serve: Serve) -> None:
    server = serve(Mailbox())
    async with await opened(server) as session:
        with pytest.raises(NotValid, match="still connected"):
            await session.connect("127.0.0.1", server.port, tls=server.tls)


async def test_a_wrong_password(serve: Serve) -> None:
    server = serve(Mailbox())
    async with Session() as session:
        await session.connect("127.0.0.1", server.port, tls=server.tls)
        with pytest.raises(LoginRefused, match="wrong user name or password; check user name and password") as caught:
            await session.login("alice", "wrong")
        assert (caught.value.status, caught.value.code) == (77, "AUTH")
        await session.login("alice", PASSWORD)  # the session goes on


@pytest.mark.parametrize("code", ["IN-USE", "SYS/TEMP", "LOGIN-DELAY", "SYS/TEMP/DISK"])
async def test_a_login_that_is_refused_for_now(serve: Serve, code: str) -> None:
    server = serve(Mailbox(login=LoginRejected(code, "not now")))
    async with Session() as session:
        await session.connect("127.0.0.1", server.port, tls=server.tls)
        with pytest.raises(TryLater, match="not now") as caught:
            await session.login("alice", PASSWORD)
        assert (caught.value.status, caught.value.code) == (75, code)


async def test_what_to_do_is_said_once(serve: Serve) -> None:
    """Servers may say it themselves."""
    server = serve(Mailbox(login=LoginRejected("SYS/TEMP", "no disk, Try again later.")))
    async with Session() as session:
        await session.connect("127.0.0.1", server.port, tls=server.tls)
        with pytest.raises(TryLater, match=r"no disk, Try again later\.$"):
            await session.login("alice", PASSWORD)


async def test_messages_that_are_not_there(serve: Serve) -> None:
    async with await opened(serve(Mailbox())) as session:
        for call in (octets(session.retrieve(9)), octets(session.top(9, 0)), session.size(9), session.dele(9)):
            with pytest.raises(NoSuchMessage, match="message 9: no such message") as caught:
                await call
            assert caught.value.status == 67
        with pytest.raises(NoSuchMessage):
            await anext(aiter(session.uidl(9)))
        await session.noop()


async def test_a_message_that_cannot_be_read(serve: Serve) -> None:
    async with await opened(serve(Mailbox(unreadable=(2,)))) as session:
        with pytest.raises(TryLater, match="the disk is asleep"):
            await octets(session.retrieve(2))
        assert await octets(session.retrieve(1)) == NASTY[0]


async def test_quit_that_could_not_delete_is_told(serve: Serve) -> None:
    async with await opened(serve(Mailbox(commit=CommitFailed((1,), "SYS/PERM")))) as session:
        await session.dele(1)
        with pytest.raises(CommandRefused, match="1 of 1 deleted messages could not be removed") as caught:
            await session.quit()
        assert caught.value.status == 1
        assert not session.connected


# --- many headers ---


async def test_headers_are_pipelined_and_in_order(serve: Serve) -> None:
    messages = [b"Subject: %d\r\n\r\nbody\r\n" % n for n in range(1, 1001)]
    async with await opened(serve(Mailbox(messages))) as session:
        answers = [answer async for answer in session.headers(range(1, 1001))]
    assert answers == [(n, b"Subject: %d\r\n\r\n" % n) for n in range(1, 1001)]


async def test_headers_tolerate_a_message_that_fails(serve: Serve) -> None:
    async with await opened(serve(Mailbox(unreadable=(2,)))) as session:
        answers = dict([answer async for answer in session.headers([1, 2, 9, 4])])
        assert isinstance(answers[2], TryLater)
        assert isinstance(answers[9], NoSuchMessage)
        assert answers[1] == NASTY[0].partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        assert list(answers) == [1, 2, 9, 4]
        await session.noop()


async def test_headers_left_early_spoil_nothing(serve: Serve) -> None:
    messages = [b"Subject: %d\r\n\r\n" % n for n in range(1, 501)]
    async with await opened(serve(Mailbox(messages))) as session:
        async for number, _ in session.headers(range(1, 501)):
            if number == 3:
                break
        assert session.busy
        assert (await session.stat()).messages == 500
        assert not session.busy


async def test_without_pipelining_one_command_is_under_way(serve: Serve) -> None:
    liar = Liar({"CAPA": b"-ERR what?\r\n", "TOP": b"+OK\r\nSubject: x\r\n\r\n.\r\n"})
    async with await opened(serve(liar)) as session:
        assert [answer async for answer in session.headers([1, 2])] == [(n, b"Subject: x\r\n\r\n") for n in (1, 2)]
    assert [line.split()[0] for line in liar.seen[2:]] == [b"CAPA", b"TOP", b"TOP"]


async def test_a_server_without_top_is_asked_once(serve: Serve) -> None:
    liar = Liar({"CAPA": b"+OK\r\nUIDL\r\n.\r\n", "TOP": b"-ERR unknown command\r\n"})
    async with await opened(serve(liar)) as session:
        answers = [answer async for answer in session.headers([1, 2, 3])]
        assert [number for number, _ in answers] == [1, 2, 3]
        assert all(isinstance(answer, CommandRefused) for _, answer in answers)
    assert len([line for line in liar.seen if line.startswith(b"TOP")]) == 1


# --- large content, and leaving it ---


async def test_a_large_message_is_exact(serve: Serve) -> None:
    message = b"Subject: large\r\n\r\n" + b".dotted line of text\r\n" * 200_000
    async with await opened(serve(Mailbox([message]))) as session:
        assert await octets(session.retrieve(1)) == message


async def test_a_message_left_early_is_read_away(serve: Serve) -> None:
    message = b"Subject: large\r\n\r\n" + b"line\r\n" * 200_000
    async with await opened(serve(Mailbox([message]))) as session:
        async for _ in session.retrieve(1):
            break
        assert await session.stat() == StatItem(1, len(message))


async def test_a_reader_that_stops_stops_the_server(serve: Serve) -> None:
    liar = Liar({"RETR": b"+OK\r\n"}, endless={"RETR": b"x" * 65534 + b"\r\n"})
    async with await opened(serve(liar)) as session:
        pieces = aiter(session.retrieve(1))
        await anext(pieces)
        await asyncio.sleep(0.3)
        before = liar.sent
        await asyncio.sleep(0.3)
        assert liar.sent == before
        assert before < 16 * 1024 * 1024  # sockets, TLS and streams hold some
        await session.close()


async def test_a_cancelled_command_can_be_followed_by_another(serve: Serve) -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"+OK\r\n")
        while line := await reader.readline():
            await asyncio.sleep(0.2 if line.startswith(b"NOOP") else 0)
            writer.write(b"+OK 1 1\r\n" if line.startswith(b"STAT") else b"+OK\r\n")

    async with await opened(serve(slow)) as session:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await session.noop()
        assert await session.stat() == StatItem(1, 1)


# --- a dialogue ---


async def test_exchange_hands_on_everything(serve: Serve) -> None:
    async with await opened(serve(Mailbox(NASTY[:1]))) as session:
        said = [event async for event in session.exchange(List())]
        assert [type(event) for event in said] == [Replied, ListItem, ListEnded]
        said = [event async for event in session.exchange(List(7))]
        assert [(type(event), getattr(event, "ok", None)) for event in said] == [(Replied, False)]
        assert CapabilityItem("TOP") in [event async for event in session.exchange(Capa())]
        assert [event async for event in session.exchange(Quit())] == [Replied(Quit(), True, None, "bye")]
        assert not session.connected


async def test_time_is_not_lost_on_goodbyes(serve: Serve) -> None:
    async with await opened(serve(Mailbox())) as session:
        begun = time.monotonic()
        await session.quit()
    assert time.monotonic() - begun < 0.5
