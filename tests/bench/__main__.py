"""`python -m tests.bench`: what the engine does in a second on one core, beside Twisted and poplib where they compare.

Each figure is the best of some short runs; the ratio in a row is of figures from the same run. Nothing here is a test.
"""

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.beside import machine
from tests.bench.micro import BENCHMARKS, rate

HEAD = ("what", "unit", "pop3core", "the other", "ratio", "aim")


def cells(name: str, told: dict[str, str | float | None]) -> list[str]:
    """A row of the table."""
    ours, theirs = told["pop3core"], told["other"]
    assert isinstance(ours, float)
    other = f"{told['peer']} {theirs:,.0f}" if theirs else f"{told['peer']} is missing" if told["peer"] else ""
    ratio = f"{ours / theirs:.1f}" if isinstance(theirs, float) else ""
    return [name, str(told["unit"]), f"{ours:,.0f}", other, ratio, str(told["aim"])]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each run")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write JSON here")
    options = parser.parse_args(arguments)
    table, told = Table(*HEAD), {}
    for benchmark in BENCHMARKS:
        other = benchmark.other() if benchmark.other is not None else None
        told[benchmark.name] = one = {
            "unit": benchmark.unit,
            "pop3core": rate(benchmark.ours(), options.seconds, options.runs) / benchmark.scale,
            "peer": benchmark.peer,
            "other": rate(other, options.seconds, options.runs) / benchmark.scale if other is not None else None,
            "aim": benchmark.aim,
        }
        table.add_row(*cells(benchmark.name, one))
    if options.out is not None:
        options.out.write_text(json.dumps({"machine": machine(uvloop=False), "engine": told}, indent=1) + "\n")
    Console().print(table)


if __name__ == "__main__":
    main()
