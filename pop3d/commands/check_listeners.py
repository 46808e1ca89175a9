"""`pop3d check`: whether all that is to listen can, beside each other and beside what listens already.

Each address is bound for an instant, and never listened on, so that nobody can connect. Who holds one that is taken is
looked up in /proc (Linux): `check` is for a site that serves too, and then it is pop3d itself.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pop3d.commands.finding import CheckFinding, fault, warning
from pop3d.config import Config
from pop3d.net.listening import NO_FAMILY, ListenError, addresses_of, open_socket
from pop3d.system.privileges import group_id
from pop3d.system.unix_socket import is_stale

__all__ = ["listeners"]

_UNIX_PATH_MAX: Final = 107  # octets of a Unix socket's path: unix(7)
_PROC: Final = Path("/proc")
_LISTENS: Final = "0A"  # <net/tcp_states.h>
_ANY: Final = ("0.0.0.0", "::")  # noqa: S104  # compared with, not bound


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is to listen. ``where``: as the configuration has it. ``addresses``: family and address, resolved."""

    where: str
    host: str
    port: int
    reuse_port: bool
    addresses: tuple[tuple[int, str], ...]


def listeners(config: Config) -> Iterator[CheckFinding]:
    """As whoever we are, who should be who starts `serve`."""
    asked = [
        (f"[[listen]] number {number}", listen.host, listen.port, listen.reuse_port)
        for number, listen in enumerate(config.listen, 1)
        if listen.path is None
    ]
    if config.metrics is not None:
        asked.append(("`metrics.listen`", config.metrics.host, config.metrics.port, False))
    all_wanted: list[_Wanted] = []
    for where, host, port, reuse_port in asked:
        try:
            addresses = addresses_of(host, port)
        except OSError as trouble:
            yield CheckFinding(True, f"{where}: {ListenError(host, port, trouble)}")
            continue
        all_wanted.append(_Wanted(where, host, port, reuse_port, tuple(addresses)))
    for number, listen in enumerate(config.listen, 1):
        if listen.path is not None:
            yield from _unix(f"[[listen]] number {number}", listen.path, listen.group)
    for one, other in itertools.combinations(all_wanted, 2):
        if one.port and one.port == other.port and not (one.reuse_port and other.reuse_port) and _meet(one, other):
            what = f"{one.where} has port {one.port} too, so only one of the two can listen"
            yield fault(other.where, what, "give it another port, or another address")
    for wanted in all_wanted:
        yield from _bound(wanted)


def _unix(where: str, path: Path, group: str | None) -> Iterator[CheckFinding]:
    try:
        if group is not None:
            group_id(group)
    except LookupError as trouble:
        yield fault(where, f"`group`: {trouble}", "name that of the MTA, such as postfix")
    try:
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, f"there is no folder {path.parent}")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if len(os.fsencode(path)) > _UNIX_PATH_MAX:
            raise OSError(errno.ENAMETOOLONG, f"it has more than {_UNIX_PATH_MAX} octets")
        is_stale(path)
    except OSError as trouble:
        text = f"{where}: {ListenError(str(path), None, trouble)}"
        if trouble.errno == errno.EADDRINUSE:
            yield CheckFinding(False, f"{text}; all is well if it is pop3d itself")
        elif trouble.errno == errno.EACCES and os.geteuid() != 0:
            yield warning(text, "this was checked as an ordinary user", "`serve` may be started as root")
        else:
            yield CheckFinding(True, text)


def _meet(one: _Wanted, other: _Wanted) -> bool:
    return any(_same(a, b) for a in one.addresses for b in other.addresses)


def _same(one: tuple[int, str], other: tuple[int, str]) -> bool:
    return one[0] == other[0] and (one[1] == other[1] or one[1] in _ANY or other[1] in _ANY)


def _bound(wanted: _Wanted) -> Iterator[CheckFinding]:
    missing: list[OSError] = []
    for family, address in wanted.addresses:
        try:
            open_socket((family, address), wanted.port, reuse_port=wanted.reuse_port).close()
        except OSError as trouble:
            if trouble.errno in NO_FAMILY:
                missing.append(trouble)
                continue
            text = f"{wanted.where}: {ListenError(wanted.host, wanted.port, trouble)}"
            if trouble.errno == errno.EADDRINUSE:
                yield from _taken(text, family, address, wanted)
            elif trouble.errno == errno.EACCES and os.geteuid() != 0:
                yield warning(text, "this was checked as an ordinary user", "a unit of systemd may give the capability")
            else:
                yield CheckFinding(True, text)
            return
    if len(missing) == len(wanted.addresses):
        yield CheckFinding(True, f"{wanted.where}: {ListenError(wanted.host, wanted.port, missing[0])}")


def _taken(text: str, family: int, address: str, wanted: _Wanted) -> Iterator[CheckFinding]:
    holders = _holders(_inodes(family, address, wanted.port))
    others = sorted(f"{name} (process {pid})" for pid, (name, ours) in holders.items() if not ours)
    if others:
        yield CheckFinding(True, f"{text}; it is {', '.join(others)}")
    elif not holders:
        yield CheckFinding(False, f"{text}; all is well if it is pop3d itself, which could not be seen")


def _inodes(family: int, address: str, port: int) -> set[str]:
    """Of the sockets that listen there."""
    found: set[str] = set()
    try:
        lines = (_PROC / "net" / ("tcp6" if family == socket.AF_INET6 else "tcp")).read_text().splitlines()[1:]
    except OSError:
        return found
    for fields in map(str.split, lines):
        place, _, number = fields[1].partition(":")
        if (
            fields[3] == _LISTENS
            and int(number, 16) == port
            and _same((family, _read(family, place)), (family, address))
        ):
            found.add(f"socket:[{fields[9]}]")
    return found


def _read(family: int, digits: str) -> str:
    """An address as /proc has it: words of 32 bits, each as this machine stores it."""
    words = [int(digits[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(digits), 8)]
    return socket.inet_ntop(family, b"".join(words))


def _holders(inodes: set[str]) -> dict[int, tuple[str, bool]]:
    """Processes that hold one of the sockets, as far as we may see: their names, and whether they are pop3d's."""
    found = {}
    for folder in _PROC.glob("[0-9]*"):
        try:
            if any(os.readlink(link) in inodes for link in (folder / "fd").iterdir()):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                # systemd holds sockets for whom it activates
                ours = folder.name == "1" or (b"serve" in words and b"pop3d" in map(os.path.basename, words))
                found[int(folder.name)] = ((folder / "comm").read_text().strip(), ours)
        except OSError:
            continue  # it is gone, or not for us to see
    return found
