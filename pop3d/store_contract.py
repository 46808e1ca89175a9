"""What every store must do, as tests for pytest and pytest-asyncio. For a store of your own:

class TestMyStore(StoreContract):
    async def make(self, messages: list[bytes]) -> Store:
        ...  # a store in which the user "alice" has these messages, oldest first
"""

from __future__ import annotations

from typing import Final

import pytest

from pop3core.limits import DEFAULT_LIMITS
from pop3core.maildrop import is_unique_id
from pop3d.auth import Account
from pop3d.stores import Maildrop, MaildropBusy, ReadsNow, Releases, Store

__all__ = ["ALICE", "MESSAGES", "StoreContract", "content"]

ALICE: Final = Account("alice")
"""Whose mailbox it is."""

MESSAGES: Final = [
    (b"Subject: LF\n\none\ntwo\n", b"Subject: LF\r\n\r\none\r\ntwo\r\n"),
    (b"Subject: CRLF\r\n\r\none\r\n", b"Subject: CRLF\r\n\r\none\r\n"),
    (b"Subject: mixed\r\n\none\ntwo\r\n", b"Subject: mixed\r\n\r\none\r\ntwo\r\n"),
    (b".\n..\n.dots\n", b".\r\n..\r\n.dots\r\n"),
    (b"Subject: bare CR\n\na\rb\r", b"Subject: bare CR\r\n\r\na\rb\r\r\n"),
    (b"Subject: no final newline\n\nend", b"Subject: no final newline\r\n\r\nend\r\n"),
    (b"Subject: 8-bit \xe9\xff\n\n\x00NUL\n", b"Subject: 8-bit \xe9\xff\r\n\r\n\x00NUL\r\n"),
    (b"", b""),
    (b"\n" * 200_000, b"\r\n" * 200_000),
    (b"x" * 300_000, b"x" * 300_000 + b"\r\n"),
]
"""Messages, each as stored and as RETR must send it."""


async def content(drop: Maildrop, number: int) -> bytes:
    """A message, read as the daemon reads it."""
    pieces: list[bytes] = []
    while True:
        offset = sum(map(len, pieces))
        piece = drop.read_now(number, offset) if isinstance(drop, ReadsNow) else None
        if piece is None:
            piece = await drop.read(number, offset)
        assert len(piece.data) <= DEFAULT_LIMITS.content_octets_max
        assert piece.data or piece.last
        pieces.append(piece.data)
        if piece.last:
            return b"".join(pieces)


@pytest.mark.asyncio
class StoreContract:
    """Derive, and write `make`."""

    async def make(self, messages: list[bytes]) -> Store:
        """A store in which the user "alice" has ``messages``, oldest first."""
        raise NotImplementedError

    async def test_sends_what_was_stored_and_announces_its_size(self) -> None:
        store = await self.make([stored for stored, _ in MESSAGES])
        drop = await store.open(ALICE, utf8=False)
        assert len(drop.messages) == len(MESSAGES)
        for number, (_, sent) in enumerate(MESSAGES, 1):
            assert await content(drop, number) == sent
            assert drop.messages.sizes[number - 1] == len(sent)
        assert drop.messages.octets == sum(len(sent) for _, sent in MESSAGES)
        await drop.close()

    async def test_unique_ids_are_well_formed_unique_and_stable(self) -> None:
        store = await self.make([b"same\n", b"same\n", b"other\n"])
        drop = await store.open(ALICE, utf8=False)
        uids = list(drop.messages.uids)
        await drop.close()
        assert all(is_unique_id(uid) for uid in uids)
        assert len(set(uids)) == 3
        drop = await store.open(ALICE, utf8=False)
        assert list(drop.messages.uids) == uids
        await drop.remove([2])
        await drop.close()
        drop = await store.open(ALICE, utf8=False)
        assert list(drop.messages.uids) == [uids[0], uids[2]]
        await drop.close()

    async def test_one_session_at_a_time(self) -> None:
        store = await self.make([b"a\n"])
        drop = await store.open(ALICE, utf8=False)
        with pytest.raises(MaildropBusy):
            await store.open(ALICE, utf8=False)
        await drop.close()
        again = await store.open(ALICE, utf8=False)
        await again.close()

    async def test_the_lock_of_another_session_survives_closing_twice(self) -> None:
        store = await self.make([b"a\n"])
        first = await store.open(ALICE, utf8=False)
        await first.close()
        second = await store.open(ALICE, utf8=False)
        await first.close()
        with pytest.raises(MaildropBusy):
            await store.open(ALICE, utf8=False)
        await second.close()

    async def test_only_what_is_removed_goes(self) -> None:
        store = await self.make([b"one\n", b"two\n", b"three\n"])
        drop = await store.open(ALICE, utf8=False)
        await drop.remove([1, 3])
        await drop.close()
        drop = await store.open(ALICE, utf8=False)
        assert [await content(drop, number) for number in range(1, len(drop.messages) + 1)] == [b"two\r\n"]
        await drop.close()

    async def test_removing_nothing_and_closing_keep_everything(self) -> None:
        store = await self.make([b"one\n", b"two\n"])
        drop = await store.open(ALICE, utf8=False)
        await drop.remove([])
        await drop.close()
        drop = await store.open(ALICE, utf8=False)
        assert len(drop.messages) == 2
        await drop.close()

    async def test_a_message_can_be_left_in_the_middle_and_read_again(self) -> None:
        store = await self.make([b"x" * 200_000 + b"\n", b"two\n"])
        drop = await store.open(ALICE, utf8=False)
        first = await drop.read(1, 0)
        assert not first.last
        if isinstance(drop, Releases):
            drop.release(1)
        assert await content(drop, 2) == b"two\r\n"
        assert await content(drop, 1) == b"x" * 200_000 + b"\r\n"
        await drop.close()

    async def test_a_user_without_mail_has_an_empty_maildrop(self) -> None:
        store = await self.make([])
        drop = await store.open(Account("nobody"), utf8=False)
        assert len(drop.messages) == 0
        await drop.remove([])
        await drop.close()
