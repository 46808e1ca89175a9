"""Reading a Maildir: which messages it has, in which order, with which unique-ids and sizes."""

import errno
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3d.store_contract import ALICE, content
from pop3d.stores import StoreError
from pop3d.stores.maildir import names as maildir_names
from pop3d.stores.maildir import scan as maildir_listing
from pop3d.stores.maildir.names import name_and_inode
from pop3d.stores.maildir.scan import scan
from pop3d.stores.maildir.store import MaildirOptions, MaildirStore
from tests.maildirs import make_maildir


async def test_sorted_by_arrival_over_both_folders(store: MaildirStore, box: Path) -> None:
    drop = await store.open(ALICE, utf8=False)
    assert list(drop.messages.uids) == [b"1.one.host", b"2.two.host", b"3.three.host"]
    await drop.close()


async def test_a_unique_id_outlives_flags_folders_and_size_fields(store: MaildirStore, box: Path) -> None:
    drop = await store.open(ALICE, utf8=False)
    before = list(drop.messages.uids)
    await drop.close()
    os.rename(box / "new/3.three.host", box / "cur/3.three.host,S=6,W=7:2,RS")
    drop = await store.open(ALICE, utf8=False)
    assert list(drop.messages.uids) == before
    await drop.close()


@pytest.mark.parametrize("name", ["x" * 71, "blank in it", "gr\u00fc\u00df", "tab\tin it", "new\nline", "r\rr"])
async def test_an_unprintable_or_long_name_gets_a_hash_as_its_unique_id(
    store: MaildirStore, tmp_path: Path, name: str
) -> None:
    make_maildir(tmp_path / "mail/alice", {f"new/{name}": b"text\n"})
    uids = []
    for _ in range(2):
        drop = await store.open(ALICE, utf8=False)
        uids.append(drop.messages.uids[0])
        assert drop.messages.sizes[0] == 6
        await drop.close()
    assert uids[0] == uids[1]
    assert len(uids[0]) == 64


async def test_only_regular_files_are_messages(store: MaildirStore, box: Path) -> None:
    os.mkfifo(box / "new/0.fifo")
    (box / "new/0.folder").mkdir()
    (box / "new/0.link").symlink_to("/etc/passwd")
    (box / "new/.hidden").write_bytes(b"x")
    drop = await store.open(ALICE, utf8=False)
    assert len(drop.messages) == 3
    await drop.close()


async def test_a_file_that_cannot_be_read_stays_listed_and_is_an_error(
    store: MaildirStore, box: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client forgets an id that is not listed, and fetches the message again when it can be read again."""
    opened = os.open

    def failing(path: bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == b"3.three.host":
            raise OSError(errno.EIO, "Input/output error")
        return opened(path, flags, mode, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing)
        drop = await store.open(ALICE, utf8=False)
        assert (list(drop.messages.uids), drop.messages.sizes[2]) == (
            [b"1.one.host", b"2.two.host", b"3.three.host"],
            6,
        )
        with pytest.raises(StoreError, match="cannot be read"):
            await drop.read(3, 0)
        await drop.close()
    assert "3.three.host' cannot be read" in caplog.text
    drop = await store.open(ALICE, utf8=False)
    assert drop.messages.sizes[2] == 7
    await drop.close()


async def test_no_maildir_is_an_empty_mailbox_and_none_is_made(store: MaildirStore, tmp_path: Path) -> None:
    drop = await store.open(ALICE, utf8=False)
    assert len(drop.messages) == 0
    await drop.close()
    assert not (tmp_path / "mail").exists()


async def test_a_maildir_without_new_or_cur_is_empty(store: MaildirStore, tmp_path: Path) -> None:
    (tmp_path / "mail/alice").mkdir(parents=True)
    drop = await store.open(ALICE, utf8=False)
    assert len(drop.messages) == 0
    await drop.close()


async def test_a_folder_that_cannot_be_listed_is_an_error(store: MaildirStore, box: Path) -> None:
    os.rename(box / "cur", box / "elsewhere")
    (box / "cur").symlink_to(box / "elsewhere")
    with pytest.raises(StoreError) as caught:
        await store.open(ALICE, utf8=False)
    assert caught.value.code == "SYS/TEMP"
    (box / "cur").unlink()
    os.rename(box / "elsewhere", box / "cur")
    drop = await store.open(ALICE, utf8=False)  # and the lock was freed
    assert len(drop.messages) == 3
    await drop.close()


async def test_a_message_renamed_while_its_folder_is_read_is_seen(
    store: MaildirStore, box: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first reading sees neither name, or both; the second one may miss another."""
    whole = maildir_names.entries_of
    readings = []

    def reading(root: int) -> list[bytes]:
        names = list(whole(root))
        readings.append(names)
        if len(readings) == 1:
            os.rename(box / "cur/1.one.host:2,S", box / "cur/1.one.host:2,FS")
            os.rename(box / "new/3.three.host", box / "cur/3.three.host:2,")
            (three,) = (name_and_inode(name)[1] for name in names if b"3.three" in name)
            return [name for name in names if b"1.one" not in name] + [b"cur/3.three.host:2,:\0%x" % three]
        return [name for name in names if b"2.two" not in name]

    monkeypatch.setattr(maildir_names, "entries_of", reading)
    drop = await store.open(ALICE, utf8=False)
    assert list(drop.messages.uids) == [b"1.one.host", b"2.two.host", b"3.three.host"]
    assert len(readings) == 2
    await drop.close()
    assert "same unique part" not in caplog.text


async def test_a_message_renamed_before_it_is_counted_is_seen(
    store: MaildirStore, box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = maildir_listing.octets_sent
    renamed = []

    def counting(descriptor: int, **ways: bool) -> int:
        if not renamed:
            renamed.append(descriptor)
            os.rename(box / "new/3.three.host", box / "cur/3.three.host:2,S")
            os.unlink(box / "cur/2.two.host,S=4:2,")
        return count(descriptor, **ways)

    monkeypatch.setattr(maildir_listing, "octets_sent", counting)
    drop = await store.open(ALICE, utf8=False)
    assert list(drop.messages.uids) == [b"1.one.host", b"3.three.host"]
    assert await content(drop, 2) == b"three\r\n"
    await drop.close()


@given(
    st.lists(
        st.tuples(st.sampled_from("abc!,"), st.booleans(), st.booleans()), max_size=12, unique_by=lambda one: one[0]
    )
)
def test_known_sizes_are_laid_beside_any_listing(entries: list[tuple[str, bool, bool]]) -> None:
    """Whatever went or came since the cache was made, every size is that of its own file."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make_maildir(root, {})
        for letter, before, _ in entries:
            if before:
                (root / f"cur/{letter}x,S=1:2,").write_bytes(b"x" * ord(letter))
        descriptor = os.open(root, os.O_RDONLY)
        try:
            kept = scan(descriptor)
            for letter, before, after in entries:
                path = root / f"cur/{letter}x,S=1:2,"
                if before and not after:
                    path.unlink()
                if after and not before:
                    path.write_bytes(b"x" * ord(letter))
            found, fresh = scan(descriptor, kept), scan(descriptor)
        finally:
            os.close(descriptor)
        assert list(found.sizes()) == list(fresh.sizes())
        assert list(found.listing.uids) == list(fresh.listing.uids)
        assert found.counted <= sum(after and not before for _, before, after in entries) + found.forgotten


async def test_sizes_in_names_are_believed_only_where_wanted(box: Path, tmp_path: Path) -> None:
    (box / "new/4.host,S=4,W=5").write_bytes(b"abc\n")
    (box / "new/5.host,W=1000").write_bytes(b"abc\n")
    for believe, sizes in ((False, [5, 5, 7, 5, 5]), (True, [5, 5, 7, 5, 1000])):
        store = MaildirStore(str(tmp_path / "mail" / "{user}"), None, MaildirOptions(sizes_in_names=believe))
        drop = await store.open(ALICE, utf8=False)
        assert list(drop.messages.sizes) == sizes
        assert await content(drop, 5) == b"abc\r\n"
        await drop.close()
