"""The journal of an import: what it knows again, and what a crash leaves of it."""

import os
import time
from pathlib import Path

import pytest

from pop3d.imports.journal import DamagedJournal, ImportJournal


def opened(keep: Path, *, again: bool = False, source: str = "mbox /box", stamp: str = "1*") -> ImportJournal:
    return ImportJournal(keep, "maildir /mail/alice", source, stamp, again=again)


def test_what_was_published_is_known_on_the_next_run(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        assert (len(journal), journal.count, journal.last, journal.in_doubt) == (0, 0, None, False)
        journal.begin([b"a", b"b"], {"n": 1})
        assert b"a" not in journal
        journal.end()
        assert b"a" in journal
        journal.begin([b"c"], {"n": 2})
        journal.end()
    with opened(tmp_path, stamp="another") as journal:
        assert [key in journal for key in (b"a", b"b", b"c", b"d", "a")] == [True, True, True, False, False]
        assert (journal.stamp, journal.count, journal.last, journal.in_doubt) == ("1*", 3, {"n": 2}, False)
        assert journal.lately
    with opened(tmp_path, source="mbox /other") as journal:
        assert b"a" not in journal
    with opened(tmp_path, again=True, stamp="2*") as journal:
        assert (len(journal), journal.count, journal.stamp) == (0, 0, "2*")
    with opened(tmp_path) as journal:
        assert b"a" not in journal


def test_a_group_that_was_not_said_to_be_published_is_in_doubt(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.begin([b"a", b"b"], {"n": 1})
    with opened(tmp_path) as journal:
        assert journal.in_doubt
        assert b"a" not in journal
        journal.settle([True, False])
        assert (b"a" in journal, b"b" in journal, journal.in_doubt) == (True, False, False)
    old = time.time() - 40 * 3600
    os.utime(next((tmp_path / "imports").iterdir()), (old, old))
    with opened(tmp_path) as journal:
        assert (b"a" in journal, b"b" in journal, journal.count, journal.lately) == (True, False, 2, False)


def test_a_torn_line_was_never_published(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.begin([b"a"], {})
        journal.end()
    (path,) = (tmp_path / "imports").iterdir()
    whole = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    with opened(tmp_path) as journal:
        journal.begin([b"b"], {})
    line = path.read_bytes()[len(whole) :]
    for octets in range(1, len(line)):
        path.write_bytes(whole + line[:octets])
        with opened(tmp_path) as journal:
            assert (len(journal), journal.in_doubt) == (1, False)
        assert path.read_bytes() == whole


def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.begin([b"a"], {})
        journal.end()
    (path,) = (tmp_path / "imports").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"keys", b"kexs"))
    with pytest.raises(DamagedJournal, match=r"says what was imported: it is damaged; restore .* --again"):
        opened(tmp_path)
    with opened(tmp_path, source="mbox /other"):
        pass
    other = next(one for one in (tmp_path / "imports").iterdir() if one != path)
    path.write_bytes(other.read_bytes())
    with pytest.raises(DamagedJournal, match="of another import"):
        opened(tmp_path)
    opened(tmp_path, again=True).__exit__()


def test_two_imports_into_a_mailbox_do_not_go_side_by_side(tmp_path: Path) -> None:
    with opened(tmp_path):
        for source in ("mbox /box", "mbox /other"):
            with pytest.raises(BlockingIOError):
                opened(tmp_path, source=source)
        ImportJournal(tmp_path, "maildir /mail/bob", "mbox /box", "1*").__exit__()
    opened(tmp_path).__exit__()
