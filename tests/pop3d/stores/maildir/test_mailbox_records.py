"""Records of mailboxes: what is saved is what is loaded, and what is torn or foreign is ignored."""

import hashlib
import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3d.stores.maildir import mailbox_records
from pop3d.stores.maildir.mailbox_records import MailboxRecord, MailboxRecords, ToldId

PATH = "/srv/mail/alice"
TOLD = ToldId(b"1700000001.M1P1.host", bytes(range(32)), 2**63, b"1700000001.M1P1.host.0001")


@pytest.fixture
def records(tmp_path: Path) -> MailboxRecords:
    return MailboxRecords(tmp_path / "keep")


def documents(tmp_path: Path, kind: str = "mailboxes") -> list[Path]:
    return sorted((tmp_path / "keep" / kind).iterdir())


def test_a_record_outlives_its_process(records: MailboxRecords, tmp_path: Path) -> None:
    assert records.load(PATH) is None
    records.save(MailboxRecord(PATH, (TOLD,)))
    assert MailboxRecords(tmp_path / "keep").load(PATH) == MailboxRecord(PATH, (TOLD,))
    records.save(MailboxRecord(PATH))
    assert records.load(PATH) == MailboxRecord(PATH, ())
    assert records.load("/srv/mail/bob") is None
    assert records.forget(PATH) is True
    assert records.load(PATH) is None
    assert records.forget(PATH) is False


def test_a_record_is_private_and_named_by_a_hash_of_the_path(records: MailboxRecords, tmp_path: Path) -> None:
    records.save(MailboxRecord(PATH))
    (document,) = documents(tmp_path)
    assert document.name == hashlib.sha256(PATH.encode()).hexdigest()
    assert stat.S_IMODE(document.stat().st_mode) == 0o600
    assert stat.S_IMODE(document.parent.stat().st_mode) == 0o700
    assert json.loads(document.read_text())["content"]["path"] == PATH


NAMES = st.binary(max_size=40)


@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40),
    st.lists(
        st.builds(ToldId, NAMES, st.binary(min_size=32, max_size=32), st.integers(0, 2**64 - 1), NAMES), max_size=5
    ),
    st.booleans(),
)
def test_whatever_is_saved_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, path: str, told: list[ToldId], had_list: bool
) -> None:
    records = MailboxRecords(tmp_path_factory.mktemp("records"))
    record = MailboxRecord(path, tuple(told), had_list)
    records.save(record)
    assert records.load(path) == record


def test_a_path_that_is_no_text(records: MailboxRecords) -> None:
    path = os.fsdecode(b"/srv/mail/\xff\xfe")
    records.save(MailboxRecord(path))
    assert records.load(path) == MailboxRecord(path)


def test_a_torn_or_foreign_document_is_ignored_with_a_line_in_the_log(
    records: MailboxRecords, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records.save(MailboxRecord("/srv/mail/bob"))
    of_bob = documents(tmp_path)[0].read_bytes()
    records.forget("/srv/mail/bob")
    records.save(MailboxRecord(PATH, (TOLD,)))
    (document,) = documents(tmp_path)
    whole = document.read_bytes()
    later = whole.replace(b'"format": 1', b'"format": 2')
    changed = whole.replace(b"M1P1.host.0001", b"M1P1.host.0002")
    faulty = [b"", b"\n", b"{", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"format": 1, "crc32": 0, "content": 1}']
    for octets in (*faulty, whole[:-2], whole + b"x", later, changed, of_bob):
        caplog.clear()
        document.write_bytes(octets)
        assert records.load(PATH) is None, octets[:50]
        assert f"{document} is ignored" in caplog.text
        records.save(MailboxRecord(PATH, (TOLD,)))
        assert records.load(PATH) == MailboxRecord(PATH, (TOLD,))


def test_what_cannot_be_read_is_not_taken_for_missing(records: MailboxRecords, tmp_path: Path) -> None:
    records.save(MailboxRecord(PATH))
    (document,) = documents(tmp_path)
    document.unlink()
    document.mkdir()
    with pytest.raises(OSError):
        records.load(PATH)
    with pytest.raises(OSError):
        records.save(MailboxRecord(PATH))


def test_a_folder_that_is_none_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "keep").write_text("")
    records = MailboxRecords(tmp_path / "keep")
    assert records.load(PATH) is None
    assert records.forget(PATH) is False
    assert list(records.below("/srv")) == []
    with pytest.raises(OSError):
        records.save(MailboxRecord(PATH))


def test_the_oldest_ids_go_when_there_are_too_many(records: MailboxRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tuple(ToldId(b"u", bytes(32), number, b"%d" % number) for number in range(10_050))
    records.save(MailboxRecord(PATH, told))
    found = records.load(PATH)
    assert found is not None
    assert found.told == told[50:]
    monkeypatch.setattr(mailbox_records, "_OCTETS_MAX", 100_000)
    assert records.load(PATH) is None  # larger than any of ours
    records.save(MailboxRecord(PATH, told))
    found = records.load(PATH)
    assert found is not None
    assert 0 < len(found.told) < 2_000
    assert found.told == told[-len(found.told) :]


def test_roots_and_what_is_below_them(records: MailboxRecords, tmp_path: Path) -> None:
    assert records.root_seen("/srv/mail") is False
    records.save_root("/srv/mail")
    assert records.root_seen("/srv/mail") is True
    assert records.root_seen("/srv") is False
    for path in ("/srv/mail/alice", "/srv/mail/example.org/bob", "/srv/mailing/carol"):
        records.save(MailboxRecord(path))
    (tmp_path / "keep" / "mailboxes" / ".left-by-a-crash").write_text("{")
    assert sorted(record.path for record in records.below("/srv/mail")) == [
        "/srv/mail/alice",
        "/srv/mail/example.org/bob",
    ]
    assert len(list(records.below("/"))) == 3
    assert records.forget_root("/srv/mail") is True
    assert records.root_seen("/srv/mail") is False
    assert records.forget_root("/srv/mail") is False


def test_a_record_is_synced_with_its_folder(records: MailboxRecords, tmp_path: Path, monkeypatch) -> None:
    records.save_root("/srv")
    records.save(MailboxRecord("/srv/mail/bob"))
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")) or fsync(fd))
    records.save(MailboxRecord(PATH))
    assert len(synced) == 2
    assert Path(synced[0]).name.startswith(".")
    assert synced[1] == str(tmp_path / "keep" / "mailboxes")
    records.forget(PATH)
    assert synced[2:] == [str(tmp_path / "keep" / "mailboxes")]
