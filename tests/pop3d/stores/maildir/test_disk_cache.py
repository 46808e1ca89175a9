"""Listings kept in the state folder: for the next process, and never needed."""

import json
import sys
import zlib
from array import array
from pathlib import Path
from typing import Any

import pytest

from pop3d.store_contract import ALICE, content
from pop3d.stores.maildir import scan as maildir_listing
from pop3d.stores.maildir.compressed import known_forms
from pop3d.stores.maildir.disk_cache import ListingFile
from pop3d.stores.maildir.scan import scan
from pop3d.stores.maildir.store import MaildirMaildrop, MaildirOptions, MaildirStore
from tests.maildirs import LONG, NONE, grain


def sizes_kept(tmp_path: Path, box: Path) -> list[tuple[bytes, int]]:
    kept = ListingFile(tmp_path / "state" / "cache", str(box)).load()
    if kept is None:
        return []
    inodes = {path.name.partition(":")[0].encode(): path.stat().st_ino for path in box.glob("[nc]*/*")}
    assert [(name, inode) for name, inode, _ in kept.scan.sizes()] == sorted(inodes.items())
    return [(name, octets) for name, _, octets in kept.scan.sizes()]


async def test_sizes_are_counted_once(store: MaildirStore, box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drop = await store.open(ALICE, utf8=False)
    await drop.close()
    counted = []
    monkeypatch.setattr(maildir_listing, "octets_sent", lambda descriptor, **_: counted.append(descriptor) or 5)
    drop = await store.open(ALICE, utf8=False)
    await drop.close()
    assert list(drop.messages.sizes) == [5, 5, 7]
    assert counted == []


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\n",
        b"garbage",
        b"pop3d sizes 2 00000000\n5 1.one.host\n",
        b"pop3d listing 3 00000000\n",
        b"pop3d listing 5 00000000\n",
        b"pop3d listing 5 00000000\n[]\n",
        b"pop3d listing 5 00000000\n{}\n",
        b"pop3d listing 5 00000000\n{\n",
        b"pop3d listing 6 00000000\n{}\n",
    ],
)
async def test_a_torn_or_foreign_cache_is_ignored(
    store: MaildirStore, box: Path, tmp_path: Path, octets: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    grain(monkeypatch, LONG)  # nothing is remembered in the process
    await (await store.open(ALICE, utf8=False)).close()
    kept = [(b"1.one.host", 5), (b"2.two.host,S=4", 5), (b"3.three.host", 7)]
    assert sizes_kept(tmp_path, box) == kept
    (file,) = (tmp_path / "state" / "cache" / "listings").iterdir()
    whole = file.read_bytes()
    wrong_order = b"little" if sys.byteorder == "big" else b"big"
    other_machine = whole.partition(b"\n")[2].replace(sys.byteorder.encode(), wrong_order)
    other_machine = b"pop3d listing 6 %08x\n" % zlib.crc32(other_machine) + other_machine
    huge = whole.replace(b'"messages": 3', b'"messages": 9000000000000')
    for torn in (octets, huge, whole[:-1], whole.replace(b"1.one", b"2.one"), whole + b"x", other_machine):
        file.write_bytes(torn)
        assert sizes_kept(tmp_path, box) == []
        drop = await store.open(ALICE, utf8=False)
        assert list(drop.messages.sizes) == [5, 5, 7]
        await drop.close()
        assert sizes_kept(tmp_path, box) == kept


def test_a_listing_with_other_unique_ids_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    file = ListingFile(tmp_path, "/mail/alice")
    names, ends = b"cur/1 a:2,Snew/2.b", array("Q", [11, 18])
    numbers = b"".join(array("Q", some).tobytes() for some in (ends, [5, 7], [101, 102]))
    about = {"order": sys.byteorder, "forms": known_forms(), "stamps": [], "names": 18, "messages": 2}
    content = json.dumps({**about, "others": {"0": "a-hash"}}).encode() + b"\n" + names + numbers
    file._path.parent.mkdir()
    file._path.write_bytes(b"pop3d listing 5 %08x\n" % zlib.crc32(content) + content)
    found = file.load()
    assert found is not None
    assert list(found.scan.listing.uids) == [b"a-hash", b"2.b"]
    file.save(found.scan, ())
    again = file.load()
    assert again is not None
    assert list(again.scan.listing.uids) == [b"a-hash", b"2.b"]
    assert list(again.scan.sizes()) == [(b"1 a", 101, 5), (b"2.b", 102, 7)]


async def test_a_listing_is_kept_for_the_next_process(
    box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = []
    monkeypatch.setattr("pop3d.stores.maildir.store.scan", lambda *args: listed.append(1) or scan(*args))
    monkeypatch.setattr("pop3d.stores.maildir.store._LARGE", 5)

    async def opened(**options: Any) -> MaildirMaildrop:
        """By a store that has just begun."""
        store = MaildirStore(str(tmp_path / "mail" / "{user}"), tmp_path / "state", MaildirOptions(**options))
        drop = await store.open(ALICE, utf8=False)
        await drop.close()
        return drop

    (box / "cur/4 a blank:2,S").write_bytes(b"x\n")  # its unique-id is not its name
    grain(monkeypatch, LONG)
    first = await opened()
    await opened()
    assert len(listed) == 2  # changed a moment ago: it was not to be trusted
    grain(monkeypatch, NONE)
    await opened()
    assert len(listed) == 3  # nothing was counted, and few messages are listed in no time: it is not worth writing
    (box / "cur/5").write_bytes(b"x\n")
    await opened()
    drop = await opened()
    assert len(listed) == 4
    assert list(drop.messages.uids) == [*first.messages.uids, b"5"]
    assert list(drop.messages.sizes) == [*first.messages.sizes, 3]
    assert await reads_all(box, tmp_path) == [5, 5, 7, 3, 3]
    await opened(sizes_in_names=True)
    assert len(listed) == 5  # what was found in other ways is another listing
    (box / "cur/5").rename(box / "cur/5:2,S")
    await opened()
    assert len(listed) == 6
    await opened()
    assert len(listed) == 6
    (box / "cur/5:2,S").unlink()
    assert len((await opened()).messages) == 4


async def reads_all(box: Path, tmp_path: Path) -> list[int]:
    drop = await MaildirStore(str(tmp_path / "mail" / "{user}"), tmp_path / "state").open(ALICE, utf8=False)
    octets = [len(await content(drop, number)) for number in range(1, len(drop.messages) + 1)]
    await drop.close()
    return octets


async def test_a_cache_that_cannot_be_written_is_skipped(box: Path, tmp_path: Path) -> None:
    (tmp_path / "state" / "cache").mkdir(parents=True)
    (tmp_path / "state" / "cache" / "listings").write_bytes(b"in the way")
    store = MaildirStore(str(tmp_path / "mail" / "{user}"), tmp_path / "state")
    for _ in range(2):
        drop = await store.open(ALICE, utf8=False)
        assert list(drop.messages.sizes) == [5, 5, 7]
        await drop.close()


async def test_a_cache_does_not_grow_for_ever(box: Path, tmp_path: Path) -> None:
    store = MaildirStore(str(tmp_path / "mail" / "{user}"), tmp_path / "state")
    for number in range(20):
        (box / f"new/0{number:02}.host").write_bytes(b"x\n")
    await (await store.open(ALICE, utf8=False)).close()
    for path in box.glob("new/0*"):
        path.unlink()
    await (await store.open(ALICE, utf8=False)).close()
    assert len(sizes_kept(tmp_path, box)) == 3
