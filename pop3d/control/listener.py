"""The daemon's side of the control socket: one line is read, and what answers it is asked for pieces.

A listing of 10,000 sessions is written piece by piece, and between two of them all clients have their turn.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from pop3d.control.socket_file import SocketFile
from pop3d.observe.visits import Visits

__all__ = ["Answer", "ControlSocket", "RequestRefused"]

_REQUEST_OCTETS_MAX: Final = 4096  # octets of a request: a name has 255
_SECONDS_MAX: Final = 60.0  # seconds from the connection to the end of the answer
_VISITS_MAX: Final = 32  # connections at a time

Answer: TypeAlias = Callable[[Mapping[str, Any]], AsyncIterator[Sequence[Mapping[str, Any]]]]
"""From a request to the lines of its answer, some at a time; each piece takes the event loop for a millisecond."""


class RequestRefused(Exception):
    """A request cannot be answered; the text says why."""


class ControlSocket:
    """``answers``: what answers each request, by its name. `start`, then `close`."""

    def __init__(self, file: SocketFile, answers: Mapping[str, Answer]) -> None:
        self._file, self._answers = file, answers
        self._visits = Visits(self._visit, _VISITS_MAX, _SECONDS_MAX)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Answer requests."""
        self._file.listener.sock.setblocking(False)
        self._server = await asyncio.start_unix_server(
            self._visits, sock=self._file.listener.sock, limit=_REQUEST_OCTETS_MAX
        )

    async def close(self) -> None:
        """End it at once, and remove the socket's file."""
        self._file.remove()
        if self._server is not None:
            self._server.close()
        await self._visits.close()

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return  # nothing was asked: somebody looked whether we live
        except asyncio.LimitOverrunError:
            writer.write(_line({"error": f"a request has at most {_REQUEST_OCTETS_MAX} octets"}))
            return
        try:
            request = _request(line)
            answer = self._answers.get(request.get("ask", ""))
            if answer is None:
                raise RequestRefused("this daemon does not know the request; it is of another version")
            async for piece in answer(request):
                writer.write(b"".join(map(_line, piece)))
                await writer.drain()
                await asyncio.sleep(0)  # drain() does not wait where the system takes all
            writer.write(_line({"done": True}))
        except RequestRefused as fault:
            writer.write(_line({"error": str(fault)}))


def _request(line: bytes) -> Mapping[str, Any]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict) or not all(
        isinstance(value, bool if key == "all" else str) for key, value in request.items()
    ):
        raise RequestRefused('a request is one JSON object of texts; "all" is a truth value')
    return request


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
