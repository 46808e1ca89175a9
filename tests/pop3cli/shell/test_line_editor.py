"""The history of the shell: bounded, and without passwords."""

from __future__ import annotations

from pathlib import Path

import pytest

from pop3cli.shell.line_editor import _kept, history_file, is_secret


@pytest.mark.parametrize(
    ("line", "secret"),
    [("pass x", True), (" PASS x", True), ("raw  pass x", True), ("auth plain x", True), ("apop a b", True),
     ("raw noop", False), ("passage", True), ("pas hunter2", True), ("hunter2", True), ("user alice hunter2", True),
     ("list", False), ("user alice", False), ("pass", False), ("auth plain", False), ("help", False),
     ("explain", False),
     ("open pop3s://alice@mail.example.org:995", False), ("open pop3s://alice:hunter2@mail.example.org", True),
     ("open pop3s:alice:hunter2@mail.example.org", True), ("raw raw hunter2", True),
     ("raw AGFsaWNlAGh1bnRlcjI=", True)],
)  # fmt: skip
def test_lines_that_may_hold_a_password(line: str, secret: bool) -> None:
    assert is_secret(line) is secret


def test_the_history_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    history_file().parent.mkdir()
    history_file().write_text("\n# then\n+noop\n" * 50_000)
    assert _kept(history_file()) == history_file()
    assert 100_000 < history_file().stat().st_size < 140_000
    assert history_file().read_text().startswith("# then\n+noop\n")
    history_file().unlink()
    history_file().symlink_to(tmp_path / "elsewhere")
    assert _kept(history_file()) is None
    assert not (tmp_path / "elsewhere").exists()
