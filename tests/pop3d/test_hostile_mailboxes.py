"""Mailboxes that a user has filled to keep the daemon busy: work and log in proportion to what is there, or bounded."""

import hashlib
import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3core.downgrade import Downgrader
from pop3core.maildrop import PackedOctets
from pop3d.store_contract import ALICE, content
from pop3d.stores.maildir import content as maildir_content
from pop3d.stores.maildir.duplicates import SameName, unique_ids
from pop3d.stores.maildir.mailbox_records import ToldId
from pop3d.stores.maildir.names import _INODE, name_and_inode, unique_part
from pop3d.stores.maildir.packed_ids import UniqueIds
from pop3d.stores.maildir.store import MaildirOptions, MaildirStore
from tests.maildirs import make_maildir


def by_the_rule(plain: bytes, files: Sequence[SameName], told: Sequence[ToldId]) -> list[tuple[SameName, bytes]]:
    """Ids as the rule says it: what was told for inode and content, then for content, then the plain one, then others.

    Every file is held against everything that was told, so it takes time by the square.
    """
    files, given, free = sorted(files), {}, list(told)
    for by_inode in (True, False):
        for file in files:
            for one in free:
                same = one.digest == file.digest and (not by_inode or one.inode == name_and_inode(file.entry)[1])
                if file not in given and same:
                    given[file] = one.uid
                    free.remove(one)
                    break
    used = {one.uid for one in told}
    for file in files:
        uid, digest = given.get(file, plain), file.digest
        while file not in given and uid in used:
            uid = b"%b.%b" % (unique_part(file.entry), digest.hex()[:32].encode())
            digest = hashlib.sha256(digest).digest()
        given[file] = uid
        used.add(uid)
    return [(file, given[file]) for file in files]


@given(st.data())
def test_ids_of_one_unique_part_follow_the_rule(data: st.DataObject) -> None:
    digests = st.sampled_from([bytes([number]) * 32 for number in range(3)])
    made = [
        SameName(
            data.draw(st.integers(0, 3)), data.draw(digests), b"cur/1.host:2,%d" % number + _INODE + b"%x" % number
        )
        for number in range(data.draw(st.integers(0, 6)))
    ]
    told = [
        ToldId(b"1.host", data.draw(digests), data.draw(st.integers(0, 6)), b"told-%d" % number)
        for number in range(data.draw(st.integers(0, 4)))
    ]
    if told and data.draw(st.booleans()):
        told[0] = ToldId(b"1.host", told[0].digest, told[0].inode, b"1.host")
    assert unique_ids(b"1.host", made, told, lambda _: False) == by_the_rule(b"1.host", made, told)


def test_many_files_of_one_unique_part_and_one_content() -> None:
    """Each id is one more round of a hash: 20,000 of them were 200 million rounds, and are 20,000."""
    files = [
        SameName(1, b"d" * 32, b"cur/1.host:2,%05d" % number + _INODE + b"%x" % number) for number in range(20_000)
    ]
    looks = 0

    def is_taken(_: bytes) -> bool:
        nonlocal looks
        looks += 1
        return False

    ids = [uid for _, uid in unique_ids(b"1.host", files, (), is_taken)]
    assert len(set(ids)) == len(ids)
    assert looks < 2 * len(ids)


@given(st.lists(st.sampled_from([b"1.a", b"2.b", b"3.c"]), max_size=30), st.data())
def test_unique_ids_with_others_are_a_sequence(names: list[bytes], data: st.DataObject) -> None:
    places = sorted(data.draw(st.sets(st.integers(0, max(0, len(names) - 1)), max_size=len(names)))) if names else []
    others = {place: b"other-%d" % place for place in places}
    uids = UniqueIds(PackedOctets(b"cur/%b:2," % name for name in names), others)
    wanted = [others.get(place, name) for place, name in enumerate(names)]
    assert list(uids) == wanted
    assert [uids[place] for place in range(len(uids))] == wanted
    assert uids[1:3] == wanted[1:3]
    assert dict(uids.others) == others
    assert uids.others.get(99) is None


async def test_a_thousand_troubles_are_ten_lines_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_maildir(
        tmp_path / "alice", {f"cur/{number}.host:2,{flag}": b"x" for number in range(300) for flag in ("", "S")}
    )
    with caplog.at_level(logging.WARNING, "pop3d.maildir"):
        drop = await MaildirStore(str(tmp_path / "{user}")).open(ALICE, utf8=False)
    await drop.close()
    assert len(drop.messages) == 600
    assert len(caplog.records) == 11
    assert caplog.records[-1].getMessage().endswith(": and 290 more like these")


async def test_surrogates_are_made_in_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece of a header with 20,000 addresses takes 20 ms: too long for the event loop."""
    make_maildir(tmp_path / "alice", {"new/1.host": b"To: " + "\u00e4,".encode() * 100_000 + b"\n\nx\n"})
    threads: set[int] = set()

    class Watched(Downgrader):
        def feed(self, data: bytes) -> bytes:
            threads.add(threading.get_ident())
            return super().feed(data)

    monkeypatch.setattr(maildir_content, "Downgrader", Watched)
    store = MaildirStore(str(tmp_path / "{user}"), None, MaildirOptions(utf8_downgrade=True))
    drop = await store.open(ALICE, utf8=False)
    text = await content(drop, 1)
    await drop.close()
    assert len(text) == drop.messages.sizes[0] > 100_000
    assert threads
    assert threading.get_ident() not in threads
