"""A client of LMTP: `smtplib.LMTP` reads one reply behind the message, where there is one for each recipient."""

import smtplib
from collections.abc import Sequence
from typing import Any


class LmtpClient(smtplib.LMTP):
    """Connected, and greeted by LHLO. ``path``: a Unix socket; else a port of 127.0.0.1."""

    def __init__(self, where: Any) -> None:
        super().__init__(str(where), 0) if not isinstance(where, int) else super().__init__("127.0.0.1", where)
        assert self.lhlo("mta.example.org")[0] == 250

    def lhlo(self, name: str) -> tuple[int, bytes]:
        code, text = self.docmd("LHLO", name)
        self.does_esmtp = True
        return code, text

    def replied(self, count: int) -> list[str]:
        """The next replies, such as ``250 2.1.5``."""
        replies = [self.getreply() for _ in range(count)]
        return [f"{code} {text.decode().split(' ')[0]}" for code, text in replies]

    def said(self, *lines: str) -> list[str]:
        """The replies to these commands, sent in one write."""
        self.send("".join(f"{line}\r\n" for line in lines).encode())
        return self.replied(len(lines))

    def handed_over(self, message: bytes, *recipients: str, sender: str = "bob@example.net") -> list[str]:
        """A transaction: the reply to each recipient, be it to RCPT or behind the message."""
        replies = self.said(f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{one}>" for one in recipients))[1:]
        if any(reply.startswith("250") for reply in replies):
            assert self.said("DATA")[0].startswith("354")
            self.send(smtplib._quote_periods(message) + b".\r\n")  # type: ignore[attr-defined]
            behind = iter(self.replied(sum(reply.startswith("250") for reply in replies)))
            replies = [next(behind) if reply.startswith("250") else reply for reply in replies]
        else:
            self.said("RSET")
        return replies


def delivered(replies: Sequence[str]) -> bool:
    return set(replies) == {"250 2.0.0"}
