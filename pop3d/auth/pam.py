"""Users of this machine, by PAM: whoever the service of that name lets in, by its phases auth and account.

PAM's modules are strangers in whatever process they run in: they wait for networks, sleep behind a wrong password,
start programs, and some crash. So they run in a few processes of their own, which live on from one login to the next.
One that does not answer in time is killed, and another one started when it is needed. Passwords reach them by a pipe.

These processes have no more rights than the daemon: a stack that reads /etc/shadow needs a helper for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Final

from pam import PAM_AUTHINFO_UNAVAIL, PAM_SUCCESS, PamAuthenticator

from pop3core.events import Credential, Password, Verified
from pop3d.auth import Account, AuthError, AuthUnavailable, check_user_name
from pop3d.auth.fair_queue import FairQueue

__all__ = ["WORKER", "PamUsers"]

log = logging.getLogger("pop3d.pam")

_SECONDS_MAX: Final = 20.0  # for one login, from the moment it comes; modules sleep some 2 s behind a wrong password
_TOGETHER: Final = 16  # processes; other logins wait for their turn, within their time
_KEPT: Final = 4  # processes that stay when there is nothing to do; some 10 MiB each
_LOGINS_MAX: Final = 1000  # of one process, so that what a module leaks is given back
_PASSWORD_OCTETS_MAX: Final = 511  # PAM_MAX_RESP_SIZE of Linux-PAM, 512, has room for a NUL
_FAREWELL: Final = 5.0  # seconds for killed processes to be gone

WORKER: Final = Path(__file__).with_name("pam_worker.py")
"""What these processes run."""


class PamUsers:
    """See `pop3d.auth.Authenticator`. Raises `AuthError` where PAM cannot be had.

    ``service``: the name of a file in /etc/pam.d. ``seconds_max``: for one login.
    """

    def __init__(self, service: str, *, seconds_max: float = _SECONDS_MAX) -> None:
        self._service, self._seconds_max = service, seconds_max
        self._turns = FairQueue(_TOGETHER)
        self._idle: list[_Worker] = []
        self._workers: set[_Worker] = set()
        self._ending: set[asyncio.Future[None]] = set()
        try:
            PamAuthenticator()  # loads the library
        except (OSError, AttributeError):
            raise AuthError('backend = "pam": there is no libpam that can be loaded; install it') from None

    async def authenticate(self, credential: Credential, source: str = "") -> Account | None:
        """See `pop3d.auth.Authenticator.authenticate`. To act as somebody else is refused.

        Of who is `Verified` the phase account is asked only. PAM hears of ``source`` as PAM_RHOST; of an IPv6 network,
        of its first address.
        """
        if not isinstance(credential, Password | Verified):
            return None
        name, password = credential.username, None
        if credential.authzid not in ("", name):
            return None
        if isinstance(credential, Password):
            password = credential.secret
            # Some modules let an account without a password in with an empty one; and C ends a text at its NUL.
            if not password or b"\0" in password or len(password) > _PASSWORD_OCTETS_MAX:
                return None
        try:
            check_user_name(name)
        except ValueError:
            return None
        return Account(name) if await self._is(name, password, source) else None

    async def _is(self, name: str, password: bytes | None, source: str) -> bool:
        try:
            async with asyncio.timeout(self._seconds_max), self._turns.turn(source):
                result, text = await self._asked(name, password, source)
        except TimeoutError:
            raise AuthUnavailable(f"PAM did not answer in {self._seconds_max:g} s") from None
        if result in (PAM_AUTHINFO_UNAVAIL, -1):
            # No other result is taken for one that passes: pam_exec, for one, tells a wrong password as a fault of the
            # system, and what is not counted as a failure can be guessed without end.
            raise AuthUnavailable(f"PAM cannot tell: {text}")
        if result != PAM_SUCCESS:
            log.info("PAM refused %r: %s", name[:64], text)
        return bool(result == PAM_SUCCESS)

    async def _asked(self, name: str, password: bytes | None, source: str) -> tuple[int, str]:
        worker = self._idle.pop() if self._idle else await self._started()
        try:
            host = source.partition("/")[0].encode()
            answer = await worker.ask(name.encode("utf-8", "surrogateescape"), password, host)
        except BaseException:
            self._end(worker)  # it may answer yet, and nobody may take that for the answer to another question
            raise
        if len(self._idle) < _KEPT and worker.asked < _LOGINS_MAX:
            self._idle.append(worker)
        else:
            self._end(worker)
        return answer

    def _end(self, worker: _Worker) -> None:
        self._workers.discard(worker)
        self._ending.add(task := asyncio.ensure_future(worker.end()))
        task.add_done_callback(self._ending.discard)

    async def _started(self) -> _Worker:
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", str(WORKER), self._service),  # -P: not with our folder in its path
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                start_new_session=True,
            )
        except OSError as fault:
            raise AuthUnavailable(f"no process for PAM: {fault.strerror}") from None
        worker = _Worker(process)
        self._workers.add(worker)
        return worker

    async def reload(self) -> None:
        """Nothing is kept: PAM reads its files at each login."""

    async def close(self) -> None:
        """See `pop3d.auth.Authenticator.close`."""
        self._idle.clear()
        for worker in list(self._workers):
            self._end(worker)
        if self._ending:
            await asyncio.wait(self._ending, timeout=_FAREWELL)


class _Worker:
    """A process of `pop3d.auth.pam_worker`. ``asked``: how many questions it had."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.asked = 0

    async def ask(self, name: bytes, password: bytes | None, host: bytes) -> tuple[int, str]:
        """PAM's result, and its name; without a password of the phase account only.

        Raises `AuthUnavailable` when the process is gone.
        """
        questions, answers = self.process.stdin, self.process.stdout
        assert questions is not None
        assert answers is not None
        self.asked += 1
        with contextlib.suppress(ConnectionError):  # then there is no answer either
            what, secret = ("login", password) if password is not None else ("account", b"")
            questions.write(f"{what}:{name.hex()}:{secret.hex()}:{host.hex()}\n".encode())
            await questions.drain()
        result, _, text = (await answers.readline()).decode("utf-8", "replace").partition(" ")
        if not text.endswith("\n"):
            raise AuthUnavailable("the process that asks PAM ended")
        return int(result), text.rstrip("\n")

    async def end(self) -> None:
        """Kill it, with the programs that it started, as far as they stayed with it; until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            if self.process.returncode is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.communicate()
