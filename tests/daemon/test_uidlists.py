"""Unique-ids of other servers: their files read, in what the real ones wrote and in nonsense."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3core.maildrop import is_unique_id
from pop3d.store_contract import ALICE
from pop3d.stores import StoreError
from pop3d.stores.maildir import MaildirOptions, MaildirStore
from pop3d.stores.uidlists import courier, dovecot
from tests.daemon.test_maildir import make_maildir

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
    assert dovecot(DOVECOT) == {
        b"1700000001.M1P1.host": b"000000016b04205a",
        b"1700000009.M9P1.host,S=2,W=3": b"000000046b04205a",
        b"1700000010.M5P1.host": b"saved-by-dovecot",
    }
    assert dovecot(DOVECOT_1) == {b"1700000001.M1P1.host": b"000000016b04205a"}
    for nonsense in (b"", b"2 x\n", b"3 N6\n1 :x\n", b"\xff\n"):
        assert dovecot(nonsense) == {}


def test_courier() -> None:
    assert courier(COURIER) == {
        b"1700000001.M1P1.host": b"UID1-1795432508",
        b"1700000009.M9P1.host,S=2,W=3": b"UID4-1795432508",
    }
    for nonsense in (b"", b"/1 x\n", b"x 1 1:1\n"):
        assert courier(nonsense) == {}


@given(st.sampled_from([DOVECOT, DOVECOT_1, COURIER]), st.data())
def test_whatever_stands_there_ids_are_ids(octets: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(octets)))
    octets = octets[:at] + data.draw(st.binary(max_size=20)) + octets[data.draw(st.integers(at, len(octets))) :]
    for uids in (dovecot(octets), courier(octets)):
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
