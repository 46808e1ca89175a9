"""Each command of the benchmarks does its work, at its smallest."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench import __main__ as engine
from tests.bench import beside, clients, deliver, features, growth, lmtp, servers, tricks
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


BUSY = """
import os, time
time.sleep(0.3)
child = os.fork()
while time.process_time() < 0.2:
    pass
if child:
    os.wait()
    print(flush=True)
    input()
"""


@pytest.mark.parametrize("groups", [servers.GROUPS, ()], ids=["control groups", "/proc"])
def test_cpu_of_a_child_that_has_ended_counts(groups: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "GROUPS", groups)
    with subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        meter = servers.Meter(process.pid)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()  # the child has ended
        assert meter.settled() >= 0.35
        process.stdin.write(b"\n")
    meter.close()


@pytest.mark.skipif(dovecot.missing() is not None, reason=str(dovecot.missing()))
@pytest.mark.parametrize("name", ["session", "mix", "retr_pipe", "neighbour_open"])
def test_beside_dovecot(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "beside.json"
    beside.main([*TINY, "--only", name, "--out", str(out), "--markdown"])
    kept = json.loads(out.read_text())
    assert list(kept["rows"]) == [name]
    row = kept["rows"][name]
    assert row["unit"] == ROWS[name].unit
    assert len(row["rounds"]["pop3d"]) == len(row["rounds"]["dovecot"]) == 1
    assert row["pop3d"] >= 0
    assert f"| {name} |" in capsys.readouterr().out


def test_what_features_cost(tmp_path: Path) -> None:
    out = tmp_path / "features.json"
    features.main([*TINY, "--workloads", "session", "--only", "lock across processes", "--out", str(out)])
    (told,) = json.loads(out.read_text())["features"].values()
    assert len(told["rounds"]["session"]) == 1
    assert told["costs"]["session"] >= -1


def test_what_cannot_be_taken_out_has_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    out = tmp_path / "features.json"
    monkeypatch.setitem(features.FEATURES, "none", features.Feature("taken out", before="import pop3d.none"))
    features.main([*TINY, "--workloads", "session", "--only", "none", "--out", str(out)])
    assert json.loads(out.read_text())["features"]["none"]["costs"] == {}
    assert "none: pop3d does not start without it" in capsys.readouterr().err


@pytest.mark.parametrize("name", growth.GROWTHS)
def test_growth(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "growth.json"
    monkeypatch.setitem(growth.GROWTHS, name, replace(growth.GROWTHS[name], sizes=(10, 40)))
    monkeypatch.setattr(growth, "SILENCE", 0.1)
    growth.main(["--only", name, "--out", str(out)])
    (curves,) = json.loads(out.read_text())["growth"].values()
    assert curves["curves"].keys() == growth.GROWTHS[name].units.keys()
    assert all(len(curve["figures"]) == len(curves["sizes"]) for curve in curves["curves"].values())


def test_growth_is_the_slope_of_costs() -> None:
    sizes = [10, 100, 1000]
    assert growth.slope(sizes, [0.1, 1, 10]) == pytest.approx(1)
    assert growth.slope(sizes, [0.1, 10, 1000]) == pytest.approx(2)
    assert growth.slope(sizes, [7, 7, 7]) == pytest.approx(0)


def test_tricks(tmp_path: Path) -> None:
    out = tmp_path / "tricks.json"
    tricks.main(["--rounds", "1", "--seconds", "0.001", "--out", str(out)])
    told = json.loads(out.read_text())["tricks"]
    assert told.keys() == tricks.TRICKS.keys()
    assert all(one["ratio"] > 0 for one in told.values())


def test_the_engine_alone(tmp_path: Path) -> None:
    out = tmp_path / "engine.json"
    engine.main(["--runs", "1", "--seconds", "0.001", "--out", str(out)])
    assert json.loads(out.read_text())["engine"]["NOOP"]["pop3core"] > 0


def test_the_table_of_clients_is_that_of_the_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = "pop3cli sync,poplib script"
    tiny = ["--messages", "3", "--rounds", "1", "--rtt", "2", "--all", "--servers", "pop3d", "--clients", names]
    monkeypatch.setattr(sys, "argv", ["clients", *tiny, "--markdown"])
    clients.main()
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head == "| client | pop3d: time | CPU | 2 ms away: time | MiB |"
    assert [row.split(" | ")[:4] for row in rows] == [
        ["| **pop3cli sync**", "-", "-", "-"],  # there is no mpop to compare with
        ["| a poplib script, which syncs nothing", "-", "-", "-"],
    ]
    both = [(server, line, name) for server in ("pop3d", "Dovecot") for line in ("loopback", "40 ms")
            for name in clients.CLIENTS]  # fmt: skip
    figures = {one: clients.Figures([3.0], [1.0], [9.0]) for one in both}
    figures["Dovecot", "40 ms", "getmail6"] = clients.Figures()
    table = clients.markdown(figures).splitlines()
    page = (Path(__file__).parents[2] / "docs/client.md").read_text()
    assert table[0] in page
    assert table[2] in page  # mpop's own row, of which all are parts
    assert table[-1].endswith("| 1.00 | 1.00 | - | 9 |")
    shown = [line.split(" | ")[0] for line in page.partition(table[1])[2].strip().splitlines()[: len(clients.CLIENTS)]]
    assert shown == [row.split(" | ")[0] for row in table[2:]]


def test_the_cost_of_a_delivery(capsys: pytest.CaptureFixture[str]) -> None:
    deliver.main(["--users", "2", "--runs", "1"])
    assert "CPU in ms" in capsys.readouterr().out


def test_deliveries_by_lmtp_beside_dovecot(tmp_path: Path) -> None:
    found = lmtp.rounds(servers.Site(tmp_path), (4, 2), 1, 0.02, lmtp.missing() is None)
    assert all(figures.rate > 0 for each in found.values() for figures in each)
