"""Files that version 0.1 has written are read: what sync remembers, named accounts, tokens."""

import shutil
from pathlib import Path

import pytest

from pop3cli.accounts.registry import read_book
from pop3cli.accounts.url import Settings, parse_account
from pop3cli.auth.token_store import access_token
from pop3cli.sync.mbox import Mbox
from pop3cli.sync.state import Kind, LogEntry, SyncState

SAMPLES = Path(__file__).parent / "samples"
ACCOUNT = "alice@mail.example.org:995"
BEGAN = 1_700_000_000
SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
REMEMBERED = {
    "whole": LogEntry(Kind.FETCHED, BEGAN + 1, 1200),
    "odd": LogEntry(Kind.ODD, BEGAN + 2, 1300, SHA),
    "head": LogEntry(Kind.HEADERS, BEGAN + 3, 1400),
    "left": LogEntry(Kind.SKIPPED, BEGAN + 4, 1500),
    "spam": LogEntry(Kind.UNWANTED, BEGAN + 5, 1600),
    "theirs": LogEntry(Kind.IMPORTED, BEGAN + 6, 0),
    "in-mbox": LogEntry(Kind.FETCHED, BEGAN + 7, 1700),
    "was-away": LogEntry(Kind.FETCHED, BEGAN + 8, 1800, away=True),
    "is-gone": LogEntry(Kind.FETCHED, BEGAN + 9, 1900, gone=BEGAN + 200, away=True),
}


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """A folder with copies of the samples."""
    return Path(shutil.copytree(SAMPLES, tmp_path / "samples"))


def test_what_sync_remembered_is_read_and_written_anew(sample: Path) -> None:
    path = sample / "sync-0.1"
    old = path.read_bytes()
    with SyncState.opened(path, ACCOUNT, read_only=True) as state:
        assert state.entries == REMEMBERED
    assert path.read_bytes() == old
    for _ in range(2):  # as version 0.1 wrote it, and as it was rewritten
        with SyncState.opened(path, ACCOUNT) as state:
            assert (state.entries, state.run_open, state.pending) == (REMEMBERED, False, None)
        assert path.read_bytes().startswith(b"pop3cli sync 2 alice@mail.example.org:995\n")


def test_a_maildir_run_that_was_killed_is_still_open(sample: Path) -> None:
    for _ in range(2):
        with SyncState.opened(sample / "sync-0.1-killed-maildir", ACCOUNT) as state:
            assert state.run_open
            assert state.entries == {"whole": REMEMBERED["whole"]}


def test_an_append_that_was_killed_is_still_pending_and_cuts_nothing(sample: Path, tmp_path: Path) -> None:
    mbox = Mbox(tmp_path / "mail.mbox")
    mbox.path.write_bytes(b"x" * 4096 + b"\nFrom pop3cli-0123456789abcdef now\nA: 1\n\nhal")
    before = mbox.path.read_bytes()
    with SyncState.opened(sample / "sync-0.1-killed-mbox", ACCOUNT):
        pass
    with SyncState.opened(sample / "sync-0.1-killed-mbox", ACCOUNT) as state:
        assert state.pending is not None
        assert (state.pending.offset, state.pending.token) == (4096, "0123456789abcdef")
        assert state.entries == {"whole": REMEMBERED["whole"]}
        assert "messages may be in it twice" in (mbox.recover(state, ()) or "")
        assert mbox.path.read_bytes() == before
        assert state.pending is None


def test_named_accounts(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "pop3cli").mkdir()
    shutil.copy(sample / "accounts-0.1.toml", tmp_path / "pop3cli" / "accounts.toml").chmod(0o600)
    book = read_book()
    assert {name: entry.account.url for name, entry in book.items()} == {
        "all": "pop3s://alice@mail.example.org:995",
        "old.plain": "pop3://bob%40example.org@mail.example.org:1110",
        "tokens": "pop3s://carol@outlook.office365.com:995",
    }
    home = Path("/home/alice/.config/pop3cli")
    assert book["all"].settings == Settings(
        cacert=home / "ca.pem",
        pins=("a" * 64, "b" * 64),
        client_cert=home / "mine.pem",
        client_key=home / "mine.key",
        proxy="socks5://127.0.0.1:1080",
        auth="plain",
        timeout=12.5,
        password_command='pass show "mail/work"',
        keyring=True,
    )
    tokens = Settings(oauth="microsoft", oauth_client_id="id-1", oauth_scope="scope-1")
    assert (book["old.plain"].settings, book["tokens"].settings) == (Settings(), tokens)


def test_tokens(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("pop3cli.auth.token_store.time.time", lambda: BEGAN)  # they are good for an hour
    folder = tmp_path / "pop3cli" / "tokens"
    folder.mkdir(parents=True)
    shutil.copy(sample / "tokens-0.1.json", folder / "tokens.json").chmod(0o600)
    account = parse_account("pop3s://carol@outlook.office365.com")
    assert access_token(account, Settings(oauth="microsoft", title="tokens")) == b"access-1"
