"""The stream below a connection, over real sockets; TLS is played in test_connection and test_dialogues."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

import pytest

from pop3cli.net.stream import Stream, open_stream
from tests.sockets import filled


@contextlib.asynccontextmanager
async def connection() -> AsyncIterator[tuple[Stream, socket.socket]]:
    """A stream, and the socket at its other end, which does not block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with asyncio.timeout(30):
            stream = await open_stream(host="127.0.0.1", port=listener.getsockname()[1])
            peer, _ = listener.accept()
            with peer:
                peer.setblocking(False)
                try:
                    yield stream, peer
                finally:
                    stream.abort()


async def test_what_nobody_reads_is_not_taken_from_the_system_and_not_lost() -> None:
    async with connection() as (stream, peer):
        sent = await filled(peer)
        assert sum(map(len, stream._held)) <= 2 * 64 * 1024
        peer.shutdown(socket.SHUT_WR)
        taken = 0
        while data := await stream.read():
            taken += len(data)
        assert taken == sent
        assert await stream.read() == b""


async def test_a_write_returns_when_all_has_left() -> None:
    async with connection() as (stream, peer):
        octets = b"0123456789" * 1_600_000
        writing = asyncio.create_task(stream.write(octets))
        await asyncio.sleep(0.01)
        assert not writing.done()
        received = 0
        while received < len(octets):
            received += len(await asyncio.get_running_loop().sock_recv(peer, 1 << 20))
        await writing


async def test_a_connection_that_was_reset_says_so_when_all_that_came_was_read() -> None:
    async with connection() as (stream, peer):
        peer.send(b"+OK")
        assert await stream.read() == b"+OK"
        peer.send(b"-ERR")
        await asyncio.sleep(0.01)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        await asyncio.sleep(0.01)
        assert await stream.read() == b"-ERR"
        for _ in range(2):
            with pytest.raises(ConnectionResetError):
                await stream.read()
        with pytest.raises(ConnectionResetError):
            await stream.write(b"QUIT\r\n")
        await stream.close()


async def test_a_write_that_waits_ends_with_the_connection() -> None:
    async with connection() as (stream, _):
        writing = asyncio.create_task(stream.write(b"x" * 16_000_000))
        await asyncio.sleep(0.01)
        stream.abort()
        with pytest.raises(ConnectionResetError):
            await writing


async def test_what_came_before_tls_is_shown_and_nothing_more_is_let_in() -> None:
    async with connection() as (stream, peer):
        assert stream.tls is None
        peer.send(b"slipped in")
        await asyncio.sleep(0.01)
        assert stream.stop() == b"slipped in"
        peer.send(b" and more")
        await asyncio.sleep(0.01)
        assert stream.stop() == b"slipped in"


async def test_a_close_says_the_end() -> None:
    async with connection() as (stream, peer):
        await stream.write(b"QUIT\r\n")
        await stream.close()
        assert await asyncio.get_running_loop().sock_recv(peer, 100) == b"QUIT\r\n"
        assert await asyncio.get_running_loop().sock_recv(peer, 100) == b""
        with pytest.raises(ConnectionResetError):
            await stream.read()
