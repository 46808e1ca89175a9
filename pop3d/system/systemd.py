"""What systemd and a service say to each other: the notify protocol, and sockets that are handed over.

Without systemd's variables in the environment nothing here does anything. The protocol is sd_notify(3): datagrams of
``NAME=value`` lines to the unix socket ``$NOTIFY_SOCKET``; and sd_listen_fds(3): listening sockets, descriptor 3 and
on. Both are read once and taken out of the environment, so that no child believes itself meant.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, MutableMapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Protocol

__all__ = ["ActivationError", "Listener", "Notifier", "activated", "matched"]

log = logging.getLogger("pop3d.systemd")

_FIRST_DESCRIPTOR: Final = 3  # SD_LISTEN_FDS_START
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
_SOCKETS_MAX: Final = 64  # sockets handed over; more is a mistake
_STATUS_SECONDS: Final = 10.0  # seconds between two words on how we are, where no watchdog asks for more


class Listener(Protocol):
    """What is configured of a listener."""

    @property
    def host(self) -> str:
        """An address, or a name; ``*``: all addresses."""
        ...

    @property
    def port(self) -> int:
        """TCP's."""
        ...

    @property
    def path(self) -> Path | None:
        """Of a Unix socket; None for TCP."""
        ...

    @property
    def tls(self) -> str:
        """``"none"``: clear text."""
        ...

    @property
    def insecure(self) -> bool:
        """Clear text is meant, for others than this machine too."""
        ...


class ActivationError(Exception):
    """Sockets that systemd handed over are of no use; one line that says why and what to do."""


class Notifier:
    """Tells systemd how we are; does nothing where nobody wants to know. Never waits, never raises."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Takes its variables out of ``environ``."""
        name = environ.pop("NOTIFY_SOCKET", "")
        microseconds, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        self._socket: socket.socket | None = None
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        if name.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        meant = self._socket is not None and pid in ("", str(os.getpid()))
        asked = int(microseconds) if meant and microseconds.isascii() and microseconds.isdecimal() else 0
        self.watchdog = asked / 1e6 or None
        """Seconds within which we have to show that we live; None where nobody watches."""

    def ready(self) -> None:
        """We serve; also said when a reload is done."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """A reload begins."""
        # asyncio's clock may be another; systemd wants CLOCK_MONOTONIC
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The end begins."""
        self._tell("STOPPING=1")

    async def keep_telling(self, status: Callable[[], str]) -> None:
        """Until cancelled: show that the event loop runs, at half of the watchdog's time, and say ``status()``."""
        if self._socket is None:
            return
        alive = ("WATCHDOG=1",) if self.watchdog is not None else ()
        while True:
            self._tell(*alive, f"STATUS={status()}")
            await asyncio.sleep(self.watchdog / 2 if self.watchdog is not None else _STATUS_SECONDS)

    def close(self) -> None:
        """Nothing more will be told."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, *lines: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError as fault:
            log.warning("systemd was not told %s: %s", lines[0], fault.strerror)


def activated(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The listening sockets that systemd has handed to this process; none is usual. Raises `ActivationError`."""
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()):
        return []
    if not (count.isascii() and count.isdecimal() and int(count) <= _SOCKETS_MAX):
        raise ActivationError(f"LISTEN_FDS is no number up to {_SOCKETS_MAX}; start pop3d from its .socket unit")
    return [_listening(descriptor) for descriptor in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count))]


def _listening(descriptor: int) -> socket.socket:
    with contextlib.suppress(OSError):
        os.set_inheritable(descriptor, False)
        handed = socket.socket(fileno=descriptor)
        stream = handed.type == socket.SOCK_STREAM and handed.family in _FAMILIES
        if stream and handed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return handed
        handed.detach()
    raise ActivationError(
        f"descriptor {descriptor} from systemd is no listening stream socket; "
        "in the .socket unit say ListenStream= with a port or a path, and not Accept=yes"
    )


def matched(sockets: Sequence[socket.socket], listen: Sequence[Listener]) -> dict[int, list[socket.socket]]:
    """For each of ``listen``, by its index, the sockets of its port; those that get none bind for themselves.

    Of several with one port the socket's own address decides; one of all addresses goes to ``*`` then. Raises
    `ActivationError` for a socket that belongs to none, and for one that would take passwords in clear text from others
    than this machine.
    """
    found: dict[int, list[socket.socket]] = {}
    for handed in sockets:
        if handed.family == socket.AF_UNIX:
            found.setdefault(_of_path(handed.getsockname(), listen), []).append(handed)
            continue
        host, port = handed.getsockname()[:2]
        where = f"systemd handed over a socket on {host} port {port}"
        candidates = [index for index, one in enumerate(listen) if one.path is None and one.port == port]
        if len(candidates) > 1:
            own = [index for index in candidates if listen[index].host == host]
            candidates = own or [
                index for index in candidates if listen[index].host == "*" and ip_address(host).is_unspecified
            ]
        if len(candidates) != 1:
            raise ActivationError(f"{where}, which belongs to no [[listen]]: add one with this port, or remove it")
        one = listen[candidates[0]]
        if one.tls == "none" and not one.insecure and not ip_address(host).is_loopback:
            raise ActivationError(f'{where}, whose [[listen]] has tls = "none": bind it to loopback, or use TLS')
        found.setdefault(candidates[0], []).append(handed)
    return found


def _of_path(path: str, listen: Sequence[Listener]) -> int:
    for index, one in enumerate(listen):
        if one.path is not None and str(one.path) == path:
            return index
    raise ActivationError(
        f"systemd handed over a socket at {path}, which belongs to no [[listen]]: add one with this path, or remove it"
    )
