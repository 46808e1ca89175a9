"""The logins of one connection: checked by the authenticator, and no faster than penalties allow.

What the engine has verified (SCRAM, APOP) passes the same limits as a password before anything is told of it, right or
wrong.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import replace

from pop3core.answers import LoginRejected, NoSecret
from pop3core.events import Credential, Password, ProofFailed, Verified
from pop3core.sasl.base import SecretKind, Stored
from pop3d.abuse.addresses import is_within, source_of
from pop3d.abuse.attempts import Attempt
from pop3d.abuse.login_throttle import LoginThrottle, TooMany
from pop3d.auth import Account, Authenticator, AuthUnavailable, CannotServe, KeepsSecrets
from pop3d.auth.names import UserNames, spelled
from pop3d.config import Limits
from pop3d.net.channel import Channel
from pop3d.observe.log import failed_login, refused_login, unserved_login

__all__ = ["Logins", "why_forbidden"]

log = logging.getLogger("pop3d.logins")

_TOO_MANY = LoginRejected("SYS/TEMP", "too many failed logins, try again later")
_UNAVAILABLE = LoginRejected("SYS/TEMP", "logins cannot be checked now, try again later")


class Logins:
    """What a session asks of an authenticator."""

    __slots__ = (
        "_attempt",
        "_authenticator",
        "_channel",
        "_limits",
        "_names",
        "_served",
        "_stopped",
        "_throttle",
        "_waits",
    )

    def __init__(
        self,
        authenticator: Authenticator,
        throttle: LoginThrottle,
        limits: Limits,
        channel: Channel,
        names: UserNames,
    ) -> None:
        self._authenticator, self._throttle, self._limits = authenticator, throttle, limits
        self._channel, self._names = channel, names
        self._attempt: Attempt | None = None
        self._stopped = False
        self._served = True  # the mechanism whose proof is awaited, by what is stored
        self._waits: asyncio.Event | None = None  # while it waits: an event takes 800 octets

    def stop_waiting(self) -> None:
        """Wait no more: the session ends."""
        self._stopped = True
        if self._waits is not None:
            self._waits.set()

    def close(self) -> None:
        """Of an attempt that came to no end, nothing is left."""
        if self._attempt is not None:
            self._throttle.release(self._attempt)
            self._attempt = None

    async def secret(self, username: str, kind: SecretKind) -> Stored | LoginRejected:
        """What is stored for SCRAM or APOP; see `pop3d.auth.KeepsSecrets`. Its proof comes with `account`."""
        nonce = secrets.token_urlsafe(18)
        if not isinstance(self._authenticator, KeepsSecrets):
            return NoSecret(server_nonce=nonce)
        try:
            stored = await self._authenticator.secret(self._names(username), kind, nonce)
        except AuthUnavailable as fault:
            return _unavailable(fault)
        self._served = not isinstance(stored, CannotServe)
        return stored

    async def account(self, credential: Credential) -> Account | LoginRejected:
        """Whose credential it is, or why it is refused."""
        try:
            return await self._account(self._named(credential))
        except AuthUnavailable as fault:
            self.close()  # nobody was wrong
            return _unavailable(fault)

    def _named(self, credential: Credential) -> Credential:
        """With the names that users are found by."""
        username = self._names(credential.username)
        if username != credential.username:
            credential = replace(credential, username=username)
        if isinstance(credential, Password | Verified) and credential.authzid:
            credential = replace(credential, authzid=self._names(credential.authzid))
        return credential

    async def _account(self, credential: Credential) -> Account | LoginRejected:
        if isinstance(credential, Verified) and credential.mechanism == "EXTERNAL":
            # nothing was guessed: the certificate's owner proved himself in the handshake
            found, reason = self._permitted(await self._authenticator.authenticate(credential))
            return found if found is not None else self._refused(credential, reason, served=True)
        served = self._served or not isinstance(credential, ProofFailed)
        try:
            await self._begin(credential.username, served=served)
        except TooMany as fault:
            if not self._stopped:
                refused_login(self._channel.peer, credential.username, str(fault))
                await self._pause(self._limits.auth_penalty)
            return _TOO_MANY
        attempt = self._attempt
        assert attempt is not None
        proved = await self._authenticator.authenticate(credential, source_of(self._channel.peer))
        found, reason = self._permitted(proved)
        self._attempt = None
        if found is not None:
            self._throttle.accepted(attempt, self._channel.peer, self._account_name(self._names(found.name)))
            return found
        wait = self._throttle.failed(attempt)
        refusal = self._refused(credential, reason, served=served)
        await self._pause(wait)
        return refusal

    async def _begin(self, username: str, *, served: bool) -> None:
        name = self._account_name(username)
        attempt = self._attempt = self._throttle.begin(self._channel.peer, name, served=served)
        if not attempt.turn.is_set():
            await self._wait(self._limits.auth_penalty_max, attempt.turn)
        if not attempt.turn.is_set():
            self.close()
            raise TooMany("too many failed logins before this one")

    def _account_name(self, username: str) -> str:
        """What limits go by: the account, and not how it was spelled."""
        # Protocol `KnowsSpellings`: to ask isinstance() costs 40 us with Python 3.11
        name: str = getattr(self._authenticator, "account_name", spelled)(username)
        return name

    def _permitted(self, account: Account | None) -> tuple[Account | None, str]:
        """The account; or None, and why somebody who proved to be its user may not log in."""
        if account is None:
            return None, ""
        secure = not account.limits.require_tls or self._channel.secure or self._channel.secure_by_proxy
        reason = why_forbidden(account, self._channel.peer, secure=secure)
        return (None, reason) if reason else (account, "")

    def _refused(self, credential: Credential, reason: str, *, served: bool) -> LoginRejected:
        """The same to the client whatever the ``reason``, which only the log has."""
        if served:
            failed_login(self._channel.peer, credential.username, reason)
        else:
            unserved_login(self._channel.peer, credential.username, getattr(credential, "mechanism", ""))
        return LoginRejected(None, "wrong user name or password")

    async def _pause(self, seconds: float) -> None:
        if seconds > 0:
            await self._wait(seconds)

    async def _wait(self, seconds: float, *events: asyncio.Event) -> None:
        """Until one of the events is set, we are hurried, the client is gone, or the time is over."""
        if self._stopped:
            return
        self._waits = asyncio.Event()
        gone = asyncio.ensure_future(self._channel.wait_eof())
        waits = [gone, *(asyncio.ensure_future(one.wait()) for one in (self._waits, *events))]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            # whoever goes keeps no connection's place: others at the address need it. That of the login is held on.
            self._stopped |= gone.done()
        finally:
            self._waits = None
            for one in waits:
                one.cancel()


def why_forbidden(account: Account, address: str, *, secure: bool) -> str:
    """Why somebody who proved to be this user may not log in from there; empty: nothing forbids it."""
    if account.forbidden:
        return account.forbidden
    if account.networks and not is_within(address, account.networks):
        return "not from this network"
    if account.limits.require_tls and not secure:
        return "not without TLS"  # RFC 2595 §2.3
    return ""


def _unavailable(fault: AuthUnavailable) -> LoginRejected:
    log.error("a login could not be checked: %s", fault)
    return _UNAVAILABLE
