"""Tables that fit a terminal, and are whole in a pipe."""

from __future__ import annotations

import io

import pytest

from pop3cli.terminal.tables import Column
from pop3cli.terminal.terminal import Terminal
from tests.pop3cli.conftest import Tty


@pytest.mark.parametrize("width", [200, 80, 40, 20])
def test_a_table_fits_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    out = Tty()
    table = Terminal(color=False, stdout=out).table(
        (Column("No", 4, right=True), Column("A", 9, share=1), Column("B", 9, share=2))
    )
    table.row("1", "short", "漢字" * 200)
    table.row("2", "long " * 100, "[bold]\x1b[1m")
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert "\x1b" not in out.getvalue()
    if width >= 40:
        assert "…" in lines[1]
        assert "[bold]" in lines[2]


def test_nothing_is_cut_for_a_pipe() -> None:
    out = io.StringIO()
    Terminal(stdout=out).table((Column("No", 4, right=True), Column("A", 3, share=1))).row("1", "long " * 100 + "end")
    assert out.getvalue().endswith("end\n")
