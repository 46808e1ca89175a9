"""The driver: one connection, from its first octet to its last.

The engine says what is to be done, and `LmtpSession._serve` does it: one ``match``. What this module adds is time, as
`pop3d.session` does for POP3: each wait has a deadline on the monotonic clock, which the server sweeps.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, assert_never

from pop3core.events import NeedData, SendData
from pop3d.auth import Account, AuthUnavailable
from pop3d.lmtp import replies
from pop3d.lmtp.addressees import Addressees
from pop3d.lmtp.delivery import Arrived, Deliveries
from pop3d.lmtp.engine import CUT_OFF, LmtpConnection, LmtpSettings
from pop3d.lmtp.events import ContentArrived, ContentDiscarded, DeliveryRequested, LmtpClosed, RecipientAsked
from pop3d.lmtp.grammar import MailPath
from pop3d.lmtp.replies import LmtpReply
from pop3d.lmtp.spool import MessageSpool
from pop3d.net.channel import Channel, ConnectionGone
from pop3d.observe.log import Event
from pop3d.observe.report import Observer

__all__ = ["LmtpServices", "LmtpSession"]

log = logging.getLogger("pop3d.lmtp")

_COMMAND_TIMEOUT: Final = 300.0  # seconds between two commands: RFC 5321 §4.5.3.2.7 asks for five minutes at least
_CONTENT_TIMEOUT: Final = 180.0  # seconds between two pieces of a message: RFC 5321 §4.5.3.2.5 gives a sender as many
_MESSAGE_TIMEOUT: Final = 1800.0  # seconds for a whole message: an MTA of this machine sends 50 MiB in one
_TURN: Final = 0.001  # seconds of work for one client, behind which all others get their turn
_SHUTDOWN: Final = 5.0  # seconds for the last octets to leave, then the connection is cut


@dataclass(frozen=True, slots=True)
class LmtpServices:
    """What all connections share. ``folder``: where large messages are kept on their way."""

    settings: LmtpSettings
    addressees: Addressees
    deliveries: Deliveries
    folder: Path
    write_timeout: float
    observer: Observer


class LmtpSession:
    """One connection. ``deadline``: seconds of `time.monotonic`; past it, the server calls `overdue`."""

    def __init__(self, services: LmtpServices, channel: Channel, address: str) -> None:
        self.address = address
        self._services = services
        self._channel = channel
        self._conn = LmtpConnection(services.settings)
        self._accounts: dict[MailPath, Account] = {}
        self._spool: MessageSpool | None = None
        self._spoiled = False  # the message that arrives could not be kept
        self._message_deadline = float("inf")
        self._octets_in = self._delivered = self._refused = 0
        self._started = time.monotonic()
        self._aborted_for: str | None = None
        self._linger = False
        self.deadline = self._started + _COMMAND_TIMEOUT
        self._overdue: Callable[[], None] = self._no_command_in_time

    # --- start, stop ---

    async def run(self) -> None:
        """Serve the connection to its end. Raises nothing but asyncio.CancelledError."""
        reason = "a fault of ours"
        try:
            reason = await self._serve()
        except ConnectionGone:
            reason = "the client is gone"
        except Exception:
            log.exception("an LMTP connection ended by a fault of ours")
        finally:
            self._until(_SHUTDOWN, self._channel.abort)
            await self._forget()
            self._tell(self._aborted_for or reason)
            await self._channel.close(linger=self._linger or reason in CUT_OFF)

    def overdue(self) -> None:
        """The deadline has passed."""
        self.deadline = float("inf")
        self._overdue()

    def close(self, reason: str) -> None:
        """End in good order: a message under way is taken and delivered, then the client is told."""
        # a client that is being answered may have sent more, which nobody will read: see `Channel.close`
        self._linger = not self._channel.reading
        self._conn.finish(reason)
        if not self._conn.in_content and self._channel.reading:
            self._channel.feed_eof()

    def abort(self, reason: str) -> None:
        """End now; the client is told nothing. A delivery under way runs to its end."""
        self._aborted_for = self._aborted_for or reason
        self._conn.hang_up(reason)
        self._channel.abort()

    def _tell(self, reason: str) -> None:
        level = logging.INFO if self._delivered or self._refused or reason != "QUIT" else logging.DEBUG
        told = Event(
            "lmtp",
            ip=self.address,
            client=self._conn.client,
            delivered=self._delivered,
            refused=self._refused,
            octets_in=self._octets_in,
            seconds=time.monotonic() - self._started,
            reason=reason,
        )
        log.log(level, told)

    def _until(self, seconds: float, overdue: Callable[[], None]) -> None:
        self.deadline = time.monotonic() + seconds
        self._overdue = overdue

    def _no_command_in_time(self) -> None:
        self.close("no command in time")

    # --- what the engine says ---

    async def _serve(self) -> str:
        conn, turn_ends = self._conn, time.monotonic() + _TURN
        while True:
            match conn.next_event():
                case NeedData(resumed):
                    self._wait(resumed)
                    data = await self._channel.read()
                    self._octets_in += len(data)
                    conn.receive_data(data)
                case SendData(data):
                    if not self._channel.write(data):
                        self._until(self._services.write_timeout, lambda: self.abort("the client takes nothing"))
                        await self._channel.drain()
                case RecipientAsked(path, first):
                    conn.answer(await self._recipient(path, first))
                case ContentArrived(data):
                    await self._keep(data)
                case ContentDiscarded(why):
                    log.warning(Event("message discarded", ip=self.address, why=why))
                    await self._forget()
                case DeliveryRequested(sender, recipients, utf8):
                    conn.answer(await self._deliver(sender, recipients, utf8))
                case LmtpClosed(reason):
                    return reason
                case unknown:
                    assert_never(unknown)
            if time.monotonic() >= turn_ends:
                await asyncio.sleep(0)
                turn_ends = time.monotonic() + _TURN

    def _wait(self, resumed: bool) -> None:
        if self._conn.in_content:
            if self._message_deadline == float("inf"):
                self._message_deadline = time.monotonic() + _MESSAGE_TIMEOUT
            self._until(_CONTENT_TIMEOUT, lambda: self.abort("no message in time"))
            self.deadline = min(self.deadline, self._message_deadline)
        elif not resumed:
            self._until(_COMMAND_TIMEOUT, self._no_command_in_time)

    async def _recipient(self, path: MailPath, first: bool) -> LmtpReply:
        if first:
            self._accounts.clear()
        self.deadline = float("inf")  # our own time is not the client's fault
        try:
            account = await self._services.addressees.account(path)
            reply, why = (replies.RECIPIENT_OK, "") if account is not None else (replies.NO_SUCH_USER, "no such user")
        except AuthUnavailable as fault:
            account, reply, why = None, replies.TRY_LATER, str(fault)
        except Exception as fault:  # of a plug-in, or of ours: the mail may come again
            log.exception("a recipient cannot be looked up, by a fault of ours or of a plug-in")
            account, reply, why = None, replies.TRY_LATER, type(fault).__name__
        if account is not None:
            self._accounts[path] = account
        else:
            self._refused += 1
            code = f"{reply.code} {reply.status}"
            log.info(Event("recipient refused", ip=self.address, to=path.address, reply=code, why=why))
            self._services.observer.delivered(reply.code, 0.0)
        return reply

    async def _keep(self, data: bytes) -> None:
        if self._spoiled:
            return
        if self._spool is None:
            self._spool = MessageSpool(self._services.folder)
        try:
            await self._spool.write(data)
        except OSError as fault:
            log.error("a message cannot be kept on its way: %s: %s", self._services.folder, fault.strerror or fault)
            await self._forget()
            self._spoiled = True

    async def _forget(self) -> None:
        """Nothing is kept of the message that arrived."""
        self._message_deadline, self._spoiled = float("inf"), False
        if self._spool is not None:
            spool, self._spool = self._spool, None
            await spool.close()

    async def _deliver(self, sender: MailPath, recipients: Sequence[MailPath], utf8: bool) -> list[LmtpReply]:
        self.deadline = float("inf")
        if self._spoiled:
            await self._forget()
            answers = [replies.NO_SPACE for _ in recipients]
            for reply in answers:
                self._services.observer.delivered(reply.code, 0.0)
        else:
            spool = self._spool = self._spool or MessageSpool(self._services.folder)
            message = Arrived(secrets.token_hex(6), self._conn.client, sender, utf8, spool)
            # an address that was said twice gets one copy and the same answer twice; two addresses of one user (with
            # an extension, say) get one each, as from any other delivery agent
            once = dict.fromkeys(recipients)
            deliver = self._services.deliveries.deliver
            done = await asyncio.gather(*(deliver(message, path, self._accounts[path]) for path in once))
            answer_of = dict(zip(once, done, strict=True))
            answers = [answer_of[path] for path in recipients]
            await self._forget()
        self._delivered += sum(reply.positive for reply in answers)
        self._refused += sum(not reply.positive for reply in answers)
        return answers
