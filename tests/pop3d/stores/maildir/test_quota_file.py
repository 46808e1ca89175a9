"""The Maildir++ quota file: a line for what comes and what goes, where there is such a file."""

import logging
import os
from pathlib import Path

import pytest

from pop3d.imports.journal import ImportJournal
from pop3d.imports.run import ImportTally, import_messages
from pop3d.store_contract import ALICE
from pop3d.stores.maildir.deleted import put_back
from pop3d.stores.maildir.delivery import deliver
from pop3d.stores.maildir.destination import MaildirDestination, new_stamp
from pop3d.stores.maildir.kept_ids import KeptIds
from pop3d.stores.maildir.quota_file import add_to_quota_file, counted_octets
from pop3d.stores.maildir.source import MaildirSource
from pop3d.stores.maildir.store import MaildirOptions, MaildirStore
from pop3d.stores.quota import Quota
from tests.maildirs import make_maildir

BOX = {"cur/1.a,S=1000:2,S": b"x" * 999 + b"\n", "new/2.b": b"y\n", "cur/3.c,S=7,W=8:2,T": b"packed\n" * 9}


@pytest.fixture
def box(tmp_path: Path) -> Path:
    box = make_maildir(tmp_path / "mail" / "alice", BOX)
    (box / "maildirsize").write_bytes(b"10000S\n1009 3\n")
    return box


def used(box: Path) -> tuple[int, int]:
    lines = (box / "maildirsize").read_text().splitlines()
    assert lines[0] == "10000S"
    pairs = [tuple(map(int, line.split())) for line in lines[1:]]
    return sum(octets for octets, _ in pairs), sum(messages for _, messages in pairs)


async def remove(tmp_path: Path, *numbers: int, deleted: str = "") -> None:
    options = MaildirOptions(deleted=deleted)
    drop = await MaildirStore(str(tmp_path / "mail" / "{user}"), None, options).open(ALICE, utf8=False)
    await drop.remove(numbers)
    await drop.close()


@pytest.mark.parametrize(
    ("name", "stored", "octets"),
    [
        (b"cur/1.a,S=12:2,S", 9, 12),
        (b"new/1.a,S=12,W=13", 9, 12),
        (b"1.a,W=13,S=12", 9, 12),
        (b"1.a,S=12x", 9, 9),
        (b"1.a,S=", 9, 9),
        (b"1.a", 9, 9),
    ],
)
def test_a_message_counts_as_dovecot_counts_it(name: bytes, stored: int, octets: int) -> None:
    assert counted_octets(name, stored) == octets


async def test_what_is_removed_counts_no_more(tmp_path: Path, box: Path) -> None:
    await remove(tmp_path, 1, 3)
    assert used(box) == (2, 1)
    await remove(tmp_path, 1)
    assert used(box) == (0, 0)
    assert (box / "maildirsize").read_bytes() == b"10000S\n1009 3\n-1007 -2\n-2 -1\n"


async def test_each_name_of_a_file_counts(tmp_path: Path, box: Path) -> None:
    """As Dovecot counts it: by the entries of the folders."""
    (box / "cur" / "2.b:2,S").hardlink_to(box / "new" / "2.b")
    (box / "maildirsize").write_bytes(b"10000S\n1011 4\n")
    await remove(tmp_path, 2)
    assert used(box) == (1007, 2)


async def test_what_is_only_looked_at_changes_nothing(tmp_path: Path, box: Path) -> None:
    await remove(tmp_path)
    assert used(box) == (1009, 3)


async def test_what_another_program_has_removed_is_counted_by_that(tmp_path: Path, box: Path) -> None:
    drop = await MaildirStore(str(tmp_path / "mail" / "{user}"), None).open(ALICE, utf8=False)
    (box / "new" / "2.b").unlink()
    await drop.remove([1, 2])
    await drop.close()
    assert used(box) == (9, 2)


async def test_soft_deletion_and_its_undoing(tmp_path: Path, box: Path) -> None:
    await remove(tmp_path, 1, 2, deleted=str(tmp_path / "deleted" / "{user}"))
    assert used(box) == (7, 1)
    put_back(str(box), str(tmp_path / "deleted" / "alice"))
    assert used(box) == (1009, 3)


def test_a_delivery_counts(box: Path) -> None:
    deliver(str(box), [b"Subject: x\n", b"\nbody\n"])
    deliver(str(box), [b"1234"], flags="S")
    assert used(box) == (1009 + 17 + 4, 5)


def test_an_import_counts(tmp_path: Path, box: Path) -> None:
    old = make_maildir(tmp_path / "old", {"new/1.z": b"one\n", "cur/2.z:2,S": b"two\n"})
    kept = KeptIds(tmp_path / "keep")
    with ImportJournal(tmp_path / "keep", "mail", "old", new_stamp()) as journal:
        destination = MaildirDestination(str(box), Quota(), kept, journal.stamp, 1, None)
        import_messages(MaildirSource(old), destination, journal, ImportTally(), lambda: None)
        destination.close()
    assert used(box) == (1009 + 8, 5)


async def test_no_file_is_made(tmp_path: Path, box: Path) -> None:
    (box / "maildirsize").unlink()
    deliver(str(box), [b"x\n"])
    await remove(tmp_path, 1, 2)
    assert not (box / "maildirsize").exists()


def test_a_line_without_an_end_gets_it(box: Path) -> None:
    (box / "maildirsize").write_bytes(b"10000S\n1009 3")
    deliver(str(box), [b"x\n"])
    assert (box / "maildirsize").read_bytes() == b"10000S\n1009 3\n2 1\n"


@pytest.mark.parametrize("kind", ["link", "hard link", "fifo", "folder"])
async def test_what_is_not_a_file_of_its_own_is_left_alone(
    tmp_path: Path, box: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    other, file = tmp_path / "other", box / "maildirsize"
    other.write_bytes(b"1S\n")
    file.unlink()
    if kind == "link":
        file.symlink_to(other)
    elif kind == "hard link":
        file.hardlink_to(other)
    elif kind == "fifo":
        os.mkfifo(file)
    else:
        file.mkdir()
    await remove(tmp_path, 1)
    assert other.read_bytes() == b"1S\n"
    assert not (box / "cur" / "1.a,S=1000:2,S").exists()
    assert [record.levelno for record in caplog.records] == ([logging.WARNING] if kind in ("link", "folder") else [])


def test_a_full_disk_is_a_line_in_the_log(
    box: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    root = os.open(box, os.O_RDONLY)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        add_to_quota_file(root, -5, -1)
    os.close(root)
    assert "maildirsize: No space left on device" in caplog.text
    assert used(box) == (1009, 3)
