"""Certificates that change while the daemon runs: on SIGHUP, and by themselves when their files have changed.

Files are exchanged one after the other, and perhaps written piece by piece. So what has changed is taken only once it
has been at rest from one look to the next, and was the same before it was read as after; a pair with a fault (a key
that does not belong to its certificate is one) stays as it was, and the others are taken. A fault is told at each
attempt, and once a day, not at every look; likewise that a certificate has expired. Nothing here waits for a disk on
the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import Final, TypeAlias

from pop3d.config import Config, ConfigError
from pop3d.key_pairs import KeyPairs
from pop3d.net.tls import ServerTls
from pop3d.observe.report import Observer
from pop3d.server import Server

__all__ = ["POLL", "REMIND", "Renewal"]

log = logging.getLogger("pop3d.renewal")

POLL: Final = 60.0
"""Seconds between two looks at the files: renewals come days before they are needed."""

REMIND: Final = 24 * 3600.0
"""Seconds after which what is wrong is tried, and told, again: files that cannot be seen do not look changed."""

_Stamps: TypeAlias = tuple[tuple[Path, tuple[int, ...]], ...]


class Renewal:
    """Keeps `Server.tls` as the files are. ``observer``: told when the certificates that are served end."""

    def __init__(self, config: Config, observer: Observer | None = None) -> None:
        self._config, self._observer = config, observer or Observer()
        self._pairs: KeyPairs | None = None
        self._tried: _Stamps = ()  # what was taken, or found faulty, last
        self._seen: _Stamps = ()  # at the last look
        self._at = time.monotonic()  # of the last attempt
        self.one_at_a_time = asyncio.Lock()
        """Held by who reads the files and takes what they make."""

    def begin(self) -> ServerTls | None:
        """Read the files for the first time, which blocks; what can be served is, and the log says what cannot.

        Raises `ConfigError` when nothing can, and OSError.
        """
        self._seen = self._tried = _stamps(self._config)
        pairs = KeyPairs.read(self._config)
        tls = pairs.tls()
        self._take(pairs)
        return tls

    def read_for(self, config: Config) -> tuple[KeyPairs, ServerTls | None]:
        """What the files of another configuration make; for a worker thread. `adopt` takes it.

        Of files that this one names too, those with a fault stay as they were. Raises `ConfigError` for a fault in one
        that it does not name, and OSError.
        """
        before = self._pairs
        assert before is not None  # `begin` has read them
        pairs = KeyPairs.read(config, before)
        if pairs.lacks_what_is_new(before):
            raise ConfigError([text for text in pairs.faults if text not in pairs.kept])
        return pairs, pairs.tls()

    def adopt(self, server: Server, config: Config, pairs: KeyPairs, tls: ServerTls | None) -> None:
        """Go by another configuration from now on; `renew` says what is wrong with its files."""
        self._config, self._pairs, server.tls = config, pairs, tls

    async def renew(self, server: Server) -> None:
        """Read all files again; what is faulty stays as it was, and the log says so."""
        async with self.one_at_a_time:
            self._at = time.monotonic()
            before = self._pairs
            try:
                read = await asyncio.to_thread(self._read)
            except OSError as fault:
                log.error("certificate not reloaded, the old one stays: %s", fault)
                return
            if read is None:
                log.error("certificate not reloaded, the old one stays: the files change; they are looked at again")
                return
            pairs, server.tls = read
            self._take(pairs)
            if not pairs.faults:
                log.info("certificate reloaded")
            elif before is not None and any(pair is not before.pairs.get(one) for one, pair in pairs.pairs.items()):
                log.info("all other certificates reloaded")

    def _read(self) -> tuple[KeyPairs, ServerTls | None] | None:
        """None while the files change."""
        self._tried = before = _stamps(self._config)
        pairs = KeyPairs.read(self._config, self._pairs)
        tls = pairs.tls()
        return (pairs, tls) if _stamps(self._config) == before else None

    async def watch(self, server: Server, seconds: float = POLL) -> None:
        """Look every so often. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(seconds)
            await self.look(server)

    async def look(self, server: Server) -> None:
        """Renew when the files have changed, and have been at rest since the last look."""
        before, self._seen = self._seen, await asyncio.to_thread(_stamps, self._config)
        changed = self._seen == before and self._seen != self._tried
        if changed or (time.monotonic() - self._at >= REMIND and self._is_wrong()):
            await self.renew(server)

    def _is_wrong(self) -> bool:
        return self._pairs is not None and (bool(self._pairs.faults) or any(self._pairs.dates()))

    def _take(self, pairs: KeyPairs) -> None:
        self._pairs = pairs
        for fault in pairs.faults:
            old = "not reloaded, the old one stays" if fault in pairs.kept else "not loaded"
            log.error("certificate %s: %s", old, fault)
        for line in pairs.left_out():
            log.error("%s", line)
        for line in pairs.dates():
            log.warning("%s; it is used meanwhile", line)
        self._observer.certificates(list(pairs.ends()))


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
