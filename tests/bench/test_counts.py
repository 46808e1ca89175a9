"""A count that grew is seen, one that did not is not; and counting counts."""

import json
from pathlib import Path

import pytest

from tests.bench import counts
from tests.bench.fixed import WORKLOADS

NAME = "server: RETR"


def test_more_than_tolerated_is_a_fault() -> None:
    kept = {"a": 1000, "b": 1000, "gone": 1000}
    assert counts.worse({"a": 1050, "b": 900, "new": 10**9}, kept) == []
    (fault,) = counts.worse({"a": 1051, "b": 900}, kept)
    assert fault == "a: 1,051 instructions, 5.1% more than the 1,000 kept"


@pytest.mark.parametrize("name", WORKLOADS)
def test_each_workload_does_its_work(name: str) -> None:
    WORKLOADS[name]()


def test_a_build_that_is_not_kept_is_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "counts.json"
    path.write_text(json.dumps({"2.7.18": {NAME: 1}}))
    assert counts.main(["--check"], path) == 0
    assert capsys.readouterr().out.startswith("not counted: ")


@pytest.mark.skipif(counts.missing() is not None, reason=str(counts.missing()))
def test_what_is_counted_is_compared_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "counts.json"
    path.write_text(json.dumps({counts.build(): {NAME: 1_000_000}}))
    assert counts.main(["--only", NAME, "--check", "--update"], path) == 1
    assert "more than the 1,000,000 kept" in capsys.readouterr().out
    assert 2_000_000 < json.loads(path.read_text())[counts.build()][NAME] < 1_000_000_000


def test_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        counts.main(["--help"])
    assert ended.value.code == 0
    assert "status 1 when one costs over 5% more" in capsys.readouterr().out
