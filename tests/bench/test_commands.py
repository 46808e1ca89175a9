"""Each command of the benchmarks does its work, at its smallest."""

import json
from pathlib import Path

import pytest

from tests.bench import beside
from tests.bench.servers import TEXT, message, on_the_wire
from tests.bench.workloads import ROWS
from tests.interop import dovecot

TINY = ["--rounds", "1", "--scale", "0.002"]


def test_messages_have_the_size_that_was_asked_for_and_dots_to_stuff() -> None:
    for number, octets in ((1, 500), (2, 4096), (3, 3 * len(TEXT))):
        stored = message(number, octets)
        assert len(stored) == octets
        assert stored.endswith(b"\n")
    sent = on_the_wire(b"From: a\n\n.\n..b\n")
    assert sent == b"From: a\r\n\r\n..\r\n...b\r\n"


@pytest.mark.skipif(dovecot.missing() is not None, reason=str(dovecot.missing()))
@pytest.mark.parametrize("name", ["session", "mix", "retr_pipe", "beside_open"])
def test_beside_dovecot(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "beside.json"
    beside.main([*TINY, "--only", name, "--out", str(out), "--markdown"])
    kept = json.loads(out.read_text())
    assert list(kept["rows"]) == [name]
    row = kept["rows"][name]
    assert row["unit"] == ROWS[name].unit
    assert len(row["rounds"]["pop3d"]) == len(row["rounds"]["dovecot"]) == 1
    assert row["pop3d"] > 0
    assert f"| {name} |" in capsys.readouterr().out
