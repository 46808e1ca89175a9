"""What the server says: a code (RFC 5321 §4.2), an enhanced one (RFC 3463, announced by RFC 2034 §4), and words.

The words are ours and ASCII: nothing that a client said stands in a reply, so nothing can be forged by it.
"""

from __future__ import annotations

from pop3core.value import value

__all__ = [
    "ALREADY_A_SENDER",
    "BAD_RECIPIENT",
    "BAD_SENDER",
    "BAD_SYNTAX",
    "DELIVERED",
    "GO_AHEAD",
    "MAILBOX_FULL",
    "MAILBOX_FULL_FOR_GOOD",
    "NEEDS_SMTPUTF8",
    "NOT_LMTP",
    "NOT_OFFERED",
    "NO_LHLO",
    "NO_RECIPIENTS",
    "NO_SENDER",
    "NO_SPACE",
    "NO_SUCH_USER",
    "OK",
    "RECIPIENT_OK",
    "SENDER_OK",
    "TOO_LARGE",
    "TOO_MANY_RECIPIENTS",
    "TRY_LATER",
    "UNKNOWN",
    "UNKNOWN_PARAMETER",
    "LmtpReply",
]


@value
class LmtpReply:
    """``status``: such as ``"2.1.5"``; empty where there is none: the greeting, LHLO, and 354 (RFC 2034 §3)."""

    code: int
    status: str
    text: str

    @property
    def wire(self) -> bytes:
        """As it is sent."""
        return f"{self.code} {self.status}{' ' if self.status else ''}{self.text}\r\n".encode("ascii")

    @property
    def positive(self) -> bool:
        """Whether it says that something was done, or may go on."""
        return self.code < 400


OK = LmtpReply(250, "2.0.0", "OK")
SENDER_OK = LmtpReply(250, "2.1.0", "sender OK")
RECIPIENT_OK = LmtpReply(250, "2.1.5", "recipient OK")
DELIVERED = LmtpReply(250, "2.0.0", "delivered")
GO_AHEAD = LmtpReply(354, "", "go ahead; end with a line of one dot")

TRY_LATER = LmtpReply(451, "4.3.0", "cannot be delivered now; the server's log says why")
MAILBOX_FULL = LmtpReply(452, "4.2.2", "the mailbox is full")
MAILBOX_FULL_FOR_GOOD = LmtpReply(552, "5.2.2", "the mailbox is full")
NO_SPACE = LmtpReply(452, "4.3.1", "no room to take the message in now")
TOO_MANY_RECIPIENTS = LmtpReply(
    452, "4.5.3", "too many recipients; send the others by themselves"
)  # RFC 5321 §4.5.3.1.10
NO_SUCH_USER = LmtpReply(550, "5.1.1", "no such user here")
TOO_LARGE = LmtpReply(552, "5.3.4", "the message is too large")
NEEDS_SMTPUTF8 = LmtpReply(553, "5.6.7", "an address that is not ASCII needs SMTPUTF8")  # RFC 6531 §3.5
BAD_SENDER = LmtpReply(501, "5.1.7", "the sender's address is not understood")
BAD_RECIPIENT = LmtpReply(501, "5.1.3", "the recipient's address is not understood")
BAD_SYNTAX = LmtpReply(501, "5.5.4", "the arguments are not understood")
ALREADY_A_SENDER = LmtpReply(503, "5.5.1", "there is a sender already; DATA or RSET comes first")
NO_SENDER = LmtpReply(503, "5.5.1", "say MAIL FROM first")
NO_LHLO = LmtpReply(503, "5.5.1", "say LHLO first")
NO_RECIPIENTS = LmtpReply(503, "5.5.1", "no recipient was accepted")  # RFC 2033 §4.2
NOT_LMTP = LmtpReply(500, "5.5.1", "this is LMTP: say LHLO")  # RFC 2033 §4.1
NOT_OFFERED = LmtpReply(502, "5.5.1", "this command is not offered")
UNKNOWN = LmtpReply(500, "5.5.1", "no such command")
UNKNOWN_PARAMETER = LmtpReply(555, "5.5.4", "a parameter is not known")  # RFC 5321 §4.1.1.11
