"""Metrics by HTTP: any request is answered or closed in time, and silent clients keep nobody out."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from pop3d.net.listening import bound
from pop3d.observe import http as exposition
from pop3d.observe.http import Exposition


@contextlib.asynccontextmanager
async def exposed(serving: bool = True) -> AsyncIterator[int]:
    served = Exposition(CollectorRegistry(), lambda: () if serving else ("mail: it is gone", "shutting down"))
    await served.start(bound("127.0.0.1", 0))
    try:
        yield served.addresses[0][1]
    finally:
        await served.close()
        assert not served._visits


async def ask(port: int, octets: bytes, *, eof: bool = False) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(octets)
    if eof:
        writer.write_eof()
    try:
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"GET /health HTTP/1.0\r\n\r\n", b"200 OK"),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nX: y\r\n\r\n", b"200 OK"),
        (b"GET /health\r\n\r\n", b"400 Bad Request"),
        (b"GET /health HTTP/2\r\n\r\n", b"400 Bad Request"),
        (b"\xff\0\r\n\r\n", b"400 Bad Request"),
        (b"GET /health HTTP/1.1\r\n" + b"X: " + b"y" * 7_000 + b"\r\n\r\n", b"200 OK"),
        (b"GET /health HTTP/1.1\r\n" + b"X: " + b"y" * 9_000 + b"\r\n\r\n", b"431 "),
    ],
)
async def test_each_request_gets_its_status(octets: bytes, status: bytes) -> None:
    async with exposed() as port:
        assert (await ask(port, octets)).startswith(b"HTTP/1.1 " + status)


async def test_head_has_the_fields_of_get_and_no_content() -> None:
    for serving, status in ((True, b"200 OK"), (False, b"503 Service Unavailable")):
        async with exposed(serving) as port:
            for path in (b"/health", b"/metrics"):
                got = await ask(port, b"GET " + path + b" HTTP/1.1\r\n\r\n")
                head, _, content = got.partition(b"\r\n\r\n")
                assert await ask(port, b"HEAD " + path + b" HTTP/1.1\r\n\r\n") == head + b"\r\n\r\n"
                assert b"\r\nContent-Length: %d\r\n" % len(content) in head
                if path == b"/health":
                    assert head.startswith(b"HTTP/1.1 " + status)
                    assert content == (b"ok" if serving else b"mail: it is gone\nshutting down")
            assert b"\r\nAllow: GET, HEAD\r\n" in await ask(port, b"POST /health HTTP/1.1\r\n\r\n")
            assert (await ask(port, b"HEAD /x HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 404 ")


async def test_half_a_request() -> None:
    async with exposed() as port:
        assert (await ask(port, b"GET /health", eof=True)).startswith(b"HTTP/1.1 400")


async def test_who_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "_SECONDS_MAX", 0.1)
    async with exposed() as port:
        with contextlib.suppress(ConnectionResetError):
            assert await ask(port, b"GET /hea") == b""


async def test_silent_connections_keep_nobody_out() -> None:
    async with exposed() as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(exposition._VISITS_MAX)]
        await asyncio.sleep(0.1)
        for _ in range(3):
            async with asyncio.timeout(exposition._SECONDS_MAX / 2):
                assert (await ask(port, b"GET /health HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\nok")
        with contextlib.suppress(ConnectionResetError):
            assert await held[0][0].read() == b""  # the oldest has made room
        held[-1][1].write(b"GET /health HTTP/1.1\r\n\r\n")
        assert (await held[-1][0].read()).endswith(b"\r\n\r\nok")
        for _, writer in held:
            writer.close()


async def test_not_too_many_connections_are_served_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "_VISITS_MAX", 2)
    async with exposed() as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        for reader, _ in held[:3]:
            async with asyncio.timeout(exposition._SECONDS_MAX / 2):
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
        for reader, writer in held[3:]:
            writer.write(b"GET /health HTTP/1.1\r\n\r\n")
            assert (await reader.read()).endswith(b"\r\n\r\nok")
        for _, writer in held:
            writer.close()
