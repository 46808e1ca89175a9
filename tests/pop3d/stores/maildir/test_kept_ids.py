"""Unique-ids that are kept: what is added is loaded, whatever tears the file."""

import logging
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3d.stores.maildir import kept_ids
from pop3d.stores.maildir.kept_ids import KeptIds

PATH = "/srv/mail/alice"
IDS = {b"1700000001.M1P1.host": b"0000000a5f5e1000", b"odd name %0A\n\xff": b"X-UIDL.2", b"3": b"!~"}

NAMES = st.binary(min_size=1, max_size=255).filter(lambda name: b"\0" not in name)
UIDS = st.binary(min_size=1, max_size=255).map(lambda some: bytes(0x21 + octet % 94 for octet in some))


@pytest.fixture
def kept(tmp_path: Path) -> KeptIds:
    return KeptIds(tmp_path / "keep")


def file_of(tmp_path: Path) -> Path:
    (file,) = (tmp_path / "keep" / "ids").iterdir()
    return file


def test_what_is_added_outlives_its_process(kept: KeptIds, tmp_path: Path) -> None:
    assert kept.load(PATH) == {}
    kept.add(PATH, IDS)
    kept.add(PATH, {b"4": b"four", b"3": b"later"})
    assert KeptIds(tmp_path / "keep").load(PATH) == {**IDS, b"3": b"later", b"4": b"four"}
    assert kept.load("/srv/mail/bob") == {}
    assert kept.forget(PATH) is True
    assert kept.load(PATH) == {}
    assert kept.forget(PATH) is False


def test_nothing_to_add_makes_no_file(kept: KeptIds, tmp_path: Path) -> None:
    kept.add(PATH, {})
    assert not (tmp_path / "keep").exists()


def test_the_file_is_private_and_one_more_id_is_one_more_line(kept: KeptIds, tmp_path: Path) -> None:
    kept.add(PATH, {b"%d.M1P1.host" % number: b"%08x" % number for number in range(10_000)})
    file = file_of(tmp_path)
    before = file.stat()
    assert stat.S_IMODE(before.st_mode) == 0o600
    kept.add(PATH, {b"new.M1P1.host": b"new"})
    assert file.stat().st_ino == before.st_ino
    assert 0 < file.stat().st_size - before.st_size < 100
    assert len(kept.load(PATH)) == 10_001


@given(st.dictionaries(NAMES, UIDS, max_size=20), st.dictionaries(NAMES, UIDS, max_size=20))
def test_whatever_is_added_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, ids: dict[bytes, bytes], later: dict[bytes, bytes]
) -> None:
    kept = KeptIds(tmp_path_factory.mktemp("ids"))
    kept.add(PATH, ids)
    kept.add(PATH, later)
    assert kept.load(PATH) == {**ids, **later}


@given(st.data())
def test_a_torn_tail_costs_only_what_was_never_confirmed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("ids")
    kept = KeptIds(folder / "keep")
    kept.add(PATH, IDS)
    whole = file_of(folder).stat().st_size
    kept.add(PATH, {b"5": b"five", b"6": b"six"})
    cut = data.draw(st.integers(whole, file_of(folder).stat().st_size))
    octets = file_of(folder).read_bytes()
    lost = b"\0" if data.draw(st.booleans()) else b""
    file_of(folder).write_bytes(octets[:cut] + lost * (len(octets) - cut))
    assert kept.load(PATH).items() >= IDS.items()
    kept.add(PATH, {b"7": b"seven"})
    assert kept.load(PATH).items() >= {**IDS, b"7": b"seven"}.items()


def test_a_damaged_line_costs_one_id_and_the_log_says_so(
    kept: KeptIds, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept.add(PATH, IDS)
    file = file_of(tmp_path)
    file.write_bytes(file.read_bytes().replace(b"X-UIDL.2", b"X-UIDL.3") + b"x" * 5_000)
    assert kept.load(PATH) == {name: uid for name, uid in IDS.items() if uid != b"X-UIDL.2"}
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"{file}: " in caplog.text


@pytest.mark.parametrize("uid", [b"", b"a b", b"\xff", b"x" * 256])
def test_what_is_no_unique_id_is_refused(kept: KeptIds, uid: bytes) -> None:
    with pytest.raises(ValueError, match="no unique-id"):
        kept.add(PATH, {b"1": uid})
    assert kept.load(PATH) == {}


def test_a_file_that_cannot_be_read_is_an_error(kept: KeptIds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.add(PATH, IDS)
    monkeypatch.setattr(kept_ids, "_IDS_MAX", 2)
    with pytest.raises(OSError, match="more than 2 lines"):
        kept.load(PATH)
    monkeypatch.setattr(kept_ids, "_OCTETS_MAX", 60)
    with pytest.raises(OSError, match="larger than 60 octets"):
        kept.load(PATH)
    file = file_of(tmp_path)
    file.unlink()
    file.symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic links"):
        kept.load(PATH)


def test_what_cannot_be_written_leaves_the_file_as_it_was(
    kept: KeptIds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.add(PATH, IDS)
    before = file_of(tmp_path).read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left") as caught:
            kept.add(PATH, {b"8": b"eight"})
    assert caught.value.filename == str(file_of(tmp_path))
    assert file_of(tmp_path).read_bytes() == before
    monkeypatch.setattr(kept_ids, "_OCTETS_MAX", len(before) + 10)
    with pytest.raises(OSError, match="more than"):
        kept.add(PATH, {b"8": b"eight"})
    assert kept.load(PATH) == IDS


def test_entries_of_messages_that_are_gone_go_once_they_are_many_and_old(
    kept: KeptIds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = {b"%d.M1P1.host" % number: b"%08x" % number for number in range(3_000)}
    kept.add(PATH, ids)
    there = set(list(ids)[:10])
    kept.prune(PATH, there, len(there))
    assert kept.load(PATH) == ids  # young
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 8 * 86_400)
    kept.add(PATH, {b"young": b"young"})
    kept.prune(PATH, set(list(ids)[:2_500]), 2_500)
    assert len(kept.load(PATH)) == 3_001  # not many
    kept.prune(PATH, there, len(there))
    assert kept.load(PATH) == {**{name: ids[name] for name in sorted(there)}, b"young": b"young"}
    assert [file.name for file in (tmp_path / "keep" / "ids").iterdir()] == [file_of(tmp_path).name]
    kept.add(PATH, {b"later": b"later"})
    assert kept.load(PATH)[b"later"] == b"later"
    kept.prune("/srv/mail/nobody", set(), 0)


def test_an_import_and_sessions_add_at_the_same_time(kept: KeptIds, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while one of them writes the file anew: an import does not hold the mailbox's lock."""
    monkeypatch.setattr(kept_ids, "_YOUNG", -60)
    monkeypatch.setattr(kept_ids, "_GONE_MAX", 10)
    kept.add(PATH, {b"old-%d" % number: b"old" for number in range(500)})
    names = {b"%d-%d" % (adder, number) for adder in range(4) for number in range(50)}

    def add(adder: int) -> None:
        for number in range(50):
            kept.add(PATH, {b"%d-%d" % (adder, number): b"%d" % number})

    def prune() -> None:
        for _ in range(20):
            kept.prune(PATH, names, 0)

    with ThreadPoolExecutor() as pool:
        for one in [*(pool.submit(add, adder) for adder in range(4)), pool.submit(prune)]:
            one.result()
    assert {name for name in kept.load(PATH) if not name.startswith(b"old")} == names
    assert len(kept.load(PATH)) == len(names)
