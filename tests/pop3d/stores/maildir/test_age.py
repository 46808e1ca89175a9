"""How long a message has been in a Maildir: the latest of what its file says."""

import os
import time
from pathlib import Path

from pop3d.auth import Account
from pop3d.stores.maildir.store import MaildirStore
from tests.maildirs import make_maildir

DAY = 86_400
NOW = int(time.time())


async def old(root: Path, when: float) -> list[int]:
    drop = await MaildirStore(str(root / "{user}")).open(Account("alice"), utf8=False)
    try:
        return list(await drop.older_than(when))
    finally:
        await drop.close()


async def test_the_latest_of_its_times_counts(tmp_path: Path) -> None:
    make_maildir(
        tmp_path / "alice",
        {
            f"new/{NOW - 40 * DAY}.a": b"restored with its times: its status changed today\n",
            f"cur/{NOW - 40 * DAY}.b:2,S": b"modified tomorrow\n",
            f"new/{NOW + 5 * DAY}.c": b"delivered in five days, says its name\n",
            "new/odd": b"no time in its name\n",
        },
    )
    os.utime(tmp_path / f"alice/new/{NOW - 40 * DAY}.a", (NOW - 40 * DAY, NOW - 40 * DAY))
    os.utime(tmp_path / f"alice/cur/{NOW - 40 * DAY}.b:2,S", (NOW + DAY, NOW + DAY))
    os.utime(tmp_path / "alice/new/odd", (0, 0))
    drop = await MaildirStore(str(tmp_path / "{user}")).open(Account("alice"), utf8=False)
    names = {uid.decode().rpartition(".")[2]: number for number, uid in enumerate(drop.messages.uids, 1)}
    await drop.close()
    assert await old(tmp_path, NOW - 30 * DAY) == []
    assert await old(tmp_path, NOW + 2 * 3600) == sorted(names[name] for name in ("a", "odd"))
    assert await old(tmp_path, NOW + 2 * DAY) == sorted(names[name] for name in ("a", "b", "odd"))
    assert await old(tmp_path, NOW + 6 * DAY) == [1, 2, 3, 4]


async def test_a_message_of_no_known_age_is_not_old(tmp_path: Path) -> None:
    assert await old(tmp_path, NOW) == []  # there is no such Maildir
    make_maildir(tmp_path / "alice", {"new/1.a": b"1\n"})
    assert await old(tmp_path, 0) == []
    assert await old(tmp_path, 946_684_000.0) == []


async def test_a_file_that_goes_or_changes_its_name_is_not_old(tmp_path: Path) -> None:
    make_maildir(tmp_path / "alice", {"new/1.a": b"1\n", "new/2.b": b"2\n", "new/3.c": b"3\n"})
    drop = await MaildirStore(str(tmp_path / "{user}")).open(Account("alice"), utf8=False)
    (tmp_path / "alice/new/1.a").unlink()
    (tmp_path / "alice/new/2.b").rename(tmp_path / "alice/cur/2.b:2,S")
    assert await drop.older_than(NOW + DAY) == [3]
    await drop.close()
