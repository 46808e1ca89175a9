"""A store in memory, for tests, demonstrations and as the shortest example of a store."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping

from pop3core.answers import Content
from pop3core.framing import CrlfNormalizer
from pop3core.limits import DEFAULT_LIMITS
from pop3core.maildrop import Listing
from pop3d.auth import Account
from pop3d.stores import MaildropBusy

__all__ = ["MemoryMaildrop", "MemoryStore"]

_PIECE = DEFAULT_LIMITS.content_octets_max


class MemoryStore:
    """Mailboxes as lists of messages: octets with any line ends, oldest first."""

    def __init__(self, mailboxes: Mapping[str, Iterable[bytes]] | None = None) -> None:
        self._mailboxes: dict[str, list[tuple[bytes, bytes]]] = {}
        self._delivered = 0
        self._open: set[str] = set()
        for user, messages in (mailboxes or {}).items():
            for message in messages:
                self.deliver(user, message)

    def deliver(self, user: str, message: bytes) -> None:
        """Put a message into a user's mailbox; a session under way does not see it."""
        content = CrlfNormalizer()
        text = content.feed(message) + content.finish()
        self._delivered += 1
        uid = f"{self._delivered}.{hashlib.sha256(text).hexdigest()[:16]}".encode()
        self._mailboxes.setdefault(user, []).append((uid, text))

    def messages(self, user: str) -> list[bytes]:
        """A user's messages as they would be sent, oldest first."""
        return [text for _, text in self._mailboxes.get(user, [])]

    async def open(self, account: Account, *, utf8: bool) -> MemoryMaildrop:
        """See `pop3d.stores.Store.open`."""
        if account.name in self._open:
            raise MaildropBusy
        self._open.add(account.name)
        return MemoryMaildrop(self, account.name, list(self._mailboxes.get(account.name, [])))

    def remove(self, user: str, uids: Collection[bytes]) -> None:
        """Remove messages by unique-id."""
        self._mailboxes[user] = [kept for kept in self._mailboxes.get(user, []) if kept[0] not in uids]

    def unlock(self, user: str) -> None:
        """Let the next session in."""
        self._open.discard(user)


class MemoryMaildrop:
    """One session's view of a mailbox in memory."""

    def __init__(self, store: MemoryStore, user: str, messages: list[tuple[bytes, bytes]]) -> None:
        self._store, self._user, self._held = store, user, True
        self._texts = [text for _, text in messages]
        self.messages = Listing([len(text) for text in self._texts], [uid for uid, _ in messages])

    def read_now(self, number: int, offset: int) -> Content:
        """See `pop3d.stores.ReadsNow`."""
        text = self._texts[number - 1]
        return Content(text[offset : offset + _PIECE], last=offset + _PIECE >= len(text))

    async def read(self, number: int, offset: int) -> Content:
        """See `pop3d.stores.Maildrop.read`."""
        return self.read_now(number, offset)

    async def remove(self, numbers: Collection[int]) -> None:
        """See `pop3d.stores.Maildrop.remove`."""
        self._store.remove(self._user, {self.messages.uids[number - 1] for number in numbers})

    async def close(self) -> None:
        """See `pop3d.stores.Maildrop.close`."""
        if self._held:
            self._held = False
            self._store.unlock(self._user)
