"""`python -m tests.bench`: what the engine does in a second on one core, beside Twisted and poplib where they compare.

Each figure is the best of some short runs; the ratio in a row is of figures from the same run. Nothing here is a test.
"""

import argparse

from rich.console import Console
from rich.table import Table

from tests.bench.micro import BENCHMARKS, rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each run")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    table = Table("what", "unit", "pop3core", "the other", "ratio", "aim")
    for benchmark in BENCHMARKS:
        ours = rate(benchmark.ours(), options.seconds, options.runs) / benchmark.scale
        other = benchmark.other() if benchmark.other is not None else None
        theirs = rate(other, options.seconds, options.runs) / benchmark.scale if other is not None else None
        table.add_row(
            benchmark.name,
            benchmark.unit,
            f"{ours:,.0f}",
            f"{benchmark.peer} {theirs:,.0f}" if theirs else f"{benchmark.peer} is missing" if benchmark.peer else "",
            f"{ours / theirs:.1f}" if theirs else "",
            benchmark.aim,
        )
    Console().print(table)


if __name__ == "__main__":
    main()
