"""Metrics and health over HTTP: ``/metrics`` and ``/health``, by GET and HEAD, and nothing else.

As little HTTP as Prometheus and a load balancer need: one request per connection, whose size, time and number are
bounded. What is asked for is chosen from two; nothing that was sent is repeated.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from pop3d.observe.visits import Visits

__all__ = ["Exposition"]

_REQUEST_OCTETS_MAX: Final = 8 * 1024  # octets of a request, header fields included
_SECONDS_MAX: Final = 5.0  # seconds from the connection to the end of the answer
_VISITS_MAX: Final = 16  # connections at a time
_TEXT: Final = "text/plain; charset=utf-8"


class Exposition:
    """``troubles``: a line for each thing that keeps it from serving, for ``/health``. `start`, then `close`."""

    def __init__(self, registry: CollectorRegistry, troubles: Callable[[], Sequence[str]]) -> None:
        self._registry, self._troubles = registry, troubles
        self._servers: list[asyncio.Server] = []
        self._visits = Visits(self._visit, _VISITS_MAX, _SECONDS_MAX)

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Listen at sockets that are bound."""
        for sock in sockets:
            self._servers.append(await asyncio.start_server(self._visits, sock=sock, limit=_REQUEST_OCTETS_MAX))

    @property
    def addresses(self) -> Sequence[tuple[str, int]]:
        """Where it listens, as bound: host and port."""
        return [sock.getsockname()[:2] for server in self._servers for sock in server.sockets]

    async def close(self) -> None:
        """End it at once."""
        for server in self._servers:
            server.close()
        await self._visits.close()

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await self._answer(reader))

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        except asyncio.IncompleteReadError:
            return _response(HTTPStatus.BAD_REQUEST)
        words = head.partition(b"\r\n")[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _response(HTTPStatus.BAD_REQUEST)
        path = words[1].partition(b"?")[0]
        if path not in (b"/metrics", b"/health"):
            return _response(HTTPStatus.NOT_FOUND)
        if words[0] not in (b"GET", b"HEAD"):
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, extra="Allow: GET, HEAD\r\n")
        answer = await self._metrics() if path == b"/metrics" else self._health()
        if words[0] == b"HEAD":  # RFC 9110 §9.3.2: the header fields of GET, and no content
            return answer[: answer.index(b"\r\n\r\n") + 4]
        return answer

    async def _metrics(self) -> bytes:
        # in a thread: what the kernel says of many descriptors takes milliseconds
        text = await asyncio.to_thread(generate_latest, self._registry)
        return _response(HTTPStatus.OK, text, CONTENT_TYPE_LATEST)

    def _health(self) -> bytes:
        if lines := self._troubles():
            return _response(HTTPStatus.SERVICE_UNAVAILABLE, "\n".join(lines).encode())
        return _response(HTTPStatus.OK, b"ok")


def _response(status: HTTPStatus, body: bytes | None = None, kind: str = _TEXT, extra: str = "") -> bytes:
    body = status.phrase.encode() if body is None else body
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Cache-Control: no-store\r\n{extra}Connection: close\r\n\r\n".encode() + body
