"""Tokens that are kept: for one account only, renewed by one of several runs, private."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from pop3cli.accounts.url import Settings, parse_account
from pop3cli.auth.oauth import (
    Tokens,
)
from pop3cli.auth.token_store import StoredTokens, access_token, keep
from pop3cli.errors import LoginRefused, SettingFault
from tests.pop3cli.issuer import CLIENT, Issuer, provider_at

pytestmark = pytest.mark.usefixtures("home")
ALICE = parse_account("pop3s://alice@mail.example.org")


def test_a_token_is_renewed_before_its_end_and_kept(issuer: Issuer, tmp_path: Path) -> None:
    settings = Settings(oauth=issuer.url, title="work")
    for expires, wanted in ((time.time() + 600, b"old"), (None, b"old"), (time.time() + 60, b"access-1")):
        keep(
            "work",
            settings,
            StoredTokens(ALICE.url, provider_at(issuer), CLIENT, Tokens("old", "old-refresh", expires)),
        )
        assert access_token(ALICE, settings) == wanted
    assert access_token(ALICE, settings) == b"access-1"
    assert len(issuer.forms()) == 1
    folder = tmp_path / "state" / "pop3cli" / "tokens"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "work.json": 0o600,
        "work.lock": 0o600,
    }


def test_of_two_runs_one_renews(issuer: Issuer) -> None:
    settings = Settings(oauth=issuer.url, title="work")
    keep("work", settings, StoredTokens(ALICE.url, provider_at(issuer), CLIENT, Tokens("old", "old-refresh", 0)))
    got: list[bytes] = []
    threads = [threading.Thread(target=lambda: got.append(access_token(ALICE, settings))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert got == [b"access-1"] * 4
    assert len(issuer.forms()) == 1


def test_tokens_are_for_one_account_only(issuer: Issuer, tmp_path: Path) -> None:
    settings = Settings(oauth=issuer.url, title="work")
    with pytest.raises(LoginRefused, match="nobody has logged in yet; pop3cli account login work"):
        access_token(ALICE, settings)
    keep("work", settings, StoredTokens(ALICE.url, provider_at(issuer), CLIENT, Tokens("good", "", None)))
    assert access_token(ALICE, settings) == b"good"
    for account, others in (
        (parse_account("pop3s://alice@evil.example"), settings),
        (ALICE, Settings(oauth="microsoft", title="work")),
    ):
        with pytest.raises(LoginRefused, match="nobody has logged in yet"):
            access_token(account, others)
    path = tmp_path / "state" / "pop3cli" / "tokens" / "work.json"
    path.chmod(0o640)
    with pytest.raises(SettingFault, match="others may read it, and it opens a mailbox; chmod 600"):
        access_token(ALICE, settings)
    path.write_text("{}")
    path.chmod(0o600)
    with pytest.raises(LoginRefused, match="nobody has logged in yet"):
        access_token(ALICE, settings)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to have files of another user")
def test_tokens_of_another_user_are_not_used_nor_written(issuer: Issuer, tmp_path: Path) -> None:
    settings = Settings(oauth=issuer.url, title="work")
    kept = StoredTokens(ALICE.url, provider_at(issuer), CLIENT, Tokens("old", "old-refresh", None))
    keep("work", settings, kept)
    folder = tmp_path / "state" / "pop3cli" / "tokens"
    os.chown(folder / "work.json", 65534, 65534)
    with pytest.raises(SettingFault, match="it belongs to another user"):
        access_token(ALICE, settings)
    os.chown(folder, 65534, 65534)
    with pytest.raises(SettingFault, match="belongs to user 65534, and root keeps nothing there"):
        keep("work", settings, kept)
