"""The folders of a user's in which accounts, tokens, history and sync's state are."""

from __future__ import annotations

from pathlib import Path

import pytest

from pop3cli.accounts.registry import book_path
from pop3cli.accounts.url import parse_account
from pop3cli.auth import token_store
from pop3cli.files import config_folder, state_folder
from pop3cli.shell.line_editor import history_file
from pop3cli.sync.command import state_path


def test_folders_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert book_path() == tmp_path / "config/pop3cli/accounts.toml"
    assert history_file() == tmp_path / "state/pop3cli/history"
    assert token_store._path("work") == tmp_path / "state/pop3cli/tokens/work.json"
    state = state_path(parse_account("pop3s://alice@host"), tmp_path / "Mail", None)
    assert state.parent == tmp_path / "state/pop3cli"
    assert list(tmp_path.iterdir()) == []  # asking makes none


@pytest.mark.parametrize("value", [None, "", "relative/folder"])
def test_folders_at_home(value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)
        if value is not None:
            monkeypatch.setenv(variable, value)
    assert config_folder() == tmp_path / ".config/pop3cli"
    assert state_folder() == tmp_path / ".local/state/pop3cli"
