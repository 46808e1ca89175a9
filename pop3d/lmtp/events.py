"""What the engine of LMTP says; "read" and "write" are the events that the engine of POP3 has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import TypeAlias

from pop3core.events import NeedData, SendData
from pop3core.value import value
from pop3d.lmtp.grammar import MailPath

__all__ = [
    "ContentArrived",
    "ContentDiscarded",
    "DeliveryRequested",
    "LmtpClosed",
    "LmtpEvent",
    "RecipientAsked",
]


@value
class RecipientAsked:
    """Is there this recipient? Answer with a reply: a positive one accepts it. ``first``: none was accepted yet."""

    path: MailPath
    first: bool


@value
class ContentArrived:
    """The next octets of the message, with CRLF as they came, without the dots that were stuffed."""

    data: bytes = field(repr=False)


@value
class ContentDiscarded:
    """What arrived of the message is not to be delivered. ``why``: it is too large, or its sender has gone."""

    why: str


@value
class DeliveryRequested:
    """The message is complete. Answer with a reply for each of the recipients, in their order.

    There may be no content at all: `ContentArrived` came for none of it then. ``utf8``: SMTPUTF8 was asked for.
    """

    sender: MailPath
    recipients: Sequence[MailPath]
    utf8: bool


@value
class LmtpClosed:
    """The end; repeats for ever."""

    reason: str


LmtpEvent: TypeAlias = (
    NeedData | SendData | RecipientAsked | ContentArrived | ContentDiscarded | DeliveryRequested | LmtpClosed
)
