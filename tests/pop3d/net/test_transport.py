"""The wire below a channel, over a real connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import AsyncIterator

import pytest

from pop3d.net.transport import ConnectionGone, Transport
from tests.sockets import filled


@contextlib.asynccontextmanager
async def connection() -> AsyncIterator[tuple[Transport, socket.socket]]:
    """A wire, and the socket at its other end, which does not block."""
    accepted: asyncio.Future[Transport] = asyncio.get_running_loop().create_future()

    def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set_result(Transport(writer))

    async with asyncio.timeout(30), await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        with socket.create_connection(server.sockets[0].getsockname()) as peer:
            peer.setblocking(False)
            wire = await accepted
            try:
                yield wire, peer
            finally:
                wire.abort()


async def received(peer: socket.socket) -> bytes:
    """All that the other end gets."""
    octets = b""
    while data := await asyncio.get_running_loop().sock_recv(peer, 1 << 16):
        octets += data
    return octets


async def test_what_nobody_reads_is_not_taken_from_the_system() -> None:
    async with connection() as (wire, peer):
        sent = await filled(peer)
        assert len(wire._held) <= 2 * 16 * 1024
        peer.shutdown(socket.SHUT_WR)
        taken = 0
        while data := await wire.read():
            taken += len(data)
        assert taken == sent  # and nothing of it was lost


async def test_what_was_put_back_is_read_again_and_first() -> None:
    async with connection() as (wire, peer):
        peer.send(b"PROXY")
        assert await wire.read() == b"PROXY"
        peer.send(b"second")
        wire.put_back(b"first ")
        assert (await wire.read()).startswith(b"first ")


async def test_feed_eof_ends_a_read_under_way_and_all_that_follow() -> None:
    async with connection() as (wire, peer):
        asyncio.get_running_loop().call_soon(wire.feed_eof)
        assert await wire.read() == b""
        peer.send(b"NOOP\r\n")
        await asyncio.sleep(0.01)
        assert await wire.read() == b""
        await wire.write_eof()  # what was said meanwhile can be read away
        assert await wire.read() == b"NOOP\r\n"


async def test_a_write_that_has_to_wait_says_so_and_is_complete_in_the_end() -> None:
    async with connection() as (wire, peer):
        octets = b"0123456789" * 1_600_000
        assert wire.write(b"+OK\r\n")
        assert not wire.write(octets)
        left = asyncio.create_task(wire.drain())
        reading = asyncio.create_task(received(peer))
        await left
        await wire.close()
        assert await reading == b"+OK\r\n" + octets


@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_that_is_gone_says_so(reset: bool) -> None:
    async with connection() as (wire, peer):
        assert not wire.write(b"x" * 16_000_000)
        if reset:
            peer.close()  # on octets that it has not read
        else:
            wire.abort()
        with pytest.raises(ConnectionGone):
            await wire.drain()
        with pytest.raises(ConnectionGone):
            wire.write(b"more")
        with pytest.raises(ConnectionGone):
            await wire.read()
        await wire.close()


async def test_the_end_of_the_stream_leaves_the_other_direction_open() -> None:
    async with connection() as (wire, peer):
        peer.shutdown(socket.SHUT_WR)
        assert await wire.read() == b""
        assert wire.write(b"+OK bye\r\n")
        await wire.close()
        assert await received(peer) == b"+OK bye\r\n"


async def test_a_listener_is_told_at_once_until_it_has_heard_enough() -> None:
    async with connection() as (wire, peer):
        heard: list[bytes] = []

        def hear(data: bytes) -> bool:
            heard.append(data)
            return data != b"enough"

        listening = asyncio.create_task(wire.listen(hear))
        for before, said in enumerate((b"one", b"two", b"enough")):
            peer.send(said)
            while len(heard) == before:
                assert not listening.done()
                await asyncio.sleep(0)
        await listening
        assert heard == [b"one", b"two", b"enough"]
        peer.send(b"later")  # is kept for whoever reads next
        await asyncio.sleep(0.01)
        assert heard[3:] == []
        assert await wire.read() == b"later"


async def test_a_listener_hears_what_came_before_and_the_end() -> None:
    async with connection() as (wire, peer):
        peer.send(b"before")
        peer.shutdown(socket.SHUT_WR)
        await asyncio.sleep(0.01)
        heard: list[bytes] = []

        def hear(data: bytes) -> bool:
            heard.append(data)
            return bool(data)

        await wire.listen(hear)
        assert heard == [b"before", b""]


async def test_what_a_listener_raises_is_raised_where_it_listens() -> None:
    async with connection() as (wire, peer):

        def hear(_: bytes) -> bool:
            raise ZeroDivisionError

        asyncio.get_running_loop().call_soon(peer.send, b"divide")
        with pytest.raises(ZeroDivisionError):
            await wire.listen(hear)
        peer.send(b"still there")
        assert await wire.read() == b"still there"


async def test_a_listener_is_told_of_feed_eof_and_when_the_connection_is_gone() -> None:
    async with connection() as (wire, _):
        heard: list[bytes] = []

        def hear(data: bytes) -> bool:
            heard.append(data)
            return bool(data)

        asyncio.get_running_loop().call_soon(wire.feed_eof)
        await wire.listen(hear)
        assert heard == [b""]
    async with connection() as (wire, _):
        asyncio.get_running_loop().call_soon(wire.abort)
        with pytest.raises(ConnectionGone):
            await wire.listen(hear)


@contextlib.asynccontextmanager
async def two_connections() -> AsyncIterator[tuple[Transport, socket.socket, Transport, socket.socket]]:
    async with connection() as (one, peer_of_one), connection() as (two, peer_of_two):
        yield one, peer_of_one, two, peer_of_two


def arrived(peer: socket.socket) -> bytes:
    """What the other end has got by now."""
    try:
        return peer.recv(1 << 16)
    except BlockingIOError:
        return b""


async def test_a_wire_that_is_served_alone_sends_at_once() -> None:
    async with two_connections() as (one, peer, _, _):
        one.write(b"greeting")
        await asyncio.sleep(0)
        assert arrived(peer) == b"greeting"
        one.write(b"+OK\r\n")
        assert arrived(peer) == b"+OK\r\n"


async def test_replies_of_wires_served_by_turns_leave_together_at_the_end_of_the_turn() -> None:
    async with two_connections() as (one, peer_of_one, two, peer_of_two):
        assert one.write(b"a")
        assert two.write(b"b")
        assert one.write(b"c")
        assert (arrived(peer_of_one), arrived(peer_of_two)) == (b"", b"")
        await asyncio.sleep(0)
        assert (arrived(peer_of_one), arrived(peer_of_two)) == (b"ac", b"b")


async def test_not_more_than_so_many_replies_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pop3d.net.transport._REPLIES_MAX", 2)
    async with two_connections() as (one, peer_of_one, two, peer_of_two):
        one.write(b"a")
        two.write(b"b")
        assert (arrived(peer_of_one), arrived(peer_of_two)) == (b"a", b"b")
        one.write(b"c")
        assert arrived(peer_of_one) == b""
        await asyncio.sleep(0)
        assert arrived(peer_of_one) == b"c"


async def test_a_long_reply_does_not_wait_and_leaves_behind_what_was_written_before() -> None:
    async with two_connections() as (one, peer_of_one, two, peer_of_two):
        long = b"x" * 16 * 1024
        two.write(b"b")
        one.write(long + b"!")
        assert arrived(peer_of_one) == long + b"!"
        two.write(long)
        assert arrived(peer_of_two) == b"b" + long
        await asyncio.sleep(0)
        assert (arrived(peer_of_one), arrived(peer_of_two)) == (b"", b"")


@pytest.mark.parametrize("end", ["drain", "write_eof", "close"])
async def test_what_waits_for_the_end_of_the_turn_leaves_before_anything_ends(end: str) -> None:
    async with two_connections() as (one, peer, two, _):
        two.write(b"b")
        one.write(b"+OK bye\r\n")
        await getattr(one, end)()
        assert arrived(peer) == b"+OK bye\r\n"


async def test_a_connection_that_goes_meanwhile_keeps_no_other_reply() -> None:
    async with two_connections() as (one, peer_of_one, two, peer_of_two):
        one.write(b"a")
        two.write(b"b")
        one.abort()
        await asyncio.sleep(0.01)
        assert await received(peer_of_one) == b""
        assert arrived(peer_of_two) == b"b"


async def test_a_reply_that_could_not_leave_holds_up_the_next_one() -> None:
    async with two_connections() as (one, peer, two, _):
        filler = 0
        while one.write(b"x" * 65536):
            filler += 65536
        filler += 65536
        reading = asyncio.create_task(received(peer))
        await one.drain()
        two.write(b"b")
        assert one.write(b"later")
        await one.close()
        assert len(await reading) == filler + len(b"later")


def test_two_loops_share_nothing() -> None:
    seen: list[bytes] = []

    async def echo(octet: bytes) -> None:
        async with connection() as (wire, peer):
            for _ in range(300):
                peer.send(octet * 4096)
                data = b""
                while len(data) < 4096:
                    data += await wire.read()
                seen.append(bytes(set(data)))

    threads = [threading.Thread(target=lambda octet=octet: asyncio.run(echo(octet))) for octet in (b"1", b"2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == [b"1"] * 300 + [b"2"] * 300


def reset(peer: socket.socket) -> None:
    """Close, and say so by RST."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


async def test_a_peer_that_resets_while_the_end_waits_behind_octets_is_gone_and_no_fault() -> None:
    faults: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    for delay in (0, 1, 2, 3):  # turns of the event loop
        async with connection() as (wire, peer):
            while wire.write(b"x" * 65536):
                pass
            ending = asyncio.create_task(wire.write_eof())
            await asyncio.sleep(0)
            peer.recv(1 << 20)
            for _ in range(delay):
                await asyncio.sleep(0)
            reset(peer)
            with contextlib.suppress(ConnectionGone):
                await ending
    assert not faults
