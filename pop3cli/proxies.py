"""Through a proxy: SOCKS 4 and 5, and HTTP's CONNECT, by python-socks (extra ``socks``).

Host names are resolved by the proxy, so that nothing of where the mail is shows elsewhere. TLS begins behind it, with
the server: a proxy sees host and port, and never mail. A password for the proxy has no place yet: it would stand on the
command line or in a file.
"""

from __future__ import annotations

import socket
from typing import Any, Final
from urllib.parse import urlsplit

from pop3cli.errors import MissingExtra, ServerDown, SettingFault, TimedOut
from pop3cli.tls import Dial

__all__ = ["dial_by"]

_SCHEMES: Final = {"socks5": "socks5", "socks5h": "socks5", "socks4": "socks4", "socks4a": "socks4", "http": "http"}


def dial_by(url: str, timeout: float) -> Dial:
    """How to connect through the proxy at ``url``, such as ``socks5://127.0.0.1:1080``, within ``timeout`` seconds.

    Raises `SettingFault`, `MissingExtra`; the function it returns raises `ServerDown`, `TimedOut`.
    """
    where = _where(url)
    try:
        from python_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError
        from python_socks.async_.asyncio import Proxy
    except ImportError:
        raise MissingExtra(f"--proxy {where}", "socks") from None

    async def dial(host: str, port: int) -> socket.socket:
        try:
            proxy: Any = Proxy.from_url(where, rdns=True)  # of the loop it is made on
            sock: socket.socket = await proxy.connect(host, port, timeout=timeout)
        except (ProxyTimeoutError, TimeoutError):
            why = f"no connection through {where} within {timeout:g} s"
            raise TimedOut(f"{host} port {port}", why, "is it the right proxy?") from None
        except (ProxyError, ProxyConnectionError, OSError) as fault:
            # its texts are of its own wording, or the system's
            why = f"the proxy {where} does not connect to it ({fault})"
            raise ServerDown(f"{host} port {port}", why, "is it running, and is it the right proxy?") from None
        return sock

    return dial


def _where(url: str) -> str:
    """The proxy's URL as the library takes it."""
    scheme, _, _ = url.partition("://")
    form = "give socks5://HOST:PORT"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise SettingFault("--proxy", "not a URL", form) from None
    if parts.password is not None or parts.username is not None:
        raise SettingFault("--proxy", "a name or password in it could be read by others", "use a proxy without one")
    if scheme.lower() not in _SCHEMES or not host or not port or parts.path not in ("", "/"):
        raise SettingFault(f"--proxy {url[:80]}", "not the URL of a proxy", f"{form} (or socks4://, http://)")
    return f"{_SCHEMES[scheme.lower()]}://{f'[{host}]' if ':' in host else host}:{port}"
