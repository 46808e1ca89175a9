"""Both sides of the control socket, without a server of mail behind it."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pop3d.control import client
from pop3d.control.client import Asked, NoAnswer, NoDaemon, ask
from pop3d.control.listener import ControlSocket
from pop3d.control.socket_file import make


async def count(request: Mapping[str, Any]) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
    for start in range(0, int(request["to"]), 10):
        yield [{"number": number, "said": "ü\n"} for number in range(start, start + 10)]


@asynccontextmanager
async def listening(state: Path) -> AsyncIterator[None]:
    control = ControlSocket(make(state), {"count": count})
    await control.start()
    try:
        yield
    finally:
        await control.close()


async def say(state: Path, octets: bytes) -> list[Any]:
    reader, writer = await asyncio.open_unix_connection(state / "control.sock")
    writer.write(octets)
    lines = [json.loads(line) async for line in reader]
    writer.close()
    return lines


async def test_requests_and_answers(tmp_path: Path) -> None:
    async with listening(tmp_path):
        (found,) = await asyncio.to_thread(ask, tmp_path, {"ask": "count", "to": "10000"})
        assert found == Asked("control.sock", [{"number": number, "said": "ü\n"} for number in range(10_000)])
        with pytest.raises(NoAnswer, match="does not know the request; it is of another version"):
            await asyncio.to_thread(ask, tmp_path, {"ask": "dance"})
        for request in (b"x\n", b"[]\n", b'"count"\n', b'{"ask": ["count"]}\n', b"[" * 4000 + b"\n", b"\xff\n"):
            assert await say(tmp_path, request) == [
                {"error": 'a request is one JSON object of texts; "all" is a truth value'}
            ]
        assert await say(tmp_path, b"x" * 5000) == [{"error": "a request has at most 4096 octets"}]
        for nothing in (b"", b'{"ask": "count"'):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "control.sock")
            writer.write(nothing)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NoDaemon):
        ask(tmp_path, {"ask": "count"})
    with pytest.raises(NoDaemon):
        ask(tmp_path / "missing", {"ask": "count"})


async def test_a_reader_that_stops_holds_up_nobody(tmp_path: Path) -> None:
    async with listening(tmp_path):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "control.sock")
        writer.write(b'{"ask": "count", "to": "1000000"}\n')
        await reader.readline()  # and no more
        (found,) = await asyncio.to_thread(ask, tmp_path, {"ask": "count", "to": "10"})
        assert len(found.lines) == 10
        writer.close()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "it ended"),
        (b'{"a": 1}\n', "it ended"),
        (b'{"error": "no"}\n', "no"),
        (b"[]\n", "its answer is not what a daemon of this version says"),
        (b"\xff\n", "its answer is not what a daemon of this version says"),
        (b'{"a": 1}\n' * 1000, "its answer is too long"),
    ],
)
def test_who_answers_wrongly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes, why: str) -> None:
    """Whoever may write to the state folder, root asks him."""
    monkeypatch.setattr(client, "_OCTETS_MAX", 1000)
    file = make(tmp_path)

    def answer() -> None:
        peer, _ = file.listener.sock.accept()
        with peer, contextlib.suppress(OSError):  # who has read enough goes
            peer.recv(100)
            peer.sendall(said)
            peer.shutdown(socket.SHUT_WR)
            peer.recv(1)

    other = threading.Thread(target=answer)
    other.start()
    with pytest.raises(NoAnswer, match=why):
        ask(tmp_path, {"ask": "who"})
    other.join()
    file.listener.sock.close()
    file.remove()
