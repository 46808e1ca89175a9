"""Unique-ids of other servers: their files read, in what the real ones wrote and in nonsense."""

import io
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3core.maildrop import is_unique_id
from pop3d.store_contract import ALICE
from pop3d.stores import StoreError
from pop3d.stores.maildir import foreign_uids as uidlists
from pop3d.stores.maildir.foreign_uids import courier, dovecot, lines_of
from pop3d.stores.maildir.store import MaildirOptions, MaildirStore
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


def test_dovecot() -> None:
    assert dovecot(DOVECOT.split(b"\n")) == {
        b"1700000001.M1P1.host": b"000000016b04205a",
        b"1700000009.M9P1.host,S=2,W=3": b"000000046b04205a",
        b"1700000010.M5P1.host": b"saved-by-dovecot",
    }
    assert dovecot(DOVECOT_1.split(b"\n")) == {b"1700000001.M1P1.host": b"000000016b04205a"}
    for nonsense in (b"", b"2 x\n", b"3 N6\n1 :x\n", b"\xff\n"):
        assert dovecot(nonsense.split(b"\n")) == {}


def test_courier() -> None:
    assert courier(COURIER.split(b"\n")) == {
        b"1700000001.M1P1.host": b"UID1-1795432508",
        b"1700000009.M9P1.host,S=2,W=3": b"UID4-1795432508",
    }
    for nonsense in (b"", b"/1 x\n", b"x 1 1:1\n"):
        assert courier(nonsense.split(b"\n")) == {}


@given(st.sampled_from([DOVECOT, DOVECOT_1, COURIER]), st.data())
def test_whatever_stands_there_ids_are_ids(octets: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(octets)))
    octets = octets[:at] + data.draw(st.binary(max_size=20)) + octets[data.draw(st.integers(at, len(octets))) :]
    for uids in (dovecot(octets.split(b"\n")), courier(octets.split(b"\n"))):
        assert all(is_unique_id(uid) for uid in uids.values())


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
    assert set(read(lines_of(file))) <= {b"b"}
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000  # octets


def test_lines_of_any_length() -> None:
    long = b"x" * 4096
    assert list(lines_of(io.BytesIO(b"a\n\n" + long + b"y\nb\n" + long + b"\nc"))) == [b"a", b"", b"b", long, b"c"]
    assert list(lines_of(io.BytesIO(long + b"\n" + long))) == [long, long]
    assert list(lines_of(io.BytesIO(long * 3))) == []


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
