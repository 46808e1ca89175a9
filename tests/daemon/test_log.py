import logging

import pytest

from pop3d.log import configure, failed_login, harmless


class Lines:
    """What is logged inside a ``with``. (Not a fixture: pytest hangs its own handlers on loggers between phases.)"""

    def __init__(self, capsys: pytest.CaptureFixture[str], level: str = "info") -> None:
        self._capsys, self._level = capsys, level
        self.lines: list[str] = []

    def __enter__(self) -> "Lines":
        logger = logging.getLogger("pop3d")
        self._before = (logger.handlers[:], logger.level, logger.propagate)
        configure(self._level)
        return self

    def __exit__(self, *_: object) -> None:
        logger = logging.getLogger("pop3d")
        logger.handlers[:], level, logger.propagate = self._before
        logger.setLevel(level)
        self.lines = self._capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("evil", ["a\nb", "a\rb", "a\x1b[31mb", "a\x9bb", "a\u2028b", "a\u202eb", "a\0b", "\udcff"])
def test_nothing_from_outside_forges_a_line(capsys: pytest.CaptureFixture[str], evil: str) -> None:
    with Lines(capsys) as told:
        failed_login("192.0.2.1", evil)
        logging.getLogger("pop3d.x").info("told %s", evil)
    assert len(told.lines) == 2
    for line in told.lines:
        assert line.isprintable()
        line.encode()


def test_a_failed_login_is_one_short_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(capsys) as told:
        failed_login("2001:db8::1", "x" * 10_000)
    (line,) = told.lines
    assert len(line) <= 150
    assert "authentication failed ip=2001:db8::1 user=xxx" in line


def test_a_traceback_keeps_to_its_record(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(capsys) as told:
        try:
            raise RuntimeError("first\nforged INFO line")
        except RuntimeError:
            logging.getLogger("pop3d.x").exception("broken")
    first, *rest = told.lines
    assert first.endswith("ERROR broken")
    assert rest
    assert all(line.startswith("    ") for line in rest)


def test_level(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(capsys, "error") as told:
        logging.getLogger("pop3d.x").warning("not told")
    assert told.lines == []


def test_harmless_text_stays() -> None:
    assert harmless("alice@exämple.org ✓") == "alice@exämple.org ✓"
