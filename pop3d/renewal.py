"""Certificates that change while the daemon runs: on SIGHUP, and by themselves when their files have changed.

Files are exchanged one after the other, and perhaps written piece by piece. So what has changed is taken only once it
has been at rest from one look to the next, is without a fault (a key that does not belong to its certificate is one),
and was the same before it was read as after. Until then, and with a fault in any file, all old ones stay. A fault is
told once, not at every look. Nothing here waits for a disk on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Final, TypeAlias

from pop3d.assembly import tls_faults, tls_of
from pop3d.config import Config
from pop3d.net.tls import ServerTls
from pop3d.server import Server

__all__ = ["POLL", "Renewal"]

log = logging.getLogger("pop3d.renewal")

POLL: Final = 60.0
"""Seconds between two looks at the files: renewals come days before they are needed."""

_Stamps: TypeAlias = tuple[tuple[Path, tuple[int, ...]], ...]


class _Faulty(Exception):
    """The files cannot be used; one line."""


class Renewal:
    """Keeps `Server.tls` as the files are. To be made, which blocks, before the server reads them first."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._tried = _stamps(config)  # what was taken, or found faulty, last
        self._seen = self._tried  # at the last look
        self._one_at_a_time = asyncio.Lock()

    async def renew(self, server: Server) -> None:
        """Read all files again; what is faulty stays as it was, and the log says so."""
        async with self._one_at_a_time:
            try:
                server.tls = await asyncio.to_thread(self._read)
                log.info("certificate reloaded")
            except (_Faulty, OSError, ValueError) as fault:
                log.error("certificate not reloaded, the old one stays: %s", fault)

    async def watch(self, server: Server, seconds: float = POLL) -> None:
        """Look every so often. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(seconds)
            await self.look(server)

    async def look(self, server: Server) -> None:
        """Renew when the files have changed, and have been at rest since the last look."""
        before, self._seen = self._seen, await asyncio.to_thread(_stamps, self._config)
        if self._seen == before and self._seen != self._tried:
            await self.renew(server)

    def _read(self) -> ServerTls | None:
        self._tried = before = _stamps(self._config)
        if faults := tls_faults(self._config):
            raise _Faulty("; ".join(faults))
        tls = tls_of(self._config)
        if _stamps(self._config) != before:
            raise _Faulty("the files changed while they were read; they are looked at again")
        return tls


def _stamps(config: Config) -> _Stamps:
    """What tells that a file is another one, or has changed; nothing for one that is not there."""
    stamps: list[tuple[Path, tuple[int, ...]]] = []
    for path in config.tls.files if config.tls is not None else ():
        try:
            found = os.stat(path)
        except OSError:
            stamps.append((path, ()))
        else:
            stamps.append((path, (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)))
    return tuple(stamps)
