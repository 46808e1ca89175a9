"""SIGHUP: configuration, certificates and users are read again, while sessions go on.

A configuration with a fault changes nothing: each fault is logged, and the daemon goes on with what is in force.
Certificates and users are read all the same, by that. What a change does is said in `pop3d.config.reloading`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from pop3d.assembly import authenticator_again, store_again
from pop3d.auth import Authenticator, AuthError
from pop3d.config import Config, ConfigError
from pop3d.config.reloading import Change, change
from pop3d.key_pairs import KeyPairs
from pop3d.net.tls import ServerTls
from pop3d.observe.log import reconfigure
from pop3d.observe.report import Observer
from pop3d.renewal import Renewal
from pop3d.server import Server
from pop3d.stores import Store

__all__ = ["Reload", "ReloadResult"]

log = logging.getLogger("pop3d.reload")


_OF_NO_STORE: Final = ("store.quota_octets", "store.quota_messages", "store.expire")
"""Keys that deliveries and sessions go by."""

_OF_NO_USERS: Final = ("auth.mechanisms", "auth.trusted_networks")
"""Likewise."""


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """What came of a reload. ``at``: seconds since 1970, when it ended; ``ok``: no fault was found.

    ``changed``: keys of the configuration that have another value now; ``restart``: those that need a restart;
    ``faults``: a line each, of configuration and users.
    """

    at: float
    ok: bool
    changed: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Read:
    """All that a new configuration needs, without a fault. None: what there is stays."""

    change: Change
    pairs: KeyPairs
    tls: ServerTls | None
    authenticator: Authenticator | None
    store: Store | None


class Reload:
    """``config``: what is in force; ``again``: reads the configuration anew.

    ``last``: what came of the last one; None: there was none.
    """

    def __init__(
        self,
        config: Config,
        again: Callable[[], Config],
        server: Server,
        renewal: Renewal,
        observer: Observer | None = None,
    ) -> None:
        self.config, self._again = config, again
        self._server, self._renewal, self._observer = server, renewal, observer or Observer()
        self.one_at_a_time = asyncio.Lock()
        """To be held by who calls `run`."""
        self.last: ReloadResult | None = None

    def told(self) -> dict[str, Any] | None:
        """``last``, for `pop3d status`."""
        return None if self.last is None else asdict(self.last)

    async def run(self) -> None:
        """Read all anew; what is faulty stays as it was, and the log says so. Raises nothing."""
        done, faults = await self._configuration()
        await self._renewal.renew(self._server)
        faults += await self._users()
        self.last = ReloadResult(time.time(), not faults, done.changed, done.restart, tuple(faults))
        self._observer.reloaded(ok=self.last.ok, at=self.last.at)

    async def _configuration(self) -> tuple[Change, list[str]]:
        try:
            async with self._renewal.one_at_a_time:
                read = await asyncio.to_thread(self._read)
                self._take(read)
        except ConfigError as fault:
            return Change(self.config), _kept(fault.faults)
        except (AuthError, OSError) as fault:
            return Change(self.config), _kept([str(fault)])
        except Exception as fault:
            log.exception("configuration not reloaded, by a fault of ours or of a plug-in; the old one stays")
            return Change(self.config), [f"{type(fault).__name__}, see the log"]
        for key in read.change.restart:
            log.warning("`%s`: a change needs a restart", key)
        if read.change.changed:
            log.info("configuration reloaded: %s", ", ".join(read.change.changed))
        return read.change, []

    def _read(self) -> _Read:
        """In a thread: nothing here is in use yet."""
        to = change(self.config, self._again())
        pairs, tls = self._renewal.read_for(to.config)
        authenticator = authenticator_again(to.config) if _has_other_users(to) else None
        store = store_again(to.config) if to.touches("store", *_OF_NO_STORE) else None
        return _Read(to, pairs, tls, authenticator, store)

    def _take(self, read: _Read) -> None:
        """At once, between two steps of any session."""
        to = read.change
        if not to.changed:
            return
        if to.touches("log"):
            reconfigure(to.config.log.level, to.config.log.format)
        self._renewal.adopt(self._server, to.config, read.pairs, read.tls)
        self._server.reconfigure(to.config, read.authenticator, read.store)
        self.config = to.config

    async def _users(self) -> list[str]:
        """What is faulty stays as it was."""
        try:
            await self._server.reload_users()
        except AuthError as fault:
            log.error("users not reloaded, the old ones stay: %s", fault)
            return [str(fault)]
        except Exception as fault:  # of a plug-in: not even a bug of its may end in silence
            log.exception("users not reloaded, by a fault of ours or of a plug-in")
            return [f"users: {type(fault).__name__}, see the log"]
        log.info("users reloaded")
        return []


def _has_other_users(to: Change) -> bool:
    auth = to.config.auth
    if auth.is_plugin:
        return False
    # Dovecot is asked for homes where the store's paths have them
    return to.touches("auth", *_OF_NO_USERS) or (auth.backend == "dovecot" and to.touches("store"))


def _kept(faults: list[str]) -> list[str]:
    for fault in faults:
        log.error("configuration not reloaded, the old one stays: %s", fault)
    return faults
