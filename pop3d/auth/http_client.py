"""Asking another server for JSON, from threads of our own, within limits of time and size.

No redirection is followed and no proxy of the environment is used: who is asked is who the configuration names.
Certificates are verified against the system's authorities (``SSL_CERT_FILE`` names others).
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import socket
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Final
from urllib.parse import quote_plus, urlencode, urlsplit

from pop3d.auth import AuthUnavailable

__all__ = ["HttpClient"]

_SECONDS_MAX: Final = 10.0  # for one answer; a login waits for it
_OCTETS_MAX: Final = 256 * 1024  # a set of some hundred keys
_TOGETHER: Final = 8  # questions under way; others wait, within their time


class _Timed(io.RawIOBase):
    """What comes from a socket until a deadline, however slowly: a time for each read could be begun for ever."""

    def __init__(self, stream: io.RawIOBase, sock: socket.socket, deadline: float) -> None:
        self._stream, self._sock, self._deadline = stream, sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        return self._stream.readinto(buffer)

    def close(self) -> None:
        self._stream.close()
        super().close()


class HttpClient:
    """Asks one URL. ``seconds_max``: for one answer."""

    def __init__(self, url: str, *, seconds_max: float = _SECONDS_MAX) -> None:
        self._url, self._seconds_max = url, seconds_max
        self._parts = urlsplit(url)
        self._context = ssl.create_default_context()
        self._headers = {"Accept": "application/json", "Connection": "close"}
        self._pool = ThreadPoolExecutor(_TOGETHER, thread_name_prefix="pop3d-https")

    def identify(self, client: str, secret: str) -> None:
        """From now on with our name and secret (RFC 6749 §2.3.1)."""
        pair = f"{quote_plus(client)}:{quote_plus(secret)}".encode()
        self._headers = {**self._headers, "Authorization": "Basic " + base64.b64encode(pair).decode()}

    async def ask(self, form: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The JSON object that is answered to GET, or to POST of a ``form``. Raises `AuthUnavailable`."""
        asked = asyncio.get_running_loop().run_in_executor(self._pool, self._ask, form)
        try:
            return await asyncio.wait_for(asked, self._seconds_max)
        except TimeoutError:
            raise AuthUnavailable(f"{self._url} did not answer in {self._seconds_max:g} s") from None

    def _ask(self, form: Mapping[str, str] | None) -> dict[str, Any]:
        try:
            status, octets = self._answer(form)
        except (OSError, HTTPException) as fault:
            raise AuthUnavailable(f"{self._url} cannot be asked: {fault or type(fault).__name__}") from None
        if status != 200:
            raise AuthUnavailable(f"{self._url} answers with status {status}")
        if len(octets) > _OCTETS_MAX:
            raise AuthUnavailable(f"{self._url} answers with more than {_OCTETS_MAX} octets")
        try:
            found = json.loads(octets)
        except (ValueError, RecursionError):
            raise AuthUnavailable(f"{self._url} answers with what is no JSON") from None
        if not isinstance(found, dict):
            raise AuthUnavailable(f"{self._url} answers with what is no JSON object")
        return found

    def _answer(self, form: Mapping[str, str] | None) -> tuple[int, bytes]:
        """Status and octets, at most one more than allowed. Raises OSError and HTTPException."""
        deadline = time.monotonic() + self._seconds_max
        body, headers = None, self._headers
        if form is not None:
            body, headers = urlencode(form), {**headers, "Content-Type": "application/x-www-form-urlencoded"}
        connection = self._connection()

        def respond(sock: socket.socket, **others: Any) -> HTTPResponse:
            return _within(HTTPResponse(sock, **others), sock, deadline)

        connection.response_class = respond  # type: ignore[assignment]  # called like the class
        try:
            path = f"{self._parts.path or '/'}{'?' if self._parts.query else ''}{self._parts.query}"
            connection.request("POST" if body is not None else "GET", path, body, headers)
            with connection.getresponse() as response:
                return response.status, response.read(_OCTETS_MAX + 1)
        finally:
            connection.close()

    def _connection(self) -> HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "http":  # which the configuration allows on loopback only
            return HTTPConnection(host, port, timeout=self._seconds_max)
        return HTTPSConnection(host, port, timeout=self._seconds_max, context=self._context)

    def close(self) -> None:
        """Ask no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _within(response: HTTPResponse, sock: socket.socket, deadline: float) -> HTTPResponse:
    """A response, none of which has been read yet, that is to be there by then."""
    response.fp = io.BufferedReader(_Timed(response.fp.detach(), sock, deadline))
    return response
