"""Sockets that listen: which addresses a configured host means, and when a client that has vanished is given up.

``*`` means both families, each by a socket of its own; ``0.0.0.0`` is IPv4 alone and ``::`` IPv6 alone, whatever the
system's default is (``bindv6only``). Of ``*`` and of a name, the addresses of a family that this machine does not have
are left out.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from collections.abc import Sequence
from typing import Final, TypeAlias

__all__ = ["NO_FAMILY", "Address", "ListenError", "addresses_of", "bound", "give_up_lost_clients", "open_socket"]

log = logging.getLogger("pop3d.listening")

NO_FAMILY: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)
"""What binding an address says on a machine without its family; and of an address that is another machine's."""

_ANY: Final = "*"
_WILDCARDS: Final = ((int(socket.AF_INET6), "::"), (int(socket.AF_INET), "0.0.0.0"))  # noqa: S104
_PORT_TRIES: Final = 20  # for a port that is free in both families, where the system chooses
_WRITE_TIMEOUT_FIRST: Final = 5  # seconds behind ``write_timeout``: the session ends itself, and says why
_PROBES: Final = 3  # that may be lost on the way before a client is given up: networks lose some

Address: TypeAlias = "tuple[int, str]"
"""Family and address, as text."""


class ListenError(Exception):
    """A listener cannot be bound; one line that says which, why and what to do."""

    def __init__(self, host: str, port: int | None, fault: OSError) -> None:
        """``host``: the path of a Unix socket, where there is no ``port``."""
        why = os.strerror(fault.errno) if fault.errno and fault.errno > 0 else fault.strerror or str(fault)
        of_tcp = {
            errno.EADDRINUSE: "end what listens there, or choose another port",
            errno.EACCES: "ports below 1024 need root, or the capability to bind them",
            errno.EADDRNOTAVAIL: "choose an address of this machine",
            socket.EAI_NONAME: "choose an address, or a name, of this machine",
        }
        of_path = {
            errno.EADDRINUSE: "end what listens there, or choose another path",
            errno.EACCES: "start as root, or choose a folder that `user` may write to",
            errno.EPERM: "only root gives a socket to a `group` that it is not in",
            errno.ENOENT: "make the folder, or choose another path",
            errno.ENOTSOCK: "remove the file, or choose another path",
        }
        if port is None:
            remedy = of_path.get(fault.errno or 0, "choose another path")
            super().__init__(f"cannot listen on {host}: {why}; {remedy}")
            return
        remedy = of_tcp.get(fault.errno or 0, "choose another host or port")
        super().__init__(f"cannot listen on {host} port {port}: {why}; {remedy}")


def addresses_of(host: str, port: int) -> Sequence[Address]:
    """What ``host`` means: an address, a name, or ``*``. To ask for a name may take seconds. Raises OSError."""
    if host == _ANY:
        return _WILDCARDS
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as fault:  # it cannot be a name, and no resolver is asked
        raise OSError(str(fault.args[-1])) from None
    return tuple(dict.fromkeys((int(family), _scoped(address)) for family, _, _, _, address in found))


def _scoped(address: tuple[object, ...]) -> str:
    """A link-local address of IPv6 means something with its link only."""
    scope = address[3] if len(address) == 4 else 0
    text = str(address[0])
    return f"{text}%{scope}" if scope and "%" not in text else text


def open_socket(address: Address, port: int, *, reuse_port: bool = False) -> socket.socket:
    """A socket that is bound, and does not listen yet. Raises OSError."""
    family, host = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0][4])
    except BaseException:
        sock.close()
        raise
    return sock


def bound(host: str, port: int, *, reuse_port: bool = False) -> list[socket.socket]:
    """Sockets for all addresses of ``host``, all with one port, also where that is 0 and the system chooses it.

    Raises OSError; nothing is left open then.
    """
    addresses = addresses_of(host, port)
    for tries_left in reversed(range(_PORT_TRIES)):
        try:
            return _bound(host, addresses, port, reuse_port)
        except OSError as fault:
            # the system's choice for one family may be taken in the other
            if port or len(addresses) < 2 or fault.errno != errno.EADDRINUSE or not tries_left:
                raise
    raise AssertionError


def _bound(host: str, addresses: Sequence[Address], port: int, reuse_port: bool) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    missing: list[tuple[Address, OSError]] = []
    with contextlib.ExitStack() as undo:
        for address in addresses:
            try:
                sock = open_socket(address, port, reuse_port=reuse_port)
            except OSError as fault:
                if fault.errno in NO_FAMILY:
                    missing.append((address, fault))
                    continue
                raise
            undo.callback(sock.close)
            sockets.append(sock)
            port = port or sock.getsockname()[1]
        if not sockets:
            raise missing[0][1]
        undo.pop_all()
    for (_, absent), why in missing:
        log.info("not listening on %s port %d, a part of host %s: %s", absent, port, host, why.strerror)
    return sockets


def give_up_lost_clients(listener: socket.socket, lost_after: float, write_timeout: float) -> None:
    """Have the system end connections of clients that are gone without a word: no power, no network, another address.

    It ends those from which nothing has come for ``lost_after`` seconds, neither octets nor an acknowledgement. Set on
    the listener, whose connections inherit it (tcp(7)), this costs no call for each of them. A client that lives and
    says nothing stays: its system answers the probes.

    A client that lives and takes nothing answers too; but `TCP_USER_TIMEOUT` ends its connection as well, by the time
    for which its window has been shut. That is the business of ``write_timeout``, so here it has longer.
    """
    seconds = max(1, round(lost_after))
    options = [
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        # half of the time in silence, and then the probes
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", max(1, seconds // 2)),
        (socket.IPPROTO_TCP, "TCP_KEEPALIVE", max(1, seconds // 2)),  # macOS has that name for it
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", max(1, seconds // (2 * _PROBES))),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", _PROBES),
        # octets of ours that nobody acknowledges stop the probes: the system sends them again and again instead, for a
        # quarter of an hour; where it has this option, it decides about unanswered probes too
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 1000 * max(seconds, round(write_timeout) + _WRITE_TIMEOUT_FIRST)),
    ]
    for level, name, value in options:
        if (option := getattr(socket, name, None)) is not None:
            with contextlib.suppress(OSError):  # a system that knows it by name only
                listener.setsockopt(level, option, value)
