"""`python -m tests.bench.plots`: the plots and tables of docs/performance.md, from what was measured.

The other commands keep their figures in `tests/bench/results` when they are told so (`--out`); `--all` measures
everything anew first. A test compares what is in the documentation with what this makes.
"""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.__main__ import HEAD, cells
from tests.bench.beside import limits, markdown, shown
from tests.bench.features import NAMES, percent
from tests.bench.svg import Bar, Curve, bars, lines
from tests.bench.workloads import ROWS

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "performance.md"
PICTURES = ROOT / "docs" / "pictures"
RESULTS = Path(__file__).parent / "results"
MISSING = "Not measured yet."


def kept(name: str) -> dict[str, Any] | None:
    """What a command has measured; None before."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def table(head: list[str], rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))


# --- tables ---


def targets() -> str:
    """pop3d beside Dovecot."""
    told = kept("beside")
    return MISSING if told is None else f"{measured_on(told)}\n\n{markdown(told['rows'])}"


def measured_on(told: dict[str, Any]) -> str:
    return "; ".join(f"{what} {value}" for what, value in told["machine"].items()) + (
        f"; median of {told['rounds']} rounds." if "rounds" in told else "."
    )


def uvloop() -> str:
    """pop3d on uvloop beside Dovecot, and beside itself."""
    other, usual = kept("uvloop"), kept("beside")
    if other is None or usual is None:
        return MISSING
    rows = [
        [name, shown(usual["rows"][name]["ratio"]), shown(told["ratio"]), limits(ROWS[name])[1]]
        for name, told in other["rows"].items()
        if "ratio" in told and not ROWS[name].absolute
    ]
    return table(["workload", "asyncio", "uvloop", "aim"], rows)


def features() -> str:
    """What each feature costs."""
    told = kept("features")
    if told is None:
        return MISSING
    names = [name for name in NAMES if any(name in one["costs"] for one in told["features"].values())]
    rows = [
        [name, f"`{one['how']}`" if "taken" not in one["how"] else one["how"]]
        + [percent(one["costs"].get(workload)) for workload in names]
        for name, one in told["features"].items()
    ]
    return table(["feature", "by", *names], rows)


def tricks() -> str:
    """What each trick is worth."""
    told = kept("tricks")
    if told is None:
        return MISSING
    rows = [[name, f"`{one['where']}`", shown(one["ratio"])] for name, one in told["tricks"].items()]
    return table(["trick", "where", "CPU ratio to the usual way"], rows)


def engine() -> str:
    """What the engine does in a second."""
    told = kept("engine")
    return MISSING if told is None else table([*HEAD], [cells(name, one) for name, one in told["engine"].items()])


def growth() -> str:
    """Figures and slopes."""
    told = kept("growth")
    if told is None:
        return MISSING
    made = []
    for one in told["growth"].values():
        rows = []
        for name, curve in one["curves"].items():
            slopes = f"{curve['slope']:.2f}", f"{curve['tail']:.2f}", f"{curve['steepest']:g}"
            rows.append([f"{name}, {curve['unit']}", *map(shown, curve["figures"]), *slopes])
        made.append(
            table([one["axis"], *[f"{size:,}" for size in one["sizes"]], "slope", "at the end", "at most"], rows)
        )
    return "\n".join(made)


PARTS = {part.__name__: part for part in (targets, uvloop, engine, tricks, features, growth)}


def made(page: str) -> str:
    """The page with its generated parts made anew."""

    def part(found: re.Match[str]) -> str:
        return f"<!-- {found[1]} -->\n{PARTS[found[1]]().rstrip()}\n<!-- end -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- end -->", part, page, flags=re.DOTALL)


# --- plots ---


def plot_beside(told: dict[str, Any]) -> str:
    rows = {name: one for name, one in told["rows"].items() if "ratio" in one and not name.startswith("neighbour")}
    found = []
    for name, one in rows.items():
        row = ROWS[name]
        # the aims of some are figures, not ratios
        by = one["dovecot"] if row.absolute else 1.0
        marks = (("must", row.must / by), ("aim", row.aim / by))
        found.append(Bar(name, one["ratio"], shown(one["ratio"]), marks))
    title = "What pop3d needs of what a tuned Dovecot needs: CPU time, and memory of idle sessions"
    return bars(title, found, whole=1, whole_told="Dovecot", legend=[("must", "must"), ("aim", "aim")])


def plot_features(told: dict[str, Any]) -> str:
    found = []
    for workload in NAMES:
        for name, one in told["features"].items():
            cost = one["costs"].get(workload)
            if cost is not None and cost < 1:  # a hash that is meant to be slow would dwarf all others
                found.append(Bar(f"{name}, {workload}", cost, percent(cost)))
    return bars("What features cost, of a workload", found, whole=0, whole_told="", legend=[])


def named(size: int, axis: str) -> str:
    """A size, short."""
    step, units = (1024, ("", " KiB", " MiB")) if "octets" in axis else (1000, ("", "k", "M"))
    power = 0
    while size >= step and power < 2:
        size, power = size // step, power + 1
    return f"{size}{units[power]}"


def plot_growth(one: dict[str, Any]) -> str:
    panels: dict[str, list[Curve]] = {}
    for name, curve in one["curves"].items():
        panels.setdefault(curve["unit"], []).append(Curve(f"{name}: slope {curve['slope']:.2f}", curve["figures"]))
    ticks = [(size, named(size, one["axis"])) for size in one["sizes"]]
    return lines(f"CPU time and memory by {one['axis']}", one["axis"], ticks, panels)


def pictures() -> dict[str, str]:
    """By name, all that can be drawn from what was measured."""
    drawn = {}
    for name, draw in (("beside", plot_beside), ("features", plot_features)):
        if (told := kept(name)) is not None:
            drawn[f"performance-{name}"] = draw(told)
    if (told := kept("growth")) is not None:
        drawn |= {f"performance-{name}": plot_growth(one) for name, one in told["growth"].items()}
    return drawn


# --- the command ---


def measure(rounds: int) -> None:
    """Everything anew; about an hour."""
    from tests.bench import __main__, beside, counts, features, growth, tricks

    commands: list[tuple[Callable[[list[str]], object], list[str], str]] = [
        (beside.main, ["--rounds", str(rounds)], "beside"),
        (beside.main, ["--rounds", str(rounds), "--uvloop"], "uvloop"),
        (features.main, ["--instructions", "--scale", "0.1"], "features"),
        (growth.main, [], "growth"),
        (tricks.main, [], "tricks"),
        (__main__.main, [], "engine"),
    ]
    RESULTS.mkdir(exist_ok=True)
    for command, arguments, name in commands:
        command([*arguments, "--out", str(RESULTS / f"{name}.json")])
    counts.main(["--update"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.plots", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="measure everything first, which takes about an hour")
    parser.add_argument("--rounds", type=int, default=5, help="with --all")
    options = parser.parse_args()
    if options.all:
        measure(options.rounds)
    PAGE.write_text(made(PAGE.read_text()))
    for name, picture in pictures().items():
        (PICTURES / f"{name}.svg").write_text(picture)


if __name__ == "__main__":
    main()
