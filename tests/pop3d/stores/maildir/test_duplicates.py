"""Files with the same unique part of their names."""

import os
from pathlib import Path

import pytest

from pop3d.store_contract import ALICE, content
from pop3d.stores.maildir.store import MaildirStore
from tests.maildirs import make_maildir


async def test_files_with_the_same_unique_part_are_told_apart(
    store: MaildirStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = {"cur/1.host:2,S": b"longer one\n", "new/1.host": b"two\n", "cur/1.host:2,": b"two\n"}
    box = make_maildir(tmp_path / "mail/alice", names)
    for age, name in enumerate(names):
        os.utime(box / name, (age, age))
    seen = []
    for _ in range(2):
        drop = await store.open(ALICE, utf8=False)
        seen.append(list(drop.messages.uids))
        assert [await content(drop, n) for n in (1, 2, 3)] == [b"longer one\r\n", b"two\r\n", b"two\r\n"]
        assert list(drop.messages.sizes) == [12, 5, 5]
        await drop.close()
    assert seen[0] == seen[1]
    assert seen[0][0] == b"1.host"
    assert len(set(seen[0])) == 3
    assert "same unique part" in caplog.text
