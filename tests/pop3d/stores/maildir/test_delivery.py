"""Delivery into a Maildir: durable, within the quota, whole or not at all; every file operation fails in turn."""

import errno
import itertools
import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from pop3core.framing import CrlfNormalizer
from pop3d.auth import Account
from pop3d.store_contract import MESSAGES, content
from pop3d.stores.maildir.delivery import deliver
from pop3d.stores.maildir.store import MaildirOptions, MaildirStore
from pop3d.stores.quota import OverQuota, Quota
from tests.maildirs import files


def sent(stored: bytes) -> bytes:
    text = CrlfNormalizer()
    return text.feed(stored) + text.finish()


@pytest.mark.parametrize("stored", [stored for stored, _ in MESSAGES], ids=lambda stored: repr(stored[:20]))
async def test_what_is_delivered_is_served_with_the_size_its_name_says(tmp_path: Path, stored: bytes) -> None:
    name = deliver(str(tmp_path / "alice"), [stored[:5], stored[5:]])
    assert name.startswith(b"new/")
    assert name.endswith(b",S=%d,W=%d" % (len(stored), len(sent(stored))))
    assert files(tmp_path / "alice") == [name.decode()]
    for believe in (False, True):
        store = MaildirStore(str(tmp_path / "{user}"), None, MaildirOptions(sizes_in_names=believe))
        drop = await store.open(Account("alice"), utf8=False)
        assert list(drop.messages.sizes) == [len(sent(stored))]
        assert await content(drop, 1) == sent(stored)
        await drop.close()


def test_names_never_come_again_and_flags_go_to_cur(tmp_path: Path) -> None:
    names = {deliver(str(tmp_path), [b"x\n"]) for _ in range(20)}
    assert len(names) == 20
    assert deliver(str(tmp_path), [b"x\n"], flags="SR").endswith(b",S=2,W=3:2,RS")
    assert len(files(tmp_path)) == 21
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()} == {0o600}


def test_quota(tmp_path: Path) -> None:
    for quota in (Quota(octets=10), Quota(messages=2)):
        box = tmp_path / str(quota.messages)
        deliver(str(box), [b"12345"], quota)
        deliver(str(box), [b"12345"], quota)
        before = files(box)
        with pytest.raises(OverQuota, match="full"):
            deliver(str(box), [b"1"], quota)
        assert files(box) == before


def test_what_died_long_ago_is_removed_from_tmp(tmp_path: Path) -> None:
    deliver(str(tmp_path), [b"x"])
    for name, hours in (("old", 37), ("fresh", 35)):
        (tmp_path / "tmp" / name).write_bytes(b"")
        os.utime(tmp_path / "tmp" / name, (time.time() - hours * 3600,) * 2)
    deliver(str(tmp_path), [b"x"])
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == ["fresh"]


@pytest.mark.parametrize("folder", ["tmp", "new", "cur"])
@pytest.mark.parametrize("flags", [None, "S"])
@pytest.mark.parametrize("instead", ["relative link", "absolute link", "dangling link", "file"])
def test_no_link_in_place_of_a_folder_is_followed(tmp_path: Path, folder: str, flags: str | None, instead: str) -> None:
    """It could lead into another's mailbox: mail would go there, and what is old there would be removed."""
    bob = tmp_path / "bob"
    for name in ("tmp", "new", "cur"):
        (bob / name).mkdir(parents=True)
        (bob / name / "1.old").write_bytes(b"old mail of bob\n")
        os.utime(bob / name / "1.old", (time.time() - 40 * 3600,) * 2)
    mallory = tmp_path / "mallory"
    deliver(str(mallory), [b"x\n"], flags="S")
    (mallory / "cur" / "dead").write_bytes(b"")
    place = mallory / folder
    for path in place.iterdir():
        path.unlink()
    place.rmdir()
    if instead == "file":
        place.write_bytes(b"")
    else:
        target = "none" if instead == "dangling link" else f"bob/{folder}"
        place.symlink_to(tmp_path / target if instead == "absolute link" else f"../{target}")
    before = files(bob), files(mallory)
    with pytest.raises(NotADirectoryError, match="/ is not a folder of its own") as caught:
        deliver(str(mallory), [b"Subject: innocent\n\nx\n"], Quota(messages=100), flags=flags)
    assert caught.value.filename == str(mallory)
    assert (files(bob), files(mallory)) == before


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_a_new_mailbox_is_its_owners_alone_and_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    synced = set()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        synced.add(os.path.realpath(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(os, "fsync", fsync)
    box = tmp_path / "example.org" / "alice"
    before = os.umask(umask)
    try:
        deliver(str(box), [b"x\n"])
    finally:
        os.umask(before)
    made = [box.parent, box, *(box / name for name in ("tmp", "new", "cur"))]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in made} == {0o700}
    assert {str(folder) for folder in (tmp_path, box.parent, box, box / "new")} <= synced


@pytest.mark.skipif(os.geteuid() != 0, reason="makes files of other users, which takes root")
def test_a_mailbox_that_is_a_link_to_another_users(tmp_path: Path) -> None:
    deliver(str(tmp_path / "bob"), [b"x\n"])
    before = files(tmp_path / "bob")
    (tmp_path / "mallory").symlink_to("bob")
    os.chown(tmp_path / "mallory", 60_001, 60_001, follow_symlinks=False)
    os.chown(tmp_path / "bob", 60_002, 60_002)
    with pytest.raises(PermissionError, match="somebody else's folder"):
        deliver(str(tmp_path / "mallory"), [b"x\n"])
    assert files(tmp_path / "bob") == before
    os.chown(tmp_path / "mallory", 0, 0, follow_symlinks=False)
    deliver(str(tmp_path / "mallory"), [b"x\n"])
    assert len(files(tmp_path / "bob")) == 2


OPERATIONS = ("open", "write", "fsync", "link", "unlink", "mkdir", "scandir", "close", "stat", "fstat", "rmdir")


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_whatever_fails_a_message_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The n-th call of any file operation fails, for every n; then it is tried again, as an MTA does."""
    stored = b"Subject: x\n\n" + b"body\n" * 1000
    for failing in itertools.count(1):
        box = tmp_path / str(failing)
        calls = 0
        failed: list[str] = []

        def failing_at(real, failing: int = failing, failed: list[str] = failed):
            def called(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls == failing:
                    failed.append(real.__name__)
                    if real is CLOSE:
                        real(*args, **kwargs)  # a close that fails has closed all the same
                    raise OSError(number, os.strerror(number))
                return real(*args, **kwargs)

            return called

        delivered = True
        with monkeypatch.context() as patch:
            for name in OPERATIONS:
                patch.setattr(os, name, failing_at(getattr(os, name)))
            try:
                deliver(str(box), [stored[:100], stored[100:]], Quota(octets=1_000_000))
            except OSError:
                delivered = False
        whole = [path for path in box.glob("[nc]*/*") if path.read_bytes() == stored]
        if delivered:
            assert len(whole) == 1, f"failing call {failing}"
        assert len(list(box.glob("[nc]*/*"))) == len(whole), f"a torn message; failing call {failing}"
        if not delivered:
            # one that is there although it was refused would come twice
            assert whole == [] or failed == ["close"], f"failing call {failing}: {failed}"
            deliver(str(box), [stored])
        if calls < failing:
            break
    assert failing > 15


CLOSE = os.close


def test_pieces_of_any_size(tmp_path: Path) -> None:
    def pieces() -> Iterable[bytes]:
        yield from (b"", b"a\r", b"\n", b"b")

    assert deliver(str(tmp_path), pieces()).endswith(b",S=4,W=6")
