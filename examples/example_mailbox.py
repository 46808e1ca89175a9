"""A mailbox in memory, for the servers of these examples: it answers what the engine asks, and knows no network.

Any user, password "secret". There is one mailbox, and one session at a time in it (RFC 1939 §4: an exclusive lock).
"""

import threading

from pop3core import Listing, ServerConnection
from pop3core.answers import Committed, Content, LoginAccepted, LoginRejected
from pop3core.events import CommitRequested, ContentRequested, LoginRequested, Password, ServerEvent

PIECE_OCTETS = 65536  # a piece of content has 64 KiB at most


class Mailbox:
    """Messages by their unique-id, content with CRLF line ends; and the lock."""

    def __init__(self) -> None:
        self.messages = {b"1": b"Subject: hello\r\n\r\nworld\r\n", b"2": b"Subject: dots\r\n\r\n.\r\n..\r\n"}
        self.lock = threading.Lock()


class Visit:
    """One session in a mailbox. Call `close` when it is over, however it ended."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._uids: list[bytes] = []  # as this session sees them
        self._locked = False

    def answer(self, conn: ServerConnection, event: ServerEvent) -> None:
        """Answer the engine's question, when ``event`` is one."""
        messages = self._mailbox.messages
        match event:
            case LoginRequested(Password(_, _, b"secret")):
                self._locked = self._mailbox.lock.acquire(blocking=False)
                if self._locked:
                    self._uids = list(messages)
                    conn.answer(LoginAccepted(Listing([len(messages[uid]) for uid in self._uids], self._uids)))
                else:
                    conn.answer(LoginRejected("IN-USE", "another session has the mailbox"))
            case LoginRequested():
                conn.answer(LoginRejected(None, "the password is secret"))
            case ContentRequested(number, offset):
                text, end = messages[self._uids[number - 1]], offset + PIECE_OCTETS
                conn.answer(Content(text[offset:end], last=end >= len(text)))
            case CommitRequested(numbers):
                for number in numbers:
                    del messages[self._uids[number - 1]]
                self.close()  # before the +OK: who comes next finds the mailbox free
                conn.answer(Committed())

    def close(self) -> None:
        """Free the mailbox."""
        if self._locked:
            self._locked = False
            self._mailbox.lock.release()
