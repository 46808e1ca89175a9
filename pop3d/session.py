"""The driver: one connection, from its first octet to its last.

The engine says what is to be done, and `_advance` does it: one `match`, one line for most. What needs no waiting is
done as soon as the client says it; for the rest there is the connection's task. What this module adds is time. Each
wait has a deadline on the monotonic clock, held in `deadline` with what is to happen then; the server sweeps all
sessions together, which costs less than a timer for each. And whatever a client says, others get their turn after some
milliseconds of work for it: the engine comes back often, and here is the clock.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias, assert_never

from pop3core.answers import (
    CommitFailed,
    Committed,
    Content,
    ContentFailed,
    LoginAccepted,
    LoginRejected,
    Pending,
    ServerAnswer,
    TlsEstablished,
)
from pop3core.events import (
    Closed,
    CommitRequested,
    ContentDropped,
    ContentRequested,
    Credential,
    LoginRequested,
    MoreWork,
    NeedData,
    SecretRequested,
    SendData,
    TlsRequested,
)
from pop3core.maildrop import Listing
from pop3core.sasl.base import SecretKind, Stored
from pop3core.server import CUT_OFF, ServerConfig, ServerConnection
from pop3core.table import State
from pop3d.abuse.connection_limits import ConnectionLimits
from pop3d.abuse.login_delays import LoginDelays
from pop3d.abuse.login_throttle import LoginThrottle
from pop3d.auth import Account, Authenticator
from pop3d.auth.names import AS_IS, UserNames
from pop3d.config import Limits
from pop3d.expiry import Expiry, SteadyClock
from pop3d.logins import Logins
from pop3d.net.certificates import ClientName
from pop3d.net.channel import Channel, ConnectionGone, HandshakeFailed, ProxyError
from pop3d.net.tls import ServerTls
from pop3d.observe.log import Event, mailbox_in_use, refused_connection, session_line
from pop3d.observe.report import Observer, SessionReport, SessionView
from pop3d.policy import Policy
from pop3d.registry import Registry
from pop3d.stores import Maildrop, MaildropBusy, RemovalFailed, Store, StoreError

__all__ = ["ServerSession", "Services"]

log = logging.getLogger("pop3d.session")

_TOO_SOON = LoginRejected("LOGIN-DELAY", "this login comes too soon after the last one")  # RFC 2449 §8.1.1

_TURN = 0.001  # seconds of work for one client, behind which all others get their turn
_SHUTDOWN = 5.0  # seconds for the last octets to leave, then the connection is cut


@dataclass(slots=True)
class Services:
    """What all sessions of a listener share. Exchanged on reload; a session keeps what it began with.

    ``tls``: for STLS; None where it is not offered. ``timestamp``: makes one for a greeting, where APOP is offered.
    ``names``: what is made of a name that a client says. ``policy``: how often users may log in and how long mail is
    kept; ``delays`` and ``clock``: what that goes by. ``registry``: who is logged in.
    ``client_name``: the field of a client's certificate that says who it is.
    ``proxied``: connections begin with a PROXY header. ``proxy_ends_tls``: what that says of the client's TLS counts.
    """

    authenticator: Authenticator
    store: Store
    connection_limits: ConnectionLimits
    throttle: LoginThrottle
    engine: ServerConfig
    limits: Limits
    tls: ServerTls | None = None
    timestamp: Callable[[], str] | None = None
    client_name: ClientName = "email"
    proxied: bool = False
    proxy_ends_tls: bool = False
    observer: Observer = field(default_factory=Observer)
    names: UserNames = AS_IS
    policy: Policy = field(default_factory=Policy)
    delays: LoginDelays = field(default_factory=LoginDelays)
    clock: SteadyClock = field(default_factory=SteadyClock)
    registry: Registry = field(default_factory=Registry)


class _RefusedUnchecked(Exception):
    """The connection may not go on; the text says why."""


_Step: TypeAlias = Callable[[], Awaitable[ServerAnswer | None]] | Closed | None
"""What the engine's last event leads to: what has to be awaited, the end, or (None) what the client says next."""


class ServerSession:
    """One connection. ``deadline``: seconds of `time.monotonic`; past it, the server calls `overdue`."""

    __slots__ = (
        "_aborted_for",
        "_channel",
        "_conn",
        "_drop",
        "_expired",
        "_expiry",
        "_linger",
        "_listing",
        "_login_deadline",
        "_logins",
        "_octets_in",
        "_octets_out",
        "_overdue",
        "_read_now",
        "_release",
        "_retrieved",
        "_services",
        "_since",
        "_started",
        "_step",
        "_updates",
        "deadline",
        "user",
    )

    def __init__(self, services: Services, channel: Channel) -> None:
        self._services = services
        self._channel = channel
        timestamp = services.timestamp() if services.timestamp is not None else None
        self._conn = ServerConnection(services.engine, timestamp=timestamp)
        self._logins = Logins(services.authenticator, services.throttle, services.limits, channel, services.names)
        self._drop: Maildrop | None = None
        self._read_now: Callable[[int, int], Content | None] | None = None
        self._release: Callable[[int], None] | None = None
        self._retrieved: Callable[[int], None] | None = None
        self._listing: Listing | None = None
        self._expiry: Expiry | None = None
        self._expired = 0
        self._step: _Step = None  # what was heard last leads to
        self._octets_in = self._octets_out = 0
        self._updates = False  # in the UPDATE state
        self._since: float | None = None  # seconds of `time.monotonic` when the login was accepted
        self.user: str | None = None
        """Who has logged in, as the store knows them, not as the client spelled it; None before."""
        self._started = time.monotonic()
        self._login_deadline = self._started + services.limits.login_timeout
        self.deadline = self._started + services.limits.handshake_timeout
        self._overdue: Callable[[], None] = self._header_too_slow if services.proxied else self._handshake_too_slow
        self._aborted_for: str | None = None
        self._linger = False

    @property
    def address(self) -> str:
        """The client's address; behind a proxy, the proxy's until it has told."""
        return self._channel.peer

    @property
    def tls_version(self) -> str:
        """Such as ``TLSv1.3``, also that between client and proxy; empty without TLS."""
        return self._channel.tls_version

    @property
    def mechanism(self) -> str:
        """A SASL name, ``USER`` or ``APOP``; empty before login."""
        return self._conn.summary.mechanism

    @property
    def seconds(self) -> float:
        """How long it is logged in; 0 before."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    @property
    def since(self) -> float:
        """When it logged in: Unix time by the clock as it is now."""
        return time.time() - self.seconds

    @property
    def view(self) -> SessionView:
        """How it is now."""
        now, channel, summary = time.monotonic(), self._channel, self._conn.summary
        waits = self._overdue == self._idle_too_long and channel.reading
        connected = time.time() - (now - self._started)
        return SessionView(
            user=self.user,
            address=channel.peer,
            tls=channel.tls_version,
            mechanism=summary.mechanism,
            connected=connected,
            since=None if self._since is None else connected + (self._since - self._started),
            idle=max(0.0, now - (self.deadline - self._services.limits.idle_timeout)) if waits else 0.0,
            state=self._state(),
            commands=summary.commands,
            retrieved=summary.retrieved,
            retrieved_octets=summary.retrieved_octets,
            octets_in=self._octets_in,
            octets_out=self._octets_out,
        )

    def _state(self) -> str:
        if self.user is not None:
            return "UPDATE" if self._updates else "TRANSACTION"
        greets = self._overdue in (self._header_too_slow, self._handshake_too_slow)
        return "HANDSHAKE" if greets else "AUTHORIZATION"

    # --- start, run, stop ---

    async def run(self) -> None:
        """Serve the connection to its end. Raises nothing but asyncio.CancelledError."""
        reason, refusal = "a fault of ours", None
        try:
            if self._services.proxied:
                await self._meet_the_proxy()
            reason = await self._handshake_and_serve()
        except _RefusedUnchecked as fault:
            refusal = str(fault)
        except HandshakeFailed as fault:
            reason = f"TLS handshake failed: {fault}"
        except ConnectionGone:
            reason = "the client answers no more" if self._channel.vanished else "the client is gone"
        except Exception:
            log.exception("a session ended by a fault of ours")
        finally:
            self._logins.close()
            try:
                await self._free()
            finally:
                self._tell(self._aborted_for or reason, refusal)
            self._until(_SHUTDOWN, self._channel.abort)
            await self._channel.close(linger=self._linger or reason in CUT_OFF)

    def overdue(self) -> None:
        """The deadline has passed."""
        self.deadline = float("inf")
        self._overdue()

    def close(self, reason: str) -> None:
        """End in good order: the reply under way is completed, then the client is told."""
        # a client that is being answered may have sent more, which nobody will read: see `Channel.close`
        self._linger = not self._channel.reading
        self._conn.finish(reason)
        self._logins.stop_waiting()
        self._channel.feed_eof()

    def abort(self, reason: str) -> None:
        """End now; the client is told nothing."""
        self._aborted_for = self._aborted_for or reason
        self._conn.hang_up(reason)
        self._logins.stop_waiting()
        self._channel.abort()

    def _tell(self, reason: str, refusal: str | None) -> None:
        if refusal is not None:
            refused_connection(self._channel.peer, refusal)
            self._services.observer.refused(refusal)
            return
        report = self._report(reason)
        session_line(report)
        self._services.observer.ended(report)

    def _report(self, reason: str) -> SessionReport:
        channel, summary = self._channel, self._conn.summary
        return SessionReport(
            address=channel.peer,
            user=self.user,
            tls=channel.tls_version,
            cipher=channel.cipher,
            mechanism=summary.mechanism,
            listing=self._listing,
            commands=summary.by_keyword,
            retrieved=summary.retrieved,
            retrieved_octets=summary.retrieved_octets,
            octets_in=self._octets_in,
            octets_out=self._octets_out,
            deleted=summary.deleted,
            seconds=time.monotonic() - self._started,
            reason=reason,
            expired=self._expired,
        )

    def _until(self, seconds: float, overdue: Callable[[], None]) -> None:
        self.deadline = time.monotonic() + seconds
        self._overdue = overdue

    # --- the life of a session ---

    async def _meet_the_proxy(self) -> None:
        proxy = self._channel.peer
        try:
            header = await self._channel.read_proxy_header()
        except ProxyError as fault:
            raise _RefusedUnchecked(f"no PROXY header: {fault}") from None
        log.debug(Event("proxied", ip=self.address, port=header.port, by=proxy, name=header.authority))
        if (refusal := self._services.connection_limits.count_address(self)) is not None:
            raise _RefusedUnchecked(refusal)
        self._overdue = self._handshake_too_slow

    async def _handshake_and_serve(self) -> str:
        await self._channel.handshake()  # RFC 8314 §3.1: where TLS is implicit, at once, before a greeting
        if self._channel.secure:
            self._conn.answer(self._tls_established())
        elif self._services.proxy_ends_tls and self._channel.secure_by_proxy:
            self._conn.answer(TlsEstablished())  # without a binding: the certificate that was shown is not ours
        return (await self._serve()).reason

    async def _serve(self) -> Closed:
        step = self._advance()
        while not isinstance(step, Closed):
            if step is None:
                await self._channel.listen(self._heard)
                step, self._step = self._step, None
            else:
                if (answer := await step()) is not None:
                    self._conn.answer(answer)
                step = self._advance()
        return step

    def _heard(self, data: bytes) -> bool:
        """Do what the client says at once, where nothing has to be waited for: no task is woken for that."""
        self._octets_in += len(data)
        self._conn.receive_data(data)
        self._step = self._advance()
        return self._step is None

    def _advance(self) -> _Step:
        """Do what the engine says, up to what has to be awaited, or as long as a turn may take."""
        conn, turn_ends = self._conn, time.monotonic() + _TURN
        while True:
            match conn.next_event():  # the most frequent one stands first
                case ContentRequested() as asked:
                    answer = self._content_now(asked)
                    if answer is None:
                        return partial(self._content, asked)
                    conn.answer(answer)
                    if time.monotonic() >= turn_ends:
                        return self._give_way
                case NeedData(resumed):
                    self._wait_for_command(resumed)
                    return None
                case SendData(data):
                    if not self._send(data):
                        return self._sent
                case MoreWork():
                    if time.monotonic() >= turn_ends:
                        return self._give_way
                case LoginRequested(credential, utf8):
                    return partial(self._login, credential, utf8)
                case SecretRequested(username, kind):
                    return partial(self._secret, username, kind)
                case TlsRequested():
                    return self._begin_tls
                case ContentDropped(number):
                    if self._release is not None:
                        self._release(number)
                case CommitRequested(numbers):
                    return partial(self._commit, numbers)
                case Closed() as closed:
                    return closed
                case unknown:
                    assert_never(unknown)

    async def _give_way(self) -> None:
        await asyncio.sleep(0)

    def _wait_for_command(self, resumed: bool) -> None:
        if self._since is None:
            self.deadline, self._overdue = self._login_deadline, self._login_too_slow
        elif not resumed:
            self._until(self._services.limits.idle_timeout, self._idle_too_long)

    def _send(self, data: bytes) -> bool:
        self._octets_out += len(data)
        return self._channel.write(data, last=self._conn.state is State.CLOSED)

    async def _sent(self) -> None:
        before = self.deadline, self._overdue
        self._until(self._services.limits.write_timeout, self._takes_nothing)
        await self._channel.drain()
        self.deadline, self._overdue = before

    def _header_too_slow(self) -> None:
        self.abort("no PROXY header in time")

    def _handshake_too_slow(self) -> None:
        self.abort("no TLS handshake in time")

    def _login_too_slow(self) -> None:
        self.abort("no login in time")

    def _idle_too_long(self) -> None:
        self.abort("autologout")  # RFC 1939 §3: no reply is sent, nothing is removed

    def _takes_nothing(self) -> None:
        self.abort("the client takes nothing")

    # --- what the engine asks ---

    async def _begin_tls(self) -> TlsEstablished:
        tls = self._services.tls
        assert tls is not None  # the engine offers STLS only where there is
        self.deadline = min(self._login_deadline, time.monotonic() + self._services.limits.handshake_timeout)
        self._overdue = self._handshake_too_slow
        self._channel.begin_tls(tls)
        await self._channel.handshake()
        return self._tls_established()

    def _tls_established(self) -> TlsEstablished:
        bindings, identity = self._channel.bindings, self._channel.identity(self._services.client_name)
        return TlsEstablished(bindings.end_point, identity, bindings.exporter)

    async def _secret(self, username: str, kind: SecretKind) -> Stored | LoginRejected:
        began = time.monotonic()
        self._until(float("inf"), self._login_too_slow)
        answer = await self._logins.secret(username, kind)
        if isinstance(answer, LoginRejected):
            self._services.observer.login(answer, time.monotonic() - began)
        return answer

    async def _login(self, credential: Credential, utf8: bool) -> LoginAccepted | LoginRejected:
        began = time.monotonic()
        answer = await self._checked(credential, utf8)
        self._services.observer.login(answer, time.monotonic() - began)
        return answer

    async def _checked(self, credential: Credential, utf8: bool) -> LoginAccepted | LoginRejected:
        self._until(float("inf"), self._login_too_slow)  # our own time is not the client's fault
        account = await self._logins.account(credential)
        if isinstance(account, LoginRejected):
            return account
        services, delay = self._services, self._services.policy.delay_of(account.limits)
        if services.delays.is_too_soon(account.name, delay):
            return _TOO_SOON
        began = time.monotonic()
        try:
            self._drop = await self._services.store.open(account, utf8=utf8)
        except StoreError as fault:
            if isinstance(fault, MaildropBusy):
                await self._tell_in_use(account.name, fault)
            else:
                log.error(Event("login refused", user=account.name, why=fault.text, detail=fault.detail))
            return LoginRejected(fault.code or "SYS/TEMP", fault.text)  # RFC 1939 §4: the store has kept no lock
        self._know(self._drop, account)
        services.delays.logged_in(account.name, delay)
        self._listing, self.user, self._since = self._drop.messages, account.name, time.monotonic()
        services.registry.add(account.name, self)
        self._services.connection_limits.logged_in(self)
        self._services.observer.opened(time.monotonic() - began)
        policy, limits = services.policy, account.limits
        return LoginAccepted(self._drop.messages, policy.own_expire(limits), policy.own_delay(limits))

    async def _tell_in_use(self, user: str, fault: MaildropBusy) -> None:
        """Log who holds the mailbox, as far as that can be found out."""
        for holder in self._services.registry.of(user):
            mailbox_in_use(self.address, user, holder.address, holder.since, holder.seconds)
            return
        pid = await asyncio.to_thread(fault.holder) if fault.holder is not None else None
        if fault.holder is None or pid == os.getpid():
            mailbox_in_use(self.address, user, "another session of this process, ending or of another user's name")
        else:
            mailbox_in_use(self.address, user, "another process", pid=pid)

    def _know(self, drop: Maildrop, account: Account) -> None:
        # Protocols `ReadsNow`, `Releases`, `MarksSeen`: to ask isinstance() costs 40 us a session with Python 3.11
        self._read_now = getattr(drop, "read_now", None)
        self._release = getattr(drop, "release", None)
        self._retrieved = getattr(drop, "retrieved", None)
        days = self._services.policy.expire_of(account.limits)
        if days is not None and days != math.inf:
            self._expiry = Expiry(days, drop, self._services.clock)
            if not days:
                self._retrieved = partial(_both, self._expiry.retrieved, self._retrieved)

    def _content_now(self, asked: ContentRequested) -> Content | ContentFailed | Pending | None:
        """What can be answered without waiting. None: nothing, and there is nothing to be sent meanwhile."""
        if self._read_now is None:
            return None
        try:
            content = self._read_now(asked.number, asked.offset)
        except StoreError as fault:
            return self._unreadable(fault)
        if content is None:
            return Pending() if self._conn.unsent else None
        if self._retrieved is not None and content.last and asked.lines is None:
            self._retrieved(asked.number)
        return content

    async def _content(self, asked: ContentRequested) -> Content | ContentFailed:
        assert self._drop is not None
        try:
            content = await self._drop.read(asked.number, asked.offset)
        except StoreError as fault:
            return self._unreadable(fault)
        if self._retrieved is not None and content.last and asked.lines is None:
            self._retrieved(asked.number)
        return content

    def _unreadable(self, fault: StoreError) -> ContentFailed:
        log.warning(Event("RETR or TOP failed", user=self.user, why=fault.text, detail=fault.detail))
        return ContentFailed(fault.code, fault.text)

    async def _commit(self, numbers: Collection[int]) -> Committed | CommitFailed:
        drop = self._drop
        assert drop is not None
        self._updates = True
        expired = [] if self._expiry is None else await self._expiry.due(numbers)
        try:
            await drop.remove(sorted({*numbers, *expired}) if expired else numbers)
            self._expired = len(expired)
        except StoreError as fault:
            log.error(Event("QUIT failed", user=self.user, why=fault.text, detail=fault.detail))
            if not isinstance(fault, RemovalFailed):
                return CommitFailed(numbers, fault.code or "SYS/TEMP")
            self._expired = len(set(expired).difference(fault.left))
            # what should have expired was not the client's to delete: it goes another time
            if left := [number for number in fault.left if number in numbers] if expired else fault.left:
                return CommitFailed(left, fault.code or "SYS/TEMP")
        finally:
            await self._free()  # RFC 1939 §6: in any case, and before the next session can know of the answer
        return Committed()

    async def _free(self) -> None:
        if self._drop is not None:
            drop, self._drop = self._drop, None
            self._read_now = self._release = self._retrieved = None
            try:
                await drop.close()
            finally:
                self._services.registry.discard(self.user or "", self)


def _both(first: Callable[[int], None], second: Callable[[int], None] | None, number: int) -> None:
    first(number)
    if second is not None:
        second(number)
