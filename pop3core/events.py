"""All that a connection says.

Reading and writing are events like the others: nobody must remember to flush. Each event is a small frozen noun. Number
spaces: ``number`` is a message-number, 1..n; ``offset`` and ``octets`` count content as sent, CRLF included and
dot-stuffing not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import TypeAlias

from pop3core.commands import Auth, Command
from pop3core.replies import Code
from pop3core.sasl.base import Outcome, Password, ProofFailed, SecretKind, Token, Verified
from pop3core.value import value

__all__ = [
    "Abandoned",
    "CapabilityItem",
    "Challenged",
    "ClientEvent",
    "Closed",
    "CommitRequested",
    "ContentDropped",
    "ContentEnded",
    "ContentReceived",
    "ContentRequested",
    "Credential",
    "Disconnected",
    "Greeted",
    "LanguageItem",
    "ListEnded",
    "ListItem",
    "LoginRequested",
    "MoreWork",
    "NeedData",
    "Password",
    "ProofFailed",
    "Replied",
    "SecretRequested",
    "SendData",
    "ServerEvent",
    "StatItem",
    "TlsReady",
    "TlsRequested",
    "Token",
    "UidItem",
    "Verified",
]


# --- both sides ---


@value
class NeedData:
    """Read from the peer and call ``receive_data``; with ``b""`` at the end of the stream.

    ``resumed``: nothing whole has come since the last NeedData (no command, no reply), so this wait goes on with the
    last one, and a trickle of octets renews no idle time.
    """

    resumed: bool


@value
class SendData:
    """Write ``data`` and wait until it has left, then ask for the next event."""

    data: bytes = field(repr=False)  # a client's output holds passwords


# --- what a server says ---


Credential: TypeAlias = Outcome
"""What a client proves itself with: `Password`, `Token`, `Verified`, `ProofFailed`."""


@value
class MoreWork:
    """There is more to do, and the peer is not needed for it: ask for the next event, now or later.

    Nothing else is to be done. It comes behind some commands that were executed, or some lines of a LIST, so that a
    driver with many connections can look at its clock and let others have their turn; but only if
    `Limits.turn_commands` asks for it.
    """


@value
class LoginRequested:
    """Check ``credential`` and open the mailbox; answer `LoginAccepted` or `LoginRejected`.

    `Verified` was checked inside the engine, and the client has not been told: open the mailbox, behind the same limits
    as a password's. `ProofFailed` was too: refuse it, after whatever a refused password gets (a count, a line in the
    log, a delay). Where the two are answered alike in time and, by a limit, in text, a guess is worth no more than one
    of a password. ``utf8``: the client asked for UTF8 (RFC 6856 §2.1).
    """

    credential: Credential
    utf8: bool


@value
class SecretRequested:
    """Find what is stored for ``username``; answer `ScramSecret`, `PlainSecret` (for APOP), or `NoSecret`.

    An unknown user must be answered like a known one: in the same time, by a `NoSecret` with the same salt each time.
    When it cannot be known now, the answer is a `LoginRejected` with a code, such as ``"SYS/TEMP"`` (RFC 3206 §4).
    """

    username: str
    kind: SecretKind


@value
class TlsRequested:
    """Do the TLS handshake now: the +OK to STLS has left. Answer `TlsEstablished`.

    What comes from now on is TLS: none of it may be given to ``receive_data`` before the handshake is complete.
    """


@value
class ContentRequested:
    """Give the content of message ``number`` from ``offset`` on; answer `Content`, `ContentFailed` or `Pending`.

    ``offset`` is 0 or the end of the last piece, so that one cursor is enough. ``lines``: None for the whole message,
    or for TOP how many body lines will be used; a hint, for the engine cuts.
    """

    number: int
    offset: int
    lines: int | None


@value
class ContentDropped:
    """No more of message ``number`` will be asked for, though its last piece was not given: release it."""

    number: int


@value
class CommitRequested:
    """The UPDATE state (RFC 1939 §6): remove the messages ``numbers``, ascending, and free the maildrop's lock.

    Answer `Committed` or `CommitFailed`. Comes for every QUIT in TRANSACTION, also with no number. ``numbers``: a view,
    which takes no time to make, however many they are; to go over a hundred thousand takes milliseconds.
    """

    numbers: Sequence[int]


@value
class Closed:
    """The end; repeats for ever. Close the connection.

    ``reason``: why, in a few words of ours. ``committed``: a QUIT was answered +OK behind an UPDATE state.
    """

    reason: str
    committed: bool


ServerEvent: TypeAlias = (
    NeedData
    | MoreWork
    | SendData
    | LoginRequested
    | SecretRequested
    | TlsRequested
    | ContentRequested
    | ContentDropped
    | CommitRequested
    | Closed
)
"""All that a `ServerConnection` says."""


# --- what a client says ---


@value
class Greeted:
    """The server's first line (RFC 1939 §4). Not ``ok``: it will not serve now, and the session has ended.

    ``code``: response code without brackets, or None. ``text``: foreign text. ``timestamp``: what APOP is computed
    from, angle brackets included; None where it is not offered (RFC 1939 §7 APOP).
    """

    ok: bool
    code: Code | None
    text: str
    timestamp: str | None = None


@value
class Replied:
    """The status line that answers ``command``; lines may follow as events of their own when ``ok``.

    ``code``: response code without brackets, or None. ``text``: what the server said; foreign text.
    """

    command: Command
    ok: bool
    code: Code | None
    text: str


@value
class StatItem:
    """What STAT says: ``messages`` that are not marked have ``octets`` octets together."""

    messages: int
    octets: int


@value
class ListItem:
    """A line of LIST: message ``number`` has ``octets`` octets."""

    number: int
    octets: int


@value
class UidItem:
    """A line of UIDL: message ``number`` has the unique-id ``uid``."""

    number: int
    uid: str


@value
class CapabilityItem:
    """A line of CAPA, as announced."""

    line: str


@value
class LanguageItem:
    """A line of LANG: a language ``tag``, and what the language calls itself; foreign text."""

    tag: str
    name: str


@value
class Challenged:
    """The server's challenge in the exchange that ``command`` began; answer `SaslResponse` or `SaslCancelled`."""

    command: Auth
    data: bytes = field(repr=False)


@value
class TlsReady:
    """The server has said +OK to STLS: do the handshake now, and answer `TlsEstablished`."""


@value
class ListEnded:
    """All items of STAT, LIST, UIDL, CAPA or LANG have come."""

    command: Command


@value
class ContentReceived:
    """A piece of the content that RETR or TOP asked for, unstuffed, line ends as sent (CRLF)."""

    data: bytes = field(repr=False)


@value
class ContentEnded:
    """The reply to RETR or TOP is complete: its terminator was seen. ``octets``: of all pieces together."""

    command: Command
    octets: int


@value
class Abandoned:
    """``command`` waited behind one that failed, or the connection went: it was never sent."""

    command: Command


@value
class Disconnected:
    """The end; repeats for ever. Close the connection.

    ``expected``: it follows the reply to QUIT, or ``hang_up``. ``unanswered``: commands sent whose reply did not come,
    or not to its end; the oldest first.
    """

    expected: bool
    unanswered: tuple[Command, ...]


ClientEvent: TypeAlias = (
    NeedData
    | SendData
    | Greeted
    | Replied
    | StatItem
    | ListItem
    | UidItem
    | CapabilityItem
    | LanguageItem
    | ListEnded
    | Challenged
    | TlsReady
    | ContentReceived
    | ContentEnded
    | Abandoned
    | Disconnected
)
"""All that a `ClientConnection` says."""
