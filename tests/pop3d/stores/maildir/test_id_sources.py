"""Unique-ids of mailboxes that another server goes on serving: an id once told to a client stays."""

import logging
import os
from pathlib import Path

import pytest

from pop3d.store_contract import ALICE
from pop3d.stores.maildir.kept_ids import KeptIds
from pop3d.stores.maildir.store import MaildirOptions, MaildirStore
from tests.maildirs import make_maildir

LIST = b"3 V1600000000 N9\n1 :1700000001.M1P1.h,S=2\n2 :1700000002.M2P1.h\n"
ONE, TWO = b"000000015f5e1000", b"000000025f5e1000"
NAMES = ("cur/1700000001.M1P1.h,S=2:2,S", "new/1700000002.M2P1.h", "new/1700000003.M3P1.h")
THREE = b"1700000003.M3P1.h"


@pytest.fixture
def box(tmp_path: Path) -> Path:
    box = make_maildir(tmp_path / "mail" / "alice", dict.fromkeys(NAMES, b"x\n"))
    (box / "dovecot-uidlist").write_bytes(LIST)
    return box


async def told(tmp_path: Path, uidl: str = "dovecot", store: MaildirStore | None = None) -> list[bytes]:
    """Unique-ids in a session, of a process that knows only what is on the disk."""
    options = MaildirOptions(uidl=uidl)
    store = store or MaildirStore(str(tmp_path / "mail" / "{user}"), tmp_path / "state", options)
    drop = await store.open(ALICE, utf8=False)
    await drop.close()
    return list(drop.messages.uids)


def ids_kept(tmp_path: Path, box: Path) -> dict[bytes, bytes]:
    return KeptIds(tmp_path / "state" / "keep").load(str(box))


async def test_a_message_that_the_list_gets_later_keeps_the_id_that_was_told(tmp_path: Path, box: Path) -> None:
    assert await told(tmp_path) == [ONE, TWO, THREE]
    with (box / "dovecot-uidlist").open("ab") as file:
        file.write(b"3 :1700000003.M3P1.h\n4 :1700000004.M4P1.h\n")
    (box / "new" / "1700000004.M4P1.h").write_bytes(b"y\n")
    assert await told(tmp_path) == [ONE, TWO, THREE, b"000000045f5e1000"]


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (None, "dovecot-uidlist was there before and is missing"),
        (b"", "dovecot-uidlist is damaged: the first line"),
        (LIST[:-9], "dovecot-uidlist is damaged: the last line is not complete"),
        (b"\0" * 4096, "dovecot-uidlist is damaged"),
        (b"3 V1700000000 N9\n1 :1700000003.M3P1.h\n", ""),  # made anew, with other numbers
    ],
)
async def test_a_list_that_is_lost_changes_no_id_and_is_told_once(
    tmp_path: Path, box: Path, octets: bytes | None, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert await told(tmp_path) == [ONE, TWO, THREE]
    assert caplog.messages == []
    (box / "dovecot-uidlist").unlink()
    if octets is not None:
        (box / "dovecot-uidlist").write_bytes(octets)
        os.utime(box / "dovecot-uidlist", (1_600_000_000, 1_600_000_000))
    store = MaildirStore(str(tmp_path / "mail" / "{user}"), tmp_path / "state", MaildirOptions(uidl="dovecot"))
    for number in range(3):
        (box / "new" / f"170000001{number}.M4P1.h").write_bytes(b"y\n")
        assert (await told(tmp_path, store=store))[:3] == [ONE, TWO, THREE]
    assert [record.levelno for record in caplog.records] == ([logging.WARNING] if said else [])
    assert said in caplog.text
    if said:
        (box / "dovecot-uidlist").write_bytes(LIST)
        (box / "new" / "1700000020.M4P1.h").write_bytes(b"y\n")
        assert len(await told(tmp_path, store=store)) == 7
        (box / "dovecot-uidlist").unlink()
        (box / "new" / "1700000021.M4P1.h").write_bytes(b"y\n")
        assert len(await told(tmp_path, store=store)) == 8
        assert len(caplog.records) == 2  # it is another time


async def test_a_line_that_is_being_written_is_no_fault(
    tmp_path: Path, box: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (box / "dovecot-uidlist").write_bytes(LIST[:-9])
    assert await told(tmp_path) == [ONE, b"1700000002.M2P1.h", THREE]
    assert caplog.messages == []


async def test_a_list_that_never_was_is_no_fault(tmp_path: Path, box: Path, caplog: pytest.LogCaptureFixture) -> None:
    (box / "dovecot-uidlist").unlink()
    assert await told(tmp_path) == [b"1700000001.M1P1.h", b"1700000002.M2P1.h", THREE]
    (box / "new" / "1700000004.M4P1.h").write_bytes(b"y\n")
    await told(tmp_path)
    assert caplog.messages == []


async def test_what_is_kept_holds_for_any_setting(tmp_path: Path, box: Path) -> None:
    KeptIds(tmp_path / "state" / "keep").add(str(box), {b"1700000001.M1P1.h": b"imported"})
    for uidl in ("filename", "dovecot", "courier", "dovecot:%f"):
        assert (await told(tmp_path, uidl))[0] == b"imported"


async def test_with_ids_of_file_names_nothing_is_written(tmp_path: Path, box: Path) -> None:
    await told(tmp_path, "filename")
    assert not (tmp_path / "state" / "keep" / "ids").exists()


async def test_one_more_message_is_one_more_line(tmp_path: Path, box: Path) -> None:
    await told(tmp_path)
    (file,) = (tmp_path / "state" / "keep" / "ids").iterdir()
    before = file.stat().st_size
    (box / "new" / "1700000004.M4P1.h").write_bytes(b"y\n")
    await told(tmp_path)
    assert file.read_bytes()[before:].count(b"\n") == 1
    before = file.stat().st_size
    await told(tmp_path)
    assert file.stat().st_size == before


async def test_the_same_list_twice_in_two_formats(tmp_path: Path, box: Path) -> None:
    """What is cached for one format is not taken for another."""
    options = [MaildirOptions(uidl=uidl) for uidl in ("dovecot:%u", "dovecot:%v-%u")]
    stores = [MaildirStore(str(tmp_path / "mail" / "{user}"), None, one) for one in options]
    assert [(await told(tmp_path, store=store))[0] for store in stores] == [b"1", b"1600000000-1"]


async def test_where_the_disk_refuses_ids_stay_for_this_process(
    tmp_path: Path, box: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = MaildirStore(str(tmp_path / "mail" / "{user}"), tmp_path / "state", MaildirOptions(uidl="dovecot"))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert await told(tmp_path, store=store) == [ONE, TWO, THREE]
        assert "unique-ids of" in caplog.text
        assert "may change after a restart" in caplog.text
        assert ids_kept(tmp_path, box) == {}
        (box / "dovecot-uidlist").unlink()
        (box / "new" / "1700000004.M4P1.h").write_bytes(b"y\n")
        assert (await told(tmp_path, store=store))[:3] == [ONE, TWO, THREE]
    (box / "new" / "1700000005.M4P1.h").write_bytes(b"y\n")
    assert len(await told(tmp_path, store=store)) == 5
    assert len(ids_kept(tmp_path, box)) == 5


async def test_what_is_kept_and_cannot_be_read_is_an_error_and_never_other_ids(tmp_path: Path, box: Path) -> None:
    await told(tmp_path)
    (file,) = (tmp_path / "state" / "keep" / "ids").iterdir()
    octets = file.read_bytes()
    file.unlink()
    os.mkfifo(file)
    (box / "new" / "1700000004.M4P1.h").write_bytes(b"y\n")
    with pytest.raises(Exception, match="cannot be opened"):
        await told(tmp_path)
    file.unlink()
    file.write_bytes(octets)
    assert (await told(tmp_path))[:3] == [ONE, TWO, THREE]


async def test_files_with_the_same_unique_part_stay_apart(tmp_path: Path, box: Path) -> None:
    copy = box / "cur" / "1700000001.M1P1.h,S=2:2,RS"
    copy.write_bytes(b"x\n")
    first = await told(tmp_path)
    assert len(set(first)) == 4
    assert ONE in first
    (box / "dovecot-uidlist").unlink()
    (box / "new" / "1700000004.M4P1.h").write_bytes(b"y\n")
    assert set(await told(tmp_path)) == {*first, b"1700000004.M4P1.h"}
