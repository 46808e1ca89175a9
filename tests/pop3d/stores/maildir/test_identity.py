"""A name is no proof: only the file that was listed is sent, marked as seen, or removed, whatever has its name now."""

import gzip
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pop3d.store_contract import ALICE, content
from pop3d.stores import RemovalFailed, StoreError
from pop3d.stores.maildir import names as maildir_names
from pop3d.stores.maildir.birth import born
from pop3d.stores.maildir.names import name_and_inode
from pop3d.stores.maildir.scan import scan
from pop3d.stores.maildir.store import MaildirMaildrop, MaildirOptions, MaildirStore
from tests.maildirs import TICK, make_maildir

OLD, NEW = "cur/1.M1P1.host:2,S", "new/1.M1P1.host"  # two files with one unique part


@pytest.fixture
def box(tmp_path: Path) -> Path:
    return make_maildir(tmp_path / "mail" / "alice", {OLD: b"old\n"})


def contents(box: Path) -> dict[str, bytes]:
    return {str(path.relative_to(box)): path.read_bytes() for path in box.glob("[nc]*/*")}


async def opened(store: MaildirStore) -> MaildirMaildrop:
    """Open it, so that whatever is done to it next bears a later time."""
    time.sleep(TICK)
    drop = await store.open(ALICE, utf8=False)
    time.sleep(TICK)
    return drop


async def refused(drop: MaildirMaildrop, number: int) -> str:
    with pytest.raises(RemovalFailed) as caught:
        await drop.remove([number])
    assert list(caught.value.left) == [number]
    await drop.close()
    return caught.value.detail


async def uids_by_content(store: MaildirStore) -> dict[bytes, bytes]:
    drop = await opened(store)
    found = {await content(drop, number): uid for number, uid in enumerate(drop.messages.uids, 1)}
    await drop.close()
    return found


# --- other programs rename or remove whole mailboxes ---


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """A folder's name for each time that messages are looked for in it by its entries."""
    read: list[bytes] = []
    entries_in = maildir_names._entries_in

    def counted(descriptor: int, folder: bytes) -> Iterator[bytes]:
        read.append(folder)
        return entries_in(descriptor, folder)

    monkeypatch.setattr(maildir_names, "_entries_in", counted)
    return read


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A mailbox of 200 messages that no client has seen."""
    return make_maildir(tmp_path / "mail/alice", {f"new/{n:03}.host": b"message %d\n" % n for n in range(1, 201)})


def see_all(box: Path) -> None:
    """As a client of IMAP does that marks everything as seen."""
    for path in list(box.glob("new/*")):
        os.rename(path, box / "cur" / f"{path.name}:2,S")


@pytest.mark.parametrize("order", ["ascending", "descending"])
async def test_a_mailbox_that_is_renamed_as_a_whole_is_read_a_few_times(
    store: MaildirStore, many: Path, readings: list[bytes], order: str
) -> None:
    drop = await opened(store)
    see_all(many)
    readings.clear()
    numbers = range(1, 201)
    for number in numbers if order == "ascending" else reversed(numbers):
        assert await content(drop, number) == b"message %d\r\n" % number
    await drop.remove(numbers)
    await drop.close()
    assert contents(many) == {}
    assert len(readings) <= 4


async def test_names_that_change_twice_are_found_each_time(store: MaildirStore, many: Path) -> None:
    drop = await opened(store)
    see_all(many)
    assert await content(drop, 1) == b"message 1\r\n"
    for number, name in ((199, "new/199.host"), (200, "cur/200.host:2,RS")):  # as listed once more, and a third one
        os.rename(many / f"cur/{number}.host:2,S", many / name)
        assert await content(drop, number) == b"message %d\r\n" % number
    await drop.remove(range(1, 201))
    await drop.close()
    assert contents(many) == {}


async def test_a_name_found_beside_another_is_judged_before_it_is_sent_or_removed(
    store: MaildirStore, many: Path
) -> None:
    drop = await opened(store)
    see_all(many)
    assert await content(drop, 1) == b"message 1\r\n"
    taken = many / "cur/200.host:2,S"
    (many / "tmp/x").write_bytes(b"another one\n")
    os.rename(many / "tmp/x", taken)
    with pytest.raises(StoreError):
        await content(drop, 200)
    await drop.remove([199])
    assert "200" in await refused(drop, 200)
    assert taken.read_bytes() == b"another one\n"


async def test_messages_that_another_program_removed_are_looked_for_once(
    store: MaildirStore, many: Path, readings: list[bytes]
) -> None:
    drop = await opened(store)
    for path in many.glob("new/*"):
        path.unlink()
    time.sleep(0.2)  # or a rename may not show in the times of the folders
    readings.clear()
    for number in range(1, 201):
        with pytest.raises(StoreError):
            await content(drop, number)
    await drop.remove(range(1, 201))
    assert len(readings) <= 4
    (many / "cur/200.host:2,S").write_bytes(b"message 200\n")  # of that name, but not what was listed
    with pytest.raises(StoreError):
        await content(drop, 200)
    await drop.close()


async def test_a_message_that_was_away_for_a_while_is_found(store: MaildirStore, many: Path, tmp_path: Path) -> None:
    drop = await opened(store)
    os.rename(many / "new/100.host", tmp_path / "away")
    time.sleep(0.2)
    for number in (100, 100):
        with pytest.raises(StoreError):
            await content(drop, number)
    os.rename(tmp_path / "away", many / "cur/100.host:2,S")
    assert await content(drop, 100) == b"message 100\r\n"
    await drop.close()


# --- two files with one unique part ---


async def test_of_two_files_with_one_unique_part_the_marked_one_is_read_and_removed(
    store: MaildirStore, box: Path
) -> None:
    (box / NEW).write_bytes(b"new\n")
    drop = await opened(store)
    assert [await content(drop, number) for number in (1, 2)] == [b"old\r\n", b"new\r\n"]
    os.rename(box / OLD, box / "cur/1.M1P1.host:2,RS")
    assert await content(drop, 1) == b"old\r\n"
    await drop.remove([1])
    await drop.close()
    assert contents(box) == {NEW: b"new\n"}


async def test_a_file_that_is_gone_is_not_taken_for_another_with_its_unique_part(
    store: MaildirStore, box: Path
) -> None:
    (box / NEW).write_bytes(b"new\n")
    drop = await opened(store)
    os.unlink(box / OLD)
    with pytest.raises(StoreError):
        await content(drop, 1)
    await drop.remove([1])  # another program has removed it: so be it
    await drop.close()
    assert contents(box) == {NEW: b"new\n"}


async def test_marking_as_seen_replaces_no_other_message(tmp_path: Path, box: Path) -> None:
    (box / NEW).write_bytes(b"new\n")
    store = MaildirStore(str(tmp_path / "mail" / "{user}"), tmp_path / "state", MaildirOptions(mark_seen=True))
    drop = await opened(store)
    for number in (1, 2):
        await content(drop, number)
        drop.retrieved(number)
    await drop.close()
    assert contents(box) == {OLD: b"old\n", NEW: b"new\n"}


async def test_ids_of_files_with_one_unique_part_stay_with_their_contents(
    store: MaildirStore, box: Path, tmp_path: Path
) -> None:
    """A copy from a backup is older by its time of modification, and never gets the id of what was there first."""
    told = await uids_by_content(store)
    assert told == {b"old\r\n": b"1.M1P1.host"}
    (box / NEW).write_bytes(b"new\n")
    os.utime(box / NEW, (1, 1))
    both = await uids_by_content(store)
    assert both[b"old\r\n"] == b"1.M1P1.host"
    os.unlink(box / OLD)  # its id is not given to the other one
    assert await uids_by_content(store) == {b"new\r\n": both[b"new\r\n"]}
    (box / OLD).write_bytes(b"old\n")  # back from the backup
    again = MaildirStore(str(tmp_path / "mail" / "{user}"), tmp_path / "state")
    assert await uids_by_content(again) == both


async def test_equal_copies_keep_their_ids_when_one_is_removed(store: MaildirStore, box: Path) -> None:
    (box / NEW).write_bytes(b"old\n")
    drop = await opened(store)
    first, second = drop.messages.uids
    assert first != second
    await drop.remove([1])
    await drop.close()
    drop = await opened(store)
    assert list(drop.messages.uids) == [second]
    await drop.close()


async def test_a_message_that_was_rewritten_keeps_its_id_beside_a_copy_that_is_older(
    store: MaildirStore, box: Path, tmp_path: Path
) -> None:
    """As a program does that compresses messages: its new file is younger than another with the same unique part."""
    assert await uids_by_content(store) == {b"old\r\n": b"1.M1P1.host"}
    (box / NEW).write_bytes(b"another\n")
    (box / "tmp/x").write_bytes(gzip.compress(b"old\n"))
    os.rename(box / "tmp/x", box / "cur/1.M1P1.host:2,SZ")
    os.unlink(box / OLD)
    again = MaildirStore(str(tmp_path / "mail" / "{user}"), tmp_path / "state")
    assert (await uids_by_content(again))[b"old\r\n"] == b"1.M1P1.host"


COMPRESSED = gzip.compress(b"old\n")


@pytest.mark.parametrize(
    "stored", [(COMPRESSED,), (b"old\n",), (COMPRESSED, b"old\n")], ids=["compressed", "restored", "both"]
)
@pytest.mark.parametrize("same_inode", [True, False])
async def test_an_id_that_was_told_names_no_older_message_with_another_content(
    stored: tuple[bytes, ...], same_inode: bool, store: MaildirStore, box: Path, tmp_path: Path
) -> None:
    """Nor one with the old inode number: file systems give freed numbers out again, most of them at once."""
    assert await uids_by_content(store) == {b"old\r\n": b"1.M1P1.host"}
    if same_inode:
        os.rename(box / OLD, box / NEW)  # as if it were made now, and got the number
    else:
        os.unlink(box / OLD)
    (box / NEW).write_bytes(b"another\n")
    for flag, octets in zip("AB", stored, strict=False):
        (box / f"cur/1.M1P1.host:2,{flag}").write_bytes(octets)
    drop = await opened(MaildirStore(str(tmp_path / "mail" / "{user}"), tmp_path / "state"))
    number = list(drop.messages.uids).index(b"1.M1P1.host") + 1
    assert await content(drop, number) == b"old\r\n"
    await drop.close()


async def test_an_inode_number_that_was_given_again_gives_no_id(box: Path) -> None:
    """As a process finds it that has not listed the mailbox for long; here what it remembers is made to be so."""
    folder = os.open(box, os.O_RDONLY)
    try:
        before = scan(folder)
        (box / "tmp/x").write_bytes(b"another process has told its id\n")
        os.rename(box / "tmp/x", box / OLD)
        time.sleep(TICK)
        (box / NEW).write_bytes(b"new mail\n")
        before.inodes[0] = (box / NEW).stat().st_ino
        found = scan(folder, before)
        assert found.names[list(found.listing.uids).index(b"1.M1P1.host")] == OLD.encode()
    finally:
        os.close(folder)


async def test_two_names_of_one_file_are_one_message_and_go_together(store: MaildirStore, box: Path) -> None:
    """As a program leaves them that was killed between linking and unlinking."""
    os.link(box / OLD, box / NEW)
    drop = await opened(store)
    assert list(drop.messages.uids) == [b"1.M1P1.host"]
    await drop.remove([1])
    await drop.close()
    assert contents(box) == {}


async def test_a_second_name_that_came_after_the_listing_goes_too(store: MaildirStore, box: Path) -> None:
    drop = await opened(store)
    os.link(box / OLD, box / NEW)
    os.link(box / OLD, box / "cur/2.other:2,")  # another message, which nobody marked
    await drop.remove([1])
    await drop.close()
    assert contents(box) == {"cur/2.other:2,": b"old\n"}


# --- another file in its place ---


async def test_a_file_put_in_a_messages_place_is_not_removed(store: MaildirStore, box: Path) -> None:
    drop = await opened(store)
    (box / "tmp/x").write_bytes(b"precious\n")
    os.rename(box / "tmp/x", box / OLD)
    with pytest.raises(StoreError):
        await content(drop, 1)
    assert "another file has its name" in await refused(drop, 1)
    assert contents(box) == {OLD: b"precious\n"}


async def test_a_file_with_the_inode_number_of_the_one_before_is_not_removed(store: MaildirStore, box: Path) -> None:
    """File systems give freed numbers out again, most of them at once; here the listing is made to have it."""
    drop = await opened(store)
    os.unlink(box / OLD)
    (box / OLD).write_bytes(b"odd\n")  # as long as the old one
    os.utime(box / OLD, (1, 1))  # as a backup is restored
    with open(box / OLD, "rb") as file:
        if born(file.fileno()) is None:
            pytest.skip("this system does not know when a file was made")
    drop._files._inodes[0] = (box / OLD).stat().st_ino
    assert drop.read_now(1, 0) is None
    with pytest.raises(StoreError):
        await content(drop, 1)
    assert "changed after it was listed" in await refused(drop, 1)
    assert contents(box) == {OLD: b"odd\n"}


@pytest.mark.parametrize("text", [b"other\n", b"new\n"])
async def test_a_file_changed_in_place_since_the_listing_is_not_removed(
    store: MaildirStore, box: Path, text: bytes
) -> None:
    drop = await opened(store)
    (box / OLD).write_bytes(text)
    assert "changed after it was listed" in await refused(drop, 1)
    drop = await opened(store)  # now it is what was listed
    await drop.remove([1])
    await drop.close()
    assert contents(box) == {}


async def test_what_leaves_the_content_alone_hinders_no_removal(store: MaildirStore, box: Path) -> None:
    drop = await opened(store)
    os.rename(box / OLD, box / "cur/1.M1P1.host,U=4:2,FS")
    os.chmod(box / "cur/1.M1P1.host,U=4:2,FS", 0o640)
    os.link(box / "cur/1.M1P1.host,U=4:2,FS", box.parent / "a-backup")
    await drop.remove([1])
    await drop.close()
    assert contents(box) == {}
    assert (box.parent / "a-backup").read_bytes() == b"old\n"


async def test_mail_of_this_very_moment_can_be_removed(store: MaildirStore, box: Path) -> None:
    """Its times are those of the login: nobody can say which came first, and the octets decide."""
    for number in range(20):
        (box / f"new/{number}.host").write_bytes(b"x\n")
        drop = await store.open(ALICE, utf8=False)
        await drop.remove(range(1, len(drop.messages) + 1))
        await drop.close()
        assert contents(box) == {}


async def test_mail_from_the_future_can_be_removed_once_it_got_a_flag(store: MaildirStore, box: Path) -> None:
    """It was delivered before the clock was set back."""
    os.utime(box / OLD, (time.time() + 3600, time.time() + 3600))
    drop = await opened(store)
    os.rename(box / OLD, box / "cur/1.M1P1.host:2,RS")
    await drop.remove([1])
    await drop.close()
    assert contents(box) == {}


async def test_where_the_clock_was_set_the_octets_decide(
    store: MaildirStore, box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time_ns
    (box / NEW).write_bytes(b"new\n")
    drop = await opened(store)
    (box / OLD).write_bytes(b"precious\n")
    monkeypatch.setattr(time, "time_ns", lambda: real() - 3600 * 10**9)
    with pytest.raises(RemovalFailed) as caught:
        await drop.remove([1, 2])
    await drop.close()
    assert list(caught.value.left) == [1]
    assert contents(box) == {OLD: b"precious\n"}


@pytest.mark.parametrize("soft", [False, True])
async def test_a_message_renamed_between_the_look_and_the_removal_is_removed(
    tmp_path: Path, box: Path, monkeypatch: pytest.MonkeyPatch, soft: bool
) -> None:
    options = MaildirOptions(deleted=str(tmp_path / "deleted" / "{user}") if soft else "")
    drop = await opened(MaildirStore(str(tmp_path / "mail" / "{user}"), tmp_path / "state", options))
    name, real = "link" if soft else "unlink", getattr(os, "link" if soft else "unlink")
    renamed = []

    def late(path: bytes, *args: object, **kwargs: object) -> None:
        if not renamed:
            renamed.append(path)
            os.rename(box / OLD, box / "cur/1.M1P1.host:2,RS")
        real(path, *args, **kwargs)

    monkeypatch.setattr(os, name, late)
    await drop.remove([1])
    await drop.close()
    assert contents(box) == {}


# --- links in place of folders ---


@pytest.mark.parametrize("at", ["cur", "new"])
async def test_a_link_in_place_of_a_folder_leads_nowhere(
    store: MaildirStore, box: Path, tmp_path: Path, at: str
) -> None:
    """Another user's file with the same name is neither sent nor removed, even where it is the very same file."""
    (box / NEW).write_bytes(b"new\n")
    bob = make_maildir(tmp_path / "mail" / "bob", {})
    drop = await opened(store)
    for name in (OLD, NEW):
        os.link(box / name, bob / name)
    os.rename(box / at, box / "aside")
    (box / at).symlink_to(bob / at)
    number = 1 if at == "cur" else 2
    assert drop.read_now(number, 0) is None
    with pytest.raises(StoreError):
        await content(drop, number)
    await refused(drop, number)
    assert contents(bob) == {OLD: b"old\n", NEW: b"new\n"}
    with pytest.raises(StoreError):
        await store.open(ALICE, utf8=False)


async def test_a_folder_that_went_away_with_its_messages_is_a_failed_removal(store: MaildirStore, box: Path) -> None:
    drop = await opened(store)
    os.rename(box / "cur", box / "aside")
    await refused(drop, 1)
    assert (box / "aside" / Path(OLD).name).read_bytes() == b"old\n"


@pytest.mark.parametrize("first", ["cur", "new"])
async def test_a_message_seen_in_both_folders_while_it_moved_is_listed(
    store: MaildirStore, box: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """It was moved after new/ was read and before cur/ was, in either direction."""
    real = maildir_names.entries_of

    def reading(root: int) -> list[bytes]:
        found = list(real(root))
        (one,) = (name_and_inode(entry)[1] for entry in found)
        other = b"cur/1.M1P1.host:2,:\0%x" if first == "new" else b"new/1.M1P1.host:\0%x"
        return sorted([*found, other % one], reverse=first == "new")

    monkeypatch.setattr(maildir_names, "entries_of", reading)
    drop = await opened(store)
    assert list(drop.messages.uids) == [b"1.M1P1.host"]
    assert await content(drop, 1) == b"old\r\n"
    await drop.close()
