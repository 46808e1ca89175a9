"""Where passwords are checked, so that the event loop goes on, and nobody waits for all the others.

What is computed without the interpreter's lock (Argon2, bcrypt, yescrypt, PBKDF2) runs in threads, as many as there are
cores. SHA-crypt and MD5-crypt do where the system's libcrypt has them; else they are Python and hold the lock. Then
they run in processes, which are started when the first such password comes. One that dies takes the checks of all under
way with it; they are told to come again, and new ones are started. Digests and plain secrets take microseconds, and are
compared at once.

As many are checked at a time as there are cores, at a lower priority than the event loop's. Of those that wait, the one
comes next whose source (an address) had the fewest before it: fifty logins from one place delay one from elsewhere by
one of them, not by fifty.

A worker dies with the daemon, however that ends, and leaves signals of the terminal and of systemd to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

from pop3d.auth import AuthUnavailable
from pop3d.auth.crypt_hashes import is_native
from pop3d.auth.digests import DIGESTS
from pop3d.auth.fair_queue import FairQueue
from pop3d.auth.passwords import matches
from pop3d.auth.schemes import MD5_CRYPT, PLAIN, PLAIN_MD4, SHA256_CRYPT, SHA512_CRYPT, Secret
from pop3d.system.process import no_core

__all__ = ["WAITING_MAX", "Hashing", "holds_the_lock", "variants"]

log = logging.getLogger("pop3d.hashing")

WAITING_MAX: Final = 512
"""Passwords being checked or waiting for it. With 20 ms each on two cores the last of them waits 5 seconds."""

_PROCESSES_MAX: Final = 4  # each takes some 30 MiB

_NICE: Final = 5
"""How much threads and processes that hash give way: a reply takes microseconds, a hash 20 ms and more."""

_AT_ONCE: Final = frozenset({PLAIN, PLAIN_MD4, *DIGESTS})
_MAY_HOLD_THE_LOCK: Final = frozenset({MD5_CRYPT, SHA256_CRYPT, SHA512_CRYPT})

P = ParamSpec("P")
T = TypeVar("T")


def variants(password: bytes, *, latin1: bool) -> tuple[bytes, ...]:
    """What to compare: the octets as sent; with ``latin1`` also the same text in the other of UTF-8 and Latin-1."""
    if not latin1 or password.isascii():
        return (password,)
    try:
        text = password.decode("utf-8")
    except UnicodeDecodeError:
        return password, password.decode("latin-1").encode("utf-8")
    try:
        return password, text.encode("latin-1")
    except UnicodeEncodeError:
        return (password,)


def holds_the_lock(scheme: str) -> bool:
    """Whether secrets of that scheme are checked in a process."""
    return scheme in _MAY_HOLD_THE_LOCK and not is_native(scheme)


class Hashing:
    """Threads and processes for it; `close` frees them."""

    def __init__(self) -> None:
        self._cores = os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(self._cores, thread_name_prefix="pop3d-hash", initializer=_give_way)
        self._turns = FairQueue(self._cores)
        self._processes: ProcessPoolExecutor | None = None
        self._waiting = 0

    async def matches(self, stored: Secret, passwords: tuple[bytes, ...], source: str = "") -> bool:
        """Whether one of ``passwords``, tried in order, is the one stored. Raises `AuthUnavailable`.

        ``source``: who waits with whom for a turn.
        """
        if stored.scheme in _AT_ONCE:
            return _any_matches(stored, passwords)
        if self._waiting >= WAITING_MAX:
            raise AuthUnavailable(f"{WAITING_MAX} passwords are being checked already")
        self._waiting += 1
        try:
            async with self._turns.turn(source):
                if holds_the_lock(stored.scheme):
                    return await self._in_a_process(stored, passwords)
                return await self.in_a_thread(_any_matches, stored, passwords)
        finally:
            self._waiting -= 1

    async def in_a_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what does not hold the interpreter's lock."""
        return await asyncio.wrap_future(self._threads.submit(function, *args, **kwargs))

    async def _in_a_process(self, stored: Secret, passwords: tuple[bytes, ...]) -> bool:
        pool = self._processes
        try:
            if pool is None:
                pool = self._processes = ProcessPoolExecutor(
                    min(self._cores, _PROCESSES_MAX),
                    # not "fork": that would copy threads' locks, and other connections' descriptors
                    mp_context=multiprocessing.get_context("spawn"),
                    initializer=_begin_worker,
                )
            # submit may have to start a process, which takes milliseconds
            submitted = await asyncio.to_thread(pool.submit, _any_matches, stored, passwords)
            return await asyncio.wrap_future(submitted)
        except Exception as fault:  # there are many ways not to start a process, and several not to hear from it again
            if pool is not None and self._processes is pool:
                self._processes = None
                pool.shutdown(wait=False)
            raise AuthUnavailable(
                f"a process that checks passwords of crypt(3) did not start, or ended ({type(fault).__name__}); "
                f"is there memory for it, and may the user of this daemon run {sys.executable}?"
            ) from None

    def close(self) -> None:
        """Whoever waits is forgotten."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._processes is not None:
            self._processes.shutdown(wait=False, cancel_futures=True)


def _give_way() -> None:
    # of this thread alone, as Linux has it; elsewhere all threads of the process would give way
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + _NICE)


def _any_matches(stored: Secret, passwords: tuple[bytes, ...]) -> bool:
    return any(matches(stored, password) for password in passwords)


def _begin_worker() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    no_core()  # an exec took it back
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    threading.Thread(target=_die_with_the_daemon, daemon=True).start()


def _die_with_the_daemon() -> None:
    daemon = multiprocessing.parent_process()
    assert daemon is not None
    daemon.join()
    os._exit(0)
