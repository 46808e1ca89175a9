"""Progress is shown for long work on a terminal, and not elsewhere."""

from __future__ import annotations

import io

import pytest

from pop3cli.terminal.terminal import Terminal
from tests.pop3cli.conftest import Tty


def test_progress_is_for_long_work_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for stream, seconds, shown in ((Tty(), -1.0, True), (Tty(), 60.0, False), (io.StringIO(), -1.0, False)):
        monkeypatch.setattr("pop3cli.terminal.progress._SOON", seconds)
        for octets in (True, False):
            with Terminal(stdout=io.StringIO(), stderr=stream).progress("message [1]", 100, octets=octets) as meter:
                meter.advance(50)
                meter.advance(50)
        assert ("message [1]" in stream.getvalue()) is shown


def test_progress_beside_output_is_for_work_that_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("pop3cli.terminal.progress._SOON", -1.0)
    for alone in (True, False):
        stream = Tty()
        terminal = Terminal(stdout=Tty(), stderr=stream)
        with terminal.progress("headers", 10, octets=False, alone=alone) as meter:
            meter.advance(5)
        assert ("headers" in stream.getvalue()) is alone
