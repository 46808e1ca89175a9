"""A request by HTTPS, bounded in time and octets: all that tokens and autodiscovery need of the web.

One request, one answer, one connection; redirects are told and not followed. Certificates are verified against the
system's roots (``SSL_CERT_FILE`` in the environment names others, as for OpenSSL). Clear text is for this machine only.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import ipaddress
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, urlencode, urlsplit

from pop3cli.errors import MailError, ServerBroken, ServerDown, TimedOut
from pop3cli.net.tls import Dial

__all__ = ["Answer", "check_url", "request"]

_SECONDS: Final = 20.0
"""For all of a request, from connecting to the answer's last octet."""

_OCTETS_MAX: Final = 256 * 1024
"""Of an answer, headers included; tokens and configurations are a few KiB."""

_URL_MAX: Final = 2048


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered. ``location``: where it says to ask instead, or None."""

    status: int
    body: bytes = field(repr=False)
    location: str | None = None

    def json(self) -> dict[str, Any]:
        """The body as an object; empty when it is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


def check_url(url: str) -> SplitResult:
    """The parts of a URL that may be asked: https, or http to this very machine. Raises ValueError, which says why."""
    if len(url) > _URL_MAX or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("not a URL")
    parts = urlsplit(url)
    if not parts.hostname or parts.username is not None or parts.port == 0:
        raise ValueError("not a URL of a host")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise ValueError("not https")
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def request(url: str, form: Mapping[str, str] | None = None, *, dial: Dial | None = None) -> Answer:
    """GET, or POST of a ``form``. Raises `ServerDown`, `TimedOut`, `ServerBroken`, which name no more than the host."""
    try:
        parts = check_url(url)
    except ValueError as fault:
        raise ServerBroken(f"the address {url[:100]}", str(fault)) from None
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    where = f"https server {host}" if secure else f"http server {host}"
    try:
        async with asyncio.timeout(_SECONDS):
            octets = await _exchange(host, port, secure, _written(parts, form), dial)
    except TimeoutError:
        raise TimedOut(where, f"no answer within {_SECONDS:g} s", "try again") from None
    except ssl.SSLError as fault:
        raise ServerDown(where, f"no TLS with it ({getattr(fault, 'verify_message', '') or fault.reason})") from None
    except (OSError, UnicodeError) as fault:
        raise ServerDown(where, f"no connection ({getattr(fault, 'strerror', None) or fault})", "try again") from None
    if len(octets) > _OCTETS_MAX:
        raise ServerBroken(where, f"an answer of more than {_OCTETS_MAX} octets")
    return _read(octets, where)


def _written(parts: SplitResult, form: Mapping[str, str] | None) -> bytes:
    body = b"" if form is None else urlencode(form).encode("ascii")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [
        f"{'GET' if form is None else 'POST'} {target} HTTP/1.1",
        f"Host: {parts.netloc}",
        "User-Agent: pop3cli",
        "Accept: application/json, text/xml",
        "Accept-Encoding: identity",
        "Connection: close",
    ]
    if form is not None:
        lines += ["Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


async def _exchange(host: str, port: int, secure: bool, data: bytes, dial: Dial | None) -> bytes:
    context: ssl.SSLContext | None = None
    if secure:
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    if dial is None:
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
    else:
        sock = await dial(host, port)
        reader, writer = await asyncio.open_connection(sock=sock, ssl=context, server_hostname=host if secure else None)
    try:
        writer.write(data)
        await writer.drain()
        octets = bytearray()
        while len(octets) <= _OCTETS_MAX and (piece := await reader.read(16384)):
            octets += piece
        return bytes(octets)
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class _Received:
    """What `http.client` takes for a socket."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def makefile(self, *_: Any, **__: Any) -> io.BytesIO:
        return io.BytesIO(self._octets)


def _read(octets: bytes, where: str) -> Answer:
    response = http.client.HTTPResponse(_Received(octets))  # type: ignore[arg-type]
    try:
        response.begin()
        body = response.read()
    except (http.client.HTTPException, ValueError, OSError) as fault:
        raise ServerBroken(where, f"not an answer by HTTP ({type(fault).__name__})") from None
    return Answer(response.status, body, response.headers.get("Location"))


# what callers treat alike: this time there was no answer to use
NoAnswer: Final[tuple[type[MailError], ...]] = (ServerDown, TimedOut, ServerBroken)
