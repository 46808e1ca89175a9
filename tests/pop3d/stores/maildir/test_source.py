"""A Maildir as a source: which unique-ids it tells, and in which order."""

import os
from pathlib import Path

import pytest

from pop3d.stores.arriving import SourceUnusable
from pop3d.stores.maildir.source import MaildirSource
from pop3d.uidl_format import UidSource
from tests.maildirs import make_maildir

BOX = {"cur/1.a:2,FSZ": b"a\n", "new/2.b,S=2": b"b\n", "new/3.c": b"c\n"}


def told(source: MaildirSource) -> list[tuple[bytes | None, bytes, str | None]]:
    return [(one.uid, b"".join(one.content()), one.flags) for one in source.messages(())]


def test_without_a_list_names_are_ids(tmp_path: Path) -> None:
    source = MaildirSource(make_maildir(tmp_path, BOX))
    assert told(source) == [(b"1.a", b"a\n", "FS"), (b"2.b", b"b\n", None), (b"3.c", b"c\n", None)]
    assert (source.progress, source.total, source.failed) == (3, 3, [])
    (remark,) = source.remarks
    assert "there is no dovecot-uidlist, and no courierpop3dsizelist, so unique-ids are those of file names" in remark
    # as qmail's server and others told: all before the colon
    named = MaildirSource(tmp_path, uidl=UidSource.of("dovecot:%f"))
    assert [uid for uid, _, _ in told(named)] == [b"1.a", b"2.b,S=2", b"3.c"]


def test_a_list_says_ids_and_order(tmp_path: Path) -> None:
    make_maildir(tmp_path, BOX)
    (tmp_path / "courierpop3dsizelist").write_text("/2 9 9\n1.a 3 1:9\n")
    source = MaildirSource(tmp_path)
    assert [uid for uid, _, _ in told(source)] == [b"UID1-9", b"2.b", b"3.c"]
    # Dovecot was the later one, as a rule
    (tmp_path / "dovecot-uidlist").write_text("3 V9 N9\n1 :3.c\n2 :2.b,S=2\n")
    source = MaildirSource(tmp_path)
    assert [uid for uid, _, _ in told(source)] == [b"%08x%08x" % (1, 9), b"%08x%08x" % (2, 9), b"1.a"]
    assert source.remarks == [f"{tmp_path}: unique-ids are those of its dovecot-uidlist"]
    assert [uid for uid, _, _ in told(MaildirSource(tmp_path, uidl=UidSource.of("filename")))] == [
        b"1.a",
        b"2.b",
        b"3.c",
    ]
    (tmp_path / "dovecot-uidlist").write_text("3 V9 N9\nnonsense\n1 :3.c\n")
    damaged = f"{tmp_path}: dovecot-uidlist is damaged: lines that are not of the list's format; messages that it does"
    assert MaildirSource(tmp_path).remarks[0].startswith(damaged)


def test_a_list_may_be_elsewhere(tmp_path: Path) -> None:
    make_maildir(tmp_path / "mail", BOX)
    (tmp_path / "control" / "INBOX").mkdir(parents=True)
    (tmp_path / "control" / "INBOX" / "dovecot-uidlist").write_text("3 V9 N9\n1 :3.c\n")
    source = MaildirSource(tmp_path / "mail", control=str(tmp_path / "control"))
    assert [uid for uid, _, _ in told(source)] == [b"%08x%08x" % (1, 9), b"1.a", b"2.b"]


def test_a_message_that_goes_meanwhile_is_passed_over(tmp_path: Path) -> None:
    make_maildir(tmp_path, BOX)
    source = MaildirSource(tmp_path)
    os.unlink(tmp_path / "new" / "3.c")
    assert len(told(source)) == 2
    assert (source.progress, source.failed) == (3, [])


def test_a_folder_in_the_place_of_a_message_costs_no_descriptor(tmp_path: Path) -> None:
    make_maildir(tmp_path, BOX)
    source = MaildirSource(tmp_path)
    (tmp_path / "new/3.c").unlink()
    (tmp_path / "new/3.c").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    assert len(told(source)) == 2
    assert source.failed == [f"{tmp_path}/new/3.c: Is a directory"]
    assert len(os.listdir("/proc/self/fd")) == before


def test_times_are_kept_and_done_ones_not_opened(tmp_path: Path) -> None:
    make_maildir(tmp_path, BOX)
    os.utime(tmp_path / "new" / "3.c", ns=(5, 10**18 + 7))
    (tmp_path / "cur" / "1.a:2,FSZ").chmod(0)
    found = list(MaildirSource(tmp_path).messages({b"1.a"}))
    assert [one.key for one in found] == [b"2.b", b"3.c"]
    assert found[1].arrived == 10**18 + 7


def test_what_is_no_maildir(tmp_path: Path) -> None:
    with pytest.raises(SourceUnusable, match="a folder without cur/ and new/ is no Maildir"):
        MaildirSource(tmp_path)
    with pytest.raises(SourceUnusable, match="No such file"):
        MaildirSource(tmp_path / "missing")
    make_maildir(tmp_path, BOX)
    (tmp_path / "dovecot-uidlist").mkdir()
    with pytest.raises(SourceUnusable, match=f"^{tmp_path}: dovecot-uidlist is no regular file"):
        MaildirSource(tmp_path)
