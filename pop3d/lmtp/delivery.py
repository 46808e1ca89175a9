"""From a message that has arrived to an answer for each recipient.

A delivery blocks, so each is done in a thread, of which there are some. Nothing that may happen there leaves a
recipient without an answer: 250 when the message is durable, 4xx when it may come again, and 5xx when it never will.

Each mailbox gets the message with three lines before it, as Dovecot's LMTP writes them: ``Return-Path`` (RFC 5321 §4.4:
whoever makes the final delivery adds it), ``Delivered-To`` and ``Received``.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import formatdate
from itertools import chain
from typing import Final

from pop3d.auth import Account
from pop3d.config import Config
from pop3d.lmtp import replies
from pop3d.lmtp.grammar import MailPath
from pop3d.lmtp.replies import LmtpReply
from pop3d.lmtp.spool import MessageSpool
from pop3d.observe.log import Event
from pop3d.observe.report import Observer
from pop3d.recipients import DeliverLater, MessageRefused, recipient_of
from pop3d.stores.quota import OverQuota
from pop3d.stores.threads import to_its_end

__all__ = ["Arrived", "Deliveries"]

log = logging.getLogger("pop3d.lmtp")

_THREADS_MAX: Final = 16
"""Deliveries at a time: each waits for its disk, or has a connection of the database; Postfix makes 20 at a time."""

_ID_WITHIN: Final = 64 * 1024  # octets that are searched for the Message-ID: some 1.5 ms at most

_MESSAGE_ID: Final = re.compile(rb"^message-id:[ \t]*(?:\n[ \t]+)?(<[^>\n]{1,250}>)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message that is complete. ``id``: in the log, the reply and ``Received``; ``client``: what its sender's MTA
    calls itself.
    """

    id: str
    client: str
    sender: MailPath
    utf8: bool
    content: MessageSpool


class Deliveries:
    """Deliveries of a server; ``config`` may be exchanged at any time."""

    def __init__(self, config: Config, observer: Observer) -> None:
        self.config = config
        self._observer = observer
        self._pool = ThreadPoolExecutor(_THREADS_MAX, thread_name_prefix="pop3d-lmtp")

    async def deliver(self, message: Arrived, path: MailPath, account: Account) -> LmtpReply:
        """Deliver to one recipient, to the end, even when this task is cancelled; the answer. Raises nothing."""
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        reply, why, message_id = await to_its_end(
            loop.run_in_executor(self._pool, self._delivered, message, path, account)
        )
        seconds = time.monotonic() - began
        event = Event(
            "delivered" if reply.positive else "not delivered",
            user=account.name,
            to=path.address,
            sender=message.sender.address,
            octets=message.content.octets,
            id=message.id,
            message_id=message_id,
            reply=f"{reply.code} {reply.status}",
            seconds=seconds,
            **({"why": why} if why else {}),
        )
        log.log(logging.INFO if reply.positive else logging.WARNING, event)
        self._observer.delivered(reply.code, seconds)
        return reply

    def _delivered(self, message: Arrived, path: MailPath, account: Account) -> tuple[LmtpReply, str, str]:
        """In a thread: the answer, why it is none of 250, and the Message-ID."""
        message_id = ""
        try:
            beginning = message.content.beginning[:_ID_WITHIN]
            if found := _MESSAGE_ID.search(beginning[: beginning.find(b"\n\n") + 1 or None]):
                message_id = found[1].decode("utf-8", "replace")
            pieces = message.content.pieces()
            recipient_of(self.config, account, many=True).deliver(chain(self._trace(message, path), pieces))
            return LmtpReply(250, "2.0.0", f"delivered as {message.id}"), "", message_id
        except OverQuota as fault:
            later = self.config.lmtp.over_quota == "later"
            return replies.MAILBOX_FULL if later else replies.MAILBOX_FULL_FOR_GOOD, str(fault), message_id
        except MessageRefused as fault:
            return replies.TOO_LARGE, str(fault), message_id
        except (DeliverLater, OSError) as fault:
            return replies.TRY_LATER, str(fault), message_id
        except Exception as fault:  # whatever it is, the message may come again, and its sender is not left waiting
            log.exception("a delivery failed by a fault of ours")
            return replies.TRY_LATER, type(fault).__name__, message_id

    def _trace(self, message: Arrived, path: MailPath) -> Iterator[bytes]:
        protocol = "UTF8LMTP" if message.utf8 else "LMTP"  # RFC 5321 §4.4, RFC 6531 §3.7.3
        yield (
            f"Return-Path: <{message.sender.text}>\n"
            f"Delivered-To: {path.text}\n"
            f"Received: from {message.client}\n"
            f"\tby {self.config.hostname or 'localhost'} (pop3d) with {protocol} id {message.id}\n"
            f"\tfor <{path.text}>; {formatdate(localtime=True)}\n"
        ).encode()
