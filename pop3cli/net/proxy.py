"""Through a proxy: SOCKS 4 and 5 by python-socks (extra ``socks``), and HTTP's CONNECT.

Host names are resolved by the proxy, so that nothing of where the mail is shows elsewhere. TLS begins behind it, with
the server: a proxy sees host and port, and never mail. A password for the proxy has no place yet: it would stand on the
command line or in a file.

CONNECT is said here and not by the library, which takes what comes with one read for the proxy's answer: of an answer
in two pieces the rest would go to the server's side, and a server's greeting in the same piece would be lost.
"""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from pop3cli.errors import MissingExtra, ServerDown, SettingFault, TimedOut
from pop3cli.net.tls import Dial

__all__ = ["dial_by"]

_SCHEMES: Final = {"socks5": "socks5", "socks5h": "socks5", "socks4": "socks4", "socks4a": "socks4", "http": "http"}
_REMEDY: Final = "is it running, and is it the right proxy?"
_HEAD_MAX: Final = 16 * 1024  # octets of a proxy's answer
_REASON_MAX: Final = 80  # characters of its reason that are told
_STATUS: Final = re.compile(rb"HTTP/1\.[0-9] ([0-9]{3})(?: ([^\r\n]*))?\r?\n")


def dial_by(url: str, timeout: float) -> Dial:
    """How to connect through the proxy at ``url``, such as ``socks5://127.0.0.1:1080``, within ``timeout`` seconds.

    Raises `SettingFault`, `MissingExtra`; the function it returns raises `ServerDown`, `TimedOut`.
    """
    scheme, proxy_host, proxy_port = _where(url)
    where = f"{scheme}://{_in_url(proxy_host)}:{proxy_port}"
    connect, faults = _http(proxy_host, proxy_port) if scheme == "http" else _socks(where, timeout)

    async def dial(host: str, port: int) -> socket.socket:
        try:
            async with asyncio.timeout(timeout):
                return await connect(host, port)
        except TimeoutError:
            why = f"no connection through {where} within {timeout:g} s"
            raise TimedOut(f"{host} port {port}", why, "is it the right proxy?") from None
        except _Denied as fault:
            raise ServerDown(f"{host} port {port}", f"the proxy {where} {fault}", fault.remedy) from None
        except faults as fault:
            # its texts are of the library's own wording, or the system's
            told = (isinstance(fault, OSError) and fault.strerror) or fault
            why = f"the proxy {where} does not connect to it ({told})"
            raise ServerDown(f"{host} port {port}", why, _REMEDY) from None

    return dial


def _where(url: str) -> tuple[str, str, int]:
    """The proxy's scheme as the library calls it, its host and its port."""
    scheme, _, _ = url.partition("://")
    form = "give socks5://HOST:PORT"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise SettingFault("`proxy`", "not a URL", form) from None
    if parts.password is not None or parts.username is not None:
        raise SettingFault("`proxy`", "a name or password in it could be read by others", "use a proxy without one")
    if scheme.lower() not in _SCHEMES or not host or not port or parts.path not in ("", "/"):
        raise SettingFault(f"`proxy` {url[:80]}", "not the URL of a proxy", f"{form} (or socks4://, http://)")
    return _SCHEMES[scheme.lower()], host, port


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


_Way: TypeAlias = tuple[Dial, tuple[type[Exception], ...]]
"""How to connect, and what that may raise beside TimeoutError and `_Denied`."""


def _socks(where: str, timeout: float) -> _Way:
    try:
        from python_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError
        from python_socks.async_.asyncio import Proxy
    except ImportError:
        raise MissingExtra(f"`proxy` {where}", "socks") from None

    async def connect(host: str, port: int) -> socket.socket:
        proxy: Any = Proxy.from_url(where, rdns=True)  # of the loop it is made on
        try:
            sock: socket.socket = await proxy.connect(host, port, timeout=timeout)
        except ProxyTimeoutError:
            raise TimeoutError from None
        return sock

    return connect, (ProxyError, ProxyConnectionError, OSError)


# --- CONNECT ---


class _Denied(Exception):
    """The proxy does not connect; the text continues "the proxy http://...". ``remedy``: what to do."""

    def __init__(self, text: str, remedy: str) -> None:
        super().__init__(text)
        self.remedy = remedy


def _http(proxy_host: str, proxy_port: int) -> _Way:
    async def connect(host: str, port: int) -> socket.socket:
        sock = await _reached(proxy_host, proxy_port)
        try:
            await _tunnelled(sock, host, port)
        except BaseException:
            sock.close()
            raise
        return sock

    return connect, (OSError,)


async def _reached(host: str, port: int) -> socket.socket:
    """A connection to the first address of the proxy that takes one. Raises OSError."""
    loop = asyncio.get_running_loop()
    fault: OSError | None = None
    try:
        addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError("not a host name") from None
    for family, kind, protocol, _, address in addresses:
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, address)
        except OSError as one:
            sock.close()
            fault = fault or one
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise fault or OSError("it has no address")


async def _tunnelled(sock: socket.socket, host: str, port: int) -> None:
    """Have the proxy at ``sock`` connect to ``host``, and read its answer, and no octet behind it."""
    loop = asyncio.get_running_loop()
    try:
        target = f"{_in_url(host) if ':' in host else host.encode('idna').decode()}:{port}"
    except UnicodeError:
        raise _Denied("is asked for what is no host name", "check the account's URL") from None
    # RFC 9110 §9.3.6
    await loop.sock_sendall(sock, f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    head = bytearray()
    while not head.endswith((b"\r\n\r\n", b"\n\n")):
        octet = await loop.sock_recv(sock, 1)  # what comes behind is the server's
        if not octet or len(head) == _HEAD_MAX:
            raise _Denied("does not answer as an HTTP proxy", _REMEDY)
        head += octet
    status = _STATUS.match(head)
    if status is None:
        raise _Denied("does not answer as an HTTP proxy", _REMEDY)
    code, reason = status[1].decode(), (status[2] or b"").decode("utf-8", "replace").strip()[:_REASON_MAX]
    if code == "407":
        raise _Denied("asks for a name and a password (407)", "use a proxy without them")
    if not code.startswith("2"):  # any 2xx is a tunnel
        told = " ".join(filter(None, (code, reason)))
        raise _Denied(f"does not connect to it ({told})", "does it allow this host and port?")
