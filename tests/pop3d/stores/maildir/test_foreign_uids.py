"""Unique-ids of other servers: their files read, in what the real ones wrote and in nonsense."""

import io
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3d.store_contract import ALICE
from pop3d.stores import StoreError
from pop3d.stores.maildir import foreign_uids as uidlists
from pop3d.stores.maildir.foreign_uids import ForeignList, courier, dovecot, foreign_list, lines_of
from pop3d.stores.maildir.kept_ids import can_be_told
from pop3d.stores.maildir.store import MaildirOptions, MaildirStore
from pop3d.uidl_format import UidlFormat, UidSource
from tests.maildirs import make_maildir

# written by Dovecot 2.3.19 and Courier 5.1; the lines with P and of version 1 by hand
DOVECOT = b"""3 V1795432538 N6 G687ac3035a20046b6e3f000083ecc375
1 W20 :1700000001.M1P1.host
4 :1700000009.M9P1.host,S=2,W=3
5 W3 Psaved-by-dovecot S2 :1700000010.M5P1.host
torn"""
DOVECOT_1 = b"1 1795432538 6\n1 1700000001.M1P1.host:2,S\nx\n"
COURIER = b"""/3 6 1795432508
1700000001.M1P1.host:2,RS 20 1:1795432508:0
1700000009.M9P1.host,S=2,W=3:2,S 3 4:1795432508:0
1700000010.M4P1.host:2, 19 0:1795432508:0
1700000011.M4P1.ho"""


def by_dovecot(octets: bytes, uidl_format: str = "%08Xu%08Xv") -> ForeignList:
    return dovecot(lines_of(io.BytesIO(octets)), UidlFormat(uidl_format))


def by_courier(octets: bytes) -> ForeignList:
    return courier(lines_of(io.BytesIO(octets)))


def test_dovecot() -> None:
    found = by_dovecot(DOVECOT)
    assert found.uids == {
        b"1700000001.M1P1.host": b"000000016b04205a",
        b"1700000009.M9P1.host,S=2,W=3": b"000000046b04205a",
        b"1700000010.M5P1.host": b"saved-by-dovecot",
    }
    assert found.faults == ["the last line is not complete"]
    found = by_dovecot(DOVECOT_1)
    assert found.uids == {b"1700000001.M1P1.host": b"000000016b04205a"}
    assert found.faults == ["lines that are not of the list's format"]
    for nonsense in (b"", b"2 x\n", b"3 N6\n1 :x\n", b"3 V0 N1\n1 :x\n", b"\xff\n"):
        found = by_dovecot(nonsense)
        assert found.uids == {}
        assert found.faults == ["the first line is not that of a list of version 1 or 3"]


@pytest.mark.parametrize(
    ("uidl_format", "uid"),
    [
        ("%v.%u", b"1600000000.7"),
        ("%08Xv%08Xu", b"5f5e100000000007"),
        ("UID%u-%v", b"UID7-1600000000"),
        ("%f", b"1700000001.M1P1.h,S=2"),
        ("%g", b"0123abcd"),
        ("%{uid | hex(8)}%{uidvalidity | hex(8)}", b"000000075f5e1000"),
    ],
)
def test_formats_of_dovecot(uidl_format: str, uid: bytes) -> None:
    """Holes between the numbers, fields of any kind, names with and without flags."""
    octets = b"3 V1600000000 N99 Gffff\n3 :x\n7 W3 G0123abcd S2 :1700000001.M1P1.h,S=2:2,S\n"
    found = by_dovecot(octets, uidl_format)
    assert found.uids[b"1700000001.M1P1.h,S=2"] == uid
    assert found.faults == []


def test_an_id_that_dovecot_saved_holds_in_any_format() -> None:
    """An empty one stands for the file's name (maildir_update_pop3_uidl in Dovecot)."""
    octets = b"3 V1 N3\n1 Psaved W3 :1.a,S=2\n2 P :2.b,S=3:2,S\n"
    for uidl_format in ("%08Xu%08Xv", "%f", "%Mf"):
        assert by_dovecot(octets, uidl_format).uids == {b"1.a,S=2": b"saved", b"2.b,S=3": b"2.b,S=3"}


def test_without_a_guid_the_name_is_it() -> None:
    assert by_dovecot(b"3 V1 N2\n1 :1.a,S=2:2,S\n", "%g").uids == {b"1.a,S=2": b"1.a,S=2"}


def test_a_long_id_is_told_as_dovecot_tells_it() -> None:
    """Dovecot 2.3.19 sends %f of whatever length; with another id clients would download those messages again."""
    name = b"1700000004.M3P1." + b"x" * 90
    assert by_dovecot(b"3 V1 N3\n1 :" + name + b"\n2 :1.a b\n", "%f").uids == {name: name}
    assert by_dovecot(b"3 V1 N3\n1 :1.a b\n", "%f").faults == ["unique-ids that POP3 cannot carry (RFC 1939 §7)"]


def test_holes_duplicates_and_what_is_out_of_order() -> None:
    found = by_dovecot(b"3 V1 N9\n5 :1.a\n9 :2.b\n9 :3.c\n4 :4.d\n7 :2.b\n8 :5/e\nx\n", "%u")
    assert found.uids == {b"1.a": b"5", b"2.b": b"7", b"3.c": b"9", b"4.d": b"4"}
    assert found.faults == [
        "lines whose number is not above the one before: 2",
        "lines that name no file",
        "lines that are not of the list's format",
    ]


def test_courier() -> None:
    found = by_courier(COURIER)
    assert found.uids == {
        b"1700000001.M1P1.host": b"UID1-1795432508",
        b"1700000009.M9P1.host,S=2,W=3": b"UID4-1795432508",
        b"1700000010.M4P1.host": b"1700000010.M4P1.host",
    }
    assert found.faults == ["the last line is not complete"]
    for nonsense in (b"/1 x\n", b"/4 1 1\nx 1 1:1\n"):
        found = by_courier(nonsense)
        assert found.uids == {}
        assert found.faults == ["the first line is not that of a list of version 1, 2 or 3"]


@pytest.mark.parametrize(
    ("octets", "uids"),
    [
        (b"1.a,S=2 3\n2.b+'\xe4 c:2,S 4\n", {b"1.a,S=2": b"1.a,S=2", b"2.b+'\xe4 c": b"2.b+2B+27+E4+20c"}),
        (b"/1 3\n1.a 3 1\n2.b:2,S 4 2\n", {b"1.a": b"UID1", b"2.b": b"UID2"}),
        (b"/2 3 77\n1.a 3 1:77\n2.b c:2,S 4 2:0\n3.c 5 0:0\n", {b"1.a": b"UID1-77", b"2.b c": b"UID2", b"3.c": b"3.c"}),
        (b"/3 3 77\n1.a 3 1:77:0\n2.b 4 2:66:1\n", {b"1.a": b"UID1-77", b"2.b": b"UID2-66"}),
        (b"/3 3\n1.a 3 1:77:0\n", {b"1.a": b"UID1-77"}),
        (b"", {}),
    ],
)
def test_lists_of_every_courier(octets: bytes, uids: dict[bytes, bytes]) -> None:
    found = by_courier(octets)
    assert found.uids == uids
    assert found.faults == []


def test_what_needs_no_list(tmp_path: Path) -> None:
    """Dovecot's ids of file names are what Dovecot would tell, also of a message that it has not listed yet."""
    root = os.open(make_maildir(tmp_path / "alice", {}), os.O_RDONLY)
    try:
        by_name = foreign_list(root, UidSource.of("dovecot:%Mf")).unlisted
        assert by_name is not None
        assert by_name(b"1.a,S=2") == b"aa150654ecdf6821f8314aa7d5a20560"
        assert foreign_list(root, UidSource.of("dovecot")).unlisted is None
        assert foreign_list(root, UidSource.of("courier")).is_there is False
    finally:
        os.close(root)


@pytest.mark.parametrize("inbox", ["", ".INBOX", "INBOX"])
async def test_a_list_where_control_says(tmp_path: Path, inbox: str) -> None:
    make_maildir(tmp_path / "mail" / "alice", {"new/1.a": b"x\n"})
    folder = tmp_path / "control" / "alice" / inbox
    folder.mkdir(parents=True)
    (folder / "dovecot-uidlist").write_bytes(b"3 V1 N9\n8 :1.a\n")
    options = MaildirOptions(uidl="dovecot:%v-%u", control=str(tmp_path / "control" / "{user}"))
    drop = await MaildirStore(str(tmp_path / "mail" / "{user}"), None, options).open(ALICE, utf8=False)
    assert list(drop.messages.uids) == [b"1-8"]
    await drop.close()


@given(st.sampled_from([DOVECOT, DOVECOT_1, COURIER]), st.data())
def test_whatever_stands_there_ids_are_ids(octets: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(octets)))
    octets = octets[:at] + data.draw(st.binary(max_size=20)) + octets[data.draw(st.integers(at, len(octets))) :]
    for found in (by_dovecot(octets), by_dovecot(octets, "%f"), by_courier(octets)):
        assert all(can_be_told(uid) for uid in found.uids.values())


async def test_ids_that_come_twice_are_told_apart(tmp_path: Path) -> None:
    box = make_maildir(tmp_path / "alice", {f"new/{name}": b"x\n" for name in ("1.a", "2.b", "3.c", "taken")})
    (box / "dovecot-uidlist").write_bytes(b"3 V1 N9\n1 Psame :1.a\n2 Psame :2.b\n3 Ptaken :3.c\n")
    store = MaildirStore(str(tmp_path / "{user}"), None, MaildirOptions(uidl="dovecot"))
    drop = await store.open(ALICE, utf8=False)
    assert list(drop.messages.uids) == [b"same", b"2.b", b"3.c", b"taken"]
    assert drop.messages.uids[0] == drop.messages.uids[-4] == b"same"
    assert drop.messages.uids[1:3] == [b"2.b", b"3.c"]
    await drop.close()


@pytest.mark.parametrize("what", ["fifo", "link", "folder"])
async def test_a_list_that_is_no_file_is_an_error_and_never_other_ids(tmp_path: Path, what: str) -> None:
    box = make_maildir(tmp_path / "alice", {"new/1.a": b"x\n"})
    path = box / "dovecot-uidlist"
    if what == "fifo":
        os.mkfifo(path)
    elif what == "link":
        path.symlink_to("/etc/passwd")
    else:
        path.mkdir()
    store = MaildirStore(str(tmp_path / "{user}"), None, MaildirOptions(uidl="dovecot"))
    with pytest.raises(StoreError):
        await store.open(ALICE, utf8=False)
    path.rmdir() if what == "folder" else path.unlink()
    drop = await store.open(ALICE, utf8=False)
    assert list(drop.messages.uids) == [b"1.a"]
    await drop.close()


@pytest.mark.parametrize(
    ("read", "header", "line"),
    [
        (dovecot, b"3" + b" V1" * 1_000_000 + b" !", b"1 :a"),
        (dovecot, b"3 V1", b"1" + b" A1" * 1_000_000 + b" !"),
        (dovecot, b"3 V1", b"1 P" + b"x" * 3_000_000),
        (courier, b"/3 1 1", b"x" + b" 1" * 1_000_000),
        (courier, b"/3 1 1", b"x 1 1:1" + b":1" * 1_000_000),
    ],
)
def test_a_line_that_is_made_to_cost_is_passed_over(read, header: bytes, line: bytes) -> None:
    """Backtracking took time in proportion to the square: hours for a file that a user can write in a second."""
    file = io.BytesIO(b"\n".join((header, line, b"2 :b" if read is dovecot else b"b 1 2:7", b"torn")))
    tracemalloc.start()
    assert set(read(lines_of(file)).uids) <= {b"b"}
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000  # octets


def test_lines_of_any_length() -> None:
    long = b"x" * 4096
    lines = [b"a\n", b"\n", b"\n", b"b\n", long + b"\n", b"c"]
    assert list(lines_of(io.BytesIO(b"a\n\n" + long + b"y\nb\n" + long + b"\nc"))) == lines
    assert list(lines_of(io.BytesIO(long + b"\n" + long))) == [long + b"\n", long]
    assert list(lines_of(io.BytesIO(long * 3))) == [b"\n"]


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [("_OCTETS_MAX", 30, "larger than 30 octets"), ("_MESSAGES_MAX", 2, "more than 2 messages")],
)
async def test_a_list_that_is_too_long_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: int, why: str
) -> None:
    box = make_maildir(tmp_path / "alice", {"new/1.a": b"x\n"})
    (box / "dovecot-uidlist").write_bytes(b"3 V1\n" + b"".join(b"%d :%d.name\n" % (n, n) for n in range(1, 4)))
    monkeypatch.setattr(uidlists, name, value)
    with pytest.raises(StoreError) as fault:
        await MaildirStore(str(tmp_path / "{user}"), None, MaildirOptions(uidl="dovecot")).open(ALICE, utf8=False)
    assert f"dovecot-uidlist: it {'is' if 'larger' in why else 'has'} {why}" in fault.value.detail


def test_a_folder_in_the_place_of_a_list_costs_no_descriptor(tmp_path: Path) -> None:
    (tmp_path / "dovecot-uidlist").mkdir()
    root = os.open(tmp_path, os.O_RDONLY)
    try:
        before = os.dup(root)
        os.close(before)
        for _ in range(3):
            with pytest.raises(ValueError, match="no regular file"):
                foreign_list(root, UidSource.of("dovecot"))
        after = os.dup(root)
        os.close(after)
    finally:
        os.close(root)
    assert after == before
