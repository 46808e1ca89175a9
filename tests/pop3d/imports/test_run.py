"""An import into a Maildir: killed at every step and run again, it brings each message once."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pop3d.imports import run
from pop3d.imports.journal import ImportJournal
from pop3d.imports.run import ImportTally, import_messages
from pop3d.stores.maildir import destination as destinations
from pop3d.stores.maildir.destination import MaildirDestination, new_stamp
from pop3d.stores.maildir.foreign_uids import ForeignList
from pop3d.stores.maildir.kept_ids import KeptIds
from pop3d.stores.maildir.source import MaildirSource
from pop3d.stores.quota import OverQuota, Quota
from tests.maildirs import make_maildir

DATE = 1_600_000_000_123_456_789
UIDS = ("same", "b", "", "same", "c\n", "d", "e")


class Killed(BaseException):
    """Nothing happens any more."""


class Life:
    """Calls that change something are counted, and behind the last one none has any effect."""

    def __init__(self) -> None:
        self.left = -1

    def guarded(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            if self.left == 0:
                raise Killed
            self.left -= self.left > 0
            return call(*arguments, **options)

        return called


@pytest.fixture
def life(monkeypatch: pytest.MonkeyPatch) -> Life:
    life = Life()
    for name in ("fsync", "unlink", "utime", "write", "open", "mkdir"):
        monkeypatch.setattr(os, name, life.guarded(getattr(os, name)))
    monkeypatch.setattr(destinations, "rename_new", life.guarded(destinations.rename_new))
    monkeypatch.setattr(run, "GROUP_MESSAGES", 2)
    return life


class Imports:
    """Imports of one source into one Maildir."""

    def __init__(self, root: Path) -> None:
        self.root, self.mail = root, root / "mail" / "alice"
        self.source = make_maildir(root / "old", {})
        self.uids: dict[bytes, bytes] = {}
        for number, uid in enumerate(UIDS, 1):
            path = self.source / "cur" / f"160000000{number}.M1P1.old:2,{'S' if number % 2 else ''}"
            path.write_bytes(b"Subject: %d\n" % number)
            os.utime(path, ns=(DATE, DATE + number))
            if uid:
                self.uids[os.fsencode(path.name.partition(":")[0])] = uid.encode()

    def __call__(self, quota: Quota | None = None, *, again: bool = False) -> ImportTally:
        tally = ImportTally()
        source = MaildirSource(self.source)
        source._list = ForeignList(self.uids)
        with contextlib.ExitStack() as opened:
            keep = self.root / "keep"
            journal = opened.enter_context(ImportJournal(keep, "mail", source.identity, new_stamp(), again=again))
            destination = MaildirDestination(
                str(self.mail), quota or Quota(), KeptIds(keep), journal.stamp, journal.count + 1, journal.last
            )
            opened.callback(destination.close)
            import_messages(source, destination, journal, tally)
        return tally

    def there(self) -> list[tuple[bytes, bytes | None, int, str]]:
        """Of each message: content, the unique-id that is kept, time, flags; in the order of the Maildir."""
        kept = KeptIds(self.root / "keep").load(str(self.mail))
        return [
            (
                path.read_bytes(),
                kept.get(os.fsencode(path.name.partition(",")[0])),
                path.stat().st_mtime_ns - DATE,
                path.name[-3:],
            )
            for path in sorted(self.mail.glob("cur/*"), key=lambda path: path.name)
        ]

    def contents(self) -> list[bytes]:
        return [content for content, _, _, _ in self.there()]


EXPECTED = [
    (b"Subject: 1\n", b"same", 1, "2,S"),
    (b"Subject: 2\n", b"b", 2, ":2,"),
    (b"Subject: 3\n", b"1600000003.M1P1.old", 3, "2,S"),
    (b"Subject: 4\n", None, 4, ":2,"),
    (b"Subject: 5\n", None, 5, "2,S"),
    (b"Subject: 6\n", b"d", 6, ":2,"),
    (b"Subject: 7\n", b"e", 7, "2,S"),
]
CONTENTS = [content for content, _, _, _ in EXPECTED]


@pytest.fixture
def imports(tmp_path: Path) -> Imports:
    return Imports(tmp_path)


def test_an_import_keeps_order_ids_dates_and_flags(imports: Imports) -> None:
    tally = imports()
    assert (tally.imported, tally.before, tally.kept, tally.invalid, tally.double) == (7, 0, 5, 1, 1)
    assert imports.there() == EXPECTED
    tally = imports()
    assert (tally.imported, tally.before) == (0, 7)
    assert imports.there() == EXPECTED
    tally = imports(again=True)
    assert (tally.imported, tally.kept, tally.double) == (7, 0, 6)


def test_names_of_files_stay_where_they_are_the_ids(imports: Imports) -> None:
    imports.uids = {}
    assert imports().kept == 7
    names = [path.name for path in sorted(imports.mail.glob("cur/*"))]
    assert names[0] == "1600000001.M1P1.old,S=11,W=12:2,S"
    assert [name.partition(",")[0] for name in names] == [f"160000000{number}.M1P1.old" for number in range(1, 8)]


def test_behind_a_message_with_a_new_name_all_have_new_names(imports: Imports) -> None:
    """Or their order would be another one. Their ids are kept."""
    imports.uids = {}
    make_maildir(imports.mail, {"new/1600000002.M1P1.old": b"here before\n"})
    tally = imports()
    assert (tally.imported, tally.kept, tally.double) == (7, 6, 1)
    assert imports.contents() == CONTENTS
    names = [path.name.partition(",")[0] for path in sorted(imports.mail.glob("cur/*"))]
    assert [name.startswith("160000000") for name in names] == [True] + [False] * 6
    ids = [f"160000000{number}.M1P1.old".encode() for number in range(3, 8)]
    assert [uid for _, uid, _, _ in imports.there()][1:] == [None, *ids]


def test_each_message_comes_once_wherever_an_import_is_killed(imports: Imports, life: Life) -> None:
    steps, alive = 0, False
    while not alive:
        steps += 1
        root = imports.root / str(steps)
        root.mkdir()
        killed = Imports(root)
        life.left = steps
        try:
            killed()
            alive = True
        except Killed:
            pass
        life.left = -1
        before = len(killed.there())
        tally = killed()
        assert killed.there() == EXPECTED, f"killed at step {steps}"
        assert tally.imported + tally.before == 7
        assert tally.before >= before - 2
        assert not list(killed.mail.glob("tmp/*")), f"killed at step {steps}"
    assert steps > 60


def test_what_a_client_has_deleted_does_not_come_again(imports: Imports, life: Life) -> None:
    """Not even what it has deleted before it was recorded that it is there."""
    for steps in range(1, 200):
        root = imports.root / str(steps)
        root.mkdir()
        killed = Imports(root)
        life.left = steps
        with contextlib.suppress(Killed):
            killed()
        life.left = -1
        deleted = killed.contents()
        for path in killed.mail.glob("cur/*"):
            path.unlink()
        killed()
        assert killed.contents() == [content for content in CONTENTS if content not in deleted]
        if len(deleted) == 4:
            return
    raise AssertionError("it never came so far")


def test_what_another_program_removed_from_tmp_long_ago_comes_again(imports: Imports) -> None:
    """The other case that looks like it: nothing is lost."""

    def renamed(*_: object, **__: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(destinations, "rename_new", renamed)
        imports()
    assert len(list(imports.mail.glob("tmp/*"))) == 7
    for path in imports.mail.glob("tmp/*"):
        path.unlink()
    (journal,) = (imports.root / "keep" / "imports").iterdir()
    old = time.time() - 40 * 3600
    os.utime(journal, (old, old))
    imports()
    assert imports.there() == EXPECTED


def test_a_message_that_cannot_be_read_is_told_and_tried_again(imports: Imports) -> None:
    path = imports.source / "cur" / "1600000002.M1P1.old:2,"
    path.unlink()
    path.symlink_to("/etc/passwd")
    (imports.source / "new" / "1600000009.old").write_bytes(b"CRYPTED\x03\x07" + bytes(50))
    tally = imports()
    assert tally.imported == 6
    assert [line.partition(": ")[2][:20] for line in tally.failed] == ["it is encrypted by D", "not a regular file"]
    path.unlink()
    path.write_bytes(b"Subject: 2\n")
    tally = imports()
    assert (tally.imported, len(tally.failed)) == (1, 1)


def test_a_full_mailbox_ends_an_import_that_goes_on_later(imports: Imports) -> None:
    with pytest.raises(OverQuota, match="4 of 4 messages"):
        imports(Quota(messages=4))
    assert imports.contents() == CONTENTS[:4]
    with pytest.raises(OverQuota, match="44 of 50 octets, and this message has 11"):
        imports(Quota(octets=50))
    imports()
    assert imports.contents() == CONTENTS


def test_copies_in_a_source_are_known_by_their_content(imports: Imports) -> None:
    (imports.source / "new" / "1600000001.M1P1.old").write_bytes(b"Subject: 1\n")
    (imports.source / "new" / "1600000002.M1P1.old").write_bytes(b"another\n")
    assert imports().imported == 9
    os.rename(imports.source / "new" / "1600000002.M1P1.old", imports.source / "cur" / "1600000002.M1P1.old:2,F")
    tally = imports()
    assert (tally.imported, tally.before) == (0, 9)


def test_a_server_may_set_flags_meanwhile(imports: Imports, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = MaildirSource._listed

    def listed_then_renamed(source: MaildirSource) -> list[tuple[str, str, bool]]:
        found = listed(source)
        for path in imports.source.glob("cur/*:2,"):
            path.rename(f"{path}F")
        return found

    monkeypatch.setattr(MaildirSource, "_listed", listed_then_renamed)
    tally = imports()
    assert (tally.imported, tally.failed) == (7, [])
    assert [flags for _, _, _, flags in imports.there()] == ["2,S", "2,F"] * 3 + ["2,S"]
