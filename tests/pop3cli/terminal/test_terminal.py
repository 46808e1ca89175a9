"""What reaches the terminal: colour, and content in pieces."""

from __future__ import annotations

import io

import pytest

from pop3cli.terminal.terminal import ContentPrinter, Terminal
from tests.pop3cli.conftest import Tty


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def shown(out: io.StringIO, *, color: bool = True) -> bool:
        Terminal(color=color, stdout=out).line(("text", "ok"), ("bold", "strong"))
        return "\x1b" in out.getvalue()

    assert shown(Tty())
    assert not shown(io.StringIO())
    assert not shown(Tty(), color=False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not shown(Tty())


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_content_is_shown_the_same_however_it_is_cut(size: int) -> None:
    content = "one\r\ntwo ✓\rthree\n\x1b[1mfour\r".encode()
    out = io.StringIO()
    printer = ContentPrinter(Terminal(stdout=out))
    for start in range(0, len(content), size):
        printer.feed(content[start : start + size])
    printer.end()
    assert out.getvalue() == "one\ntwo ✓\nthree\n␛[1mfour\n"
