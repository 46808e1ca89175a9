"""The logins of one connection: checked by the authenticator, and no faster than penalties allow."""

from __future__ import annotations

import asyncio
import logging
import secrets

from pop3core.answers import LoginRejected, NoSecret
from pop3core.events import Credential, Verified
from pop3core.sasl.base import SecretKind, Stored
from pop3d.auth import Account, Authenticator, AuthUnavailable, KeepsSecrets
from pop3d.channel import Channel
from pop3d.config import Limits
from pop3d.log import failed_login, refused_login
from pop3d.penalties import Attempt, Penalties, TooMany, source_of

__all__ = ["Logins"]

log = logging.getLogger("pop3d.logins")

_TOO_MANY = LoginRejected("SYS/TEMP", "too many failed logins, try again later")
_UNAVAILABLE = LoginRejected("SYS/TEMP", "logins cannot be checked now, try again later")


class Logins:
    """What a session asks of an authenticator."""

    __slots__ = ("_attempt", "_authenticator", "_channel", "_hurried", "_limits", "_penalties", "_waits")

    def __init__(self, authenticator: Authenticator, penalties: Penalties, limits: Limits, channel: Channel) -> None:
        self._authenticator, self._penalties, self._limits = authenticator, penalties, limits
        self._channel = channel
        self._attempt: Attempt | None = None
        self._hurried = False
        self._waits: asyncio.Event | None = None  # while it waits: an event takes 800 octets

    def hurry(self) -> None:
        """Wait no more: the session ends."""
        self._hurried = True
        if self._waits is not None:
            self._waits.set()

    def close(self) -> None:
        """Of an attempt that came to no end, nothing is left."""
        if self._attempt is not None:
            self._penalties.leave(self._attempt)
            self._attempt = None

    async def secret(self, username: str, kind: SecretKind) -> Stored | LoginRejected:
        """What is stored for SCRAM or APOP; see `pop3d.auth.KeepsSecrets`. Its proof comes with `account`."""
        nonce = secrets.token_urlsafe(18)
        if not isinstance(self._authenticator, KeepsSecrets):
            return NoSecret(server_nonce=nonce)
        try:
            return await self._authenticator.secret(username, kind, nonce)
        except AuthUnavailable as fault:
            return _unavailable(fault)

    async def account(self, credential: Credential) -> Account | LoginRejected:
        """Whose credential it is, or why it is refused."""
        try:
            return await self._account(credential)
        except AuthUnavailable as fault:
            self.close()  # nobody was wrong
            return _unavailable(fault)

    async def _account(self, credential: Credential) -> Account | LoginRejected:
        if isinstance(credential, Verified) and credential.mechanism == "EXTERNAL":
            # nothing was guessed: the certificate's owner proved himself in the handshake
            found = await self._authenticator.authenticate(credential)
            return found if found is not None else self._refused(credential)
        try:
            await self._begin(credential.username)
        except TooMany as fault:
            if not self._hurried:
                refused_login(self._channel.peer, credential.username, str(fault))
                await self._pause(self._limits.auth_penalty)
            return _TOO_MANY
        attempt = self._attempt
        assert attempt is not None
        found = await self._authenticator.authenticate(credential, source_of(self._channel.peer))
        self._attempt = None
        if found is not None:
            self._penalties.accepted(attempt)
            return found
        wait = self._penalties.failed(attempt)
        refusal = self._refused(credential)
        await self._pause(wait)
        return refusal

    async def _begin(self, username: str) -> None:
        attempt = self._attempt = self._penalties.begin(self._channel.peer, username)
        if not attempt.turn.is_set():
            await self._wait(self._limits.auth_penalty_max, attempt.turn)
        if not attempt.turn.is_set():
            self.close()
            raise TooMany("too many failed logins from this address")

    def _refused(self, credential: Credential) -> LoginRejected:
        failed_login(self._channel.peer, credential.username)
        return LoginRejected(None, "wrong user name or password")

    async def _pause(self, seconds: float) -> None:
        if seconds > 0:
            await self._wait(seconds)

    async def _wait(self, seconds: float, *events: asyncio.Event) -> None:
        """Until one of the events is set, we are hurried, or the time is over."""
        if self._hurried:
            return
        self._waits = asyncio.Event()
        waits = [asyncio.ensure_future(one.wait()) for one in (self._waits, *events)]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waits = None
            for one in waits:
                one.cancel()


def _unavailable(fault: AuthUnavailable) -> LoginRejected:
    log.error("a login could not be checked: %s", fault)
    return _UNAVAILABLE
