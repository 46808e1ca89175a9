"""Requests by HTTP: bounded, verified, and never without an end."""

from __future__ import annotations

import asyncio

import pytest

from pop3cli.errors import MailError, ServerBroken, ServerDown, TimedOut
from pop3cli.net.https import request
from tests.pop3cli.conftest import Serve


@pytest.mark.parametrize(
    ("answer", "fault", "text"),
    [
        (b"frob\r\n\r\n", ServerBroken, "not an answer by HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", ServerBroken, "IncompleteRead"),
        (b"", ServerBroken, "not an answer by HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 300_000, ServerBroken, "more than"),
    ],
)
async def test_answers_that_are_none(serve: Serve, answer: bytes, fault: type[MailError], text: str) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    with pytest.raises(fault, match=text):
        await request(f"http://127.0.0.1:{serve(say, tls=False).port}/secret?token=hush")


async def test_an_answer_that_does_not_come(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async def mute(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    monkeypatch.setattr("pop3cli.net.https._SECONDS", 0.3)
    with pytest.raises(TimedOut, match=r"no answer within 0\.3 s"):
        await request(f"http://127.0.0.1:{serve(mute, tls=False).port}/")


async def test_https_is_verified(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: https://other.example/\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"2\r\n{}\r\n0\r\n\r\n")

    server = serve(say)
    with pytest.raises(ServerDown, match="no TLS with it"):
        await request(f"https://localhost:{server.port}/")
    monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
    answer = await request(f"https://localhost:{server.port}/")
    assert (answer.status, answer.location, answer.json()) == (302, "https://other.example/", {})
