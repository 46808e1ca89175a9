"""Who is known where survives a restart: the file, and a server that reads it."""

import asyncio
import hashlib
import logging
import os
from pathlib import Path

import pytest

from pop3d.abuse.attempts import ENTRIES_MAX
from pop3d.abuse.known_users import KnownUsers
from pop3d.abuse.login_throttle import KNOWN_FOR


def pair(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()[:16]


def test_what_is_saved_is_loaded_the_oldest_first_and_older(tmp_path: Path) -> None:
    now = 1_700_000_000.0
    file = KnownUsers(tmp_path / "state", wall=lambda: now)
    assert file.load() == []
    file.save([(pair("a"), 5), (pair("b"), 3600)])
    now += 100
    assert file.load() == [(pair("b"), 3700), (pair("a"), 105)]
    path = tmp_path / "state" / "keep" / "known-users"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size < 100


def test_a_clock_that_was_set_back_makes_nobody_known_for_longer(tmp_path: Path) -> None:
    KnownUsers(tmp_path, wall=lambda: 2_000_000_000).save([(pair("a"), 0)])
    assert KnownUsers(tmp_path, wall=lambda: 1_700_000_000).load() == [(pair("a"), 0)]


def test_who_logged_in_too_long_ago_is_forgotten(tmp_path: Path) -> None:
    file = KnownUsers(tmp_path, wall=lambda: 1_700_000_000)
    file.save([(pair("a"), KNOWN_FOR + 1), (pair("b"), KNOWN_FOR - 1)])
    assert file.load() == [(pair("b"), KNOWN_FOR - 1)]
    assert KnownUsers(tmp_path, wall=lambda: 1_700_000_002).load() == []


def test_processes_that_share_it_keep_each_others(tmp_path: Path) -> None:
    one, other = KnownUsers(tmp_path), KnownUsers(tmp_path)
    one.save([(pair("a"), 0)])
    other.save([(pair("b"), 0)])
    assert {name for name, _ in one.load()} == {pair("a"), pair("b")}


def test_it_does_not_grow_beyond_bounds(tmp_path: Path) -> None:
    file = KnownUsers(tmp_path)
    file.save([(number.to_bytes(16), number % 1000) for number in range(ENTRIES_MAX + 1000)])
    assert len(file.load()) == ENTRIES_MAX
    assert (tmp_path / "keep" / "known-users").stat().st_size < 2_100_000


@pytest.mark.parametrize("damage", [b"", b"x", b"cut", b"flipped", b"longer"])
def test_a_file_that_is_damaged_is_ignored(tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    file, path = KnownUsers(tmp_path), tmp_path / "keep" / "known-users"
    file.save([(pair("a"), 0), (pair("b"), 0)])
    whole = path.read_bytes()
    flipped = bytes([*whole[:30], whole[30] ^ 1, *whole[31:]])
    path.write_bytes({b"cut": whole[:-7], b"flipped": flipped, b"longer": whole + whole}.get(damage, damage))
    with caplog.at_level(logging.WARNING, "pop3d"):
        assert file.load() == []
    assert "known-users is ignored: torn" in caplog.text
    file.save([(pair("c"), 0)])
    assert [name for name, _ in file.load()] == [pair("c")]


def test_a_link_in_its_place_is_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "keep").mkdir()
    (tmp_path / "other").write_bytes(b"somebody's")
    os.symlink(tmp_path / "other", tmp_path / "keep" / "known-users")
    with caplog.at_level(logging.WARNING, "pop3d"):
        assert KnownUsers(tmp_path).load() == []
    assert "who was known before is not" in caplog.text
    assert (tmp_path / "other").read_bytes() == b"somebody's"


async def test_saving_is_off_the_loop_and_may_run_while_others_log_in(tmp_path: Path) -> None:
    file = KnownUsers(tmp_path)
    await asyncio.gather(*(asyncio.to_thread(file.save, [(pair(str(number)), 0)]) for number in range(8)))
    assert file.load()
