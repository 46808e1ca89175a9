"""`python -m tests.bench.beside`: pop3d beside Dovecot tuned for speed, on the same Maildirs, over TLS.

What counts is the CPU time of a server's processes for a unit of work, and the ratio of both in the same round: the
machine's other work hits both. After a round that warms up, each round measures both, the first one in turn; figures
and ratios are medians. pop3d has all that it is shipped with: locks, limits, log, timeouts. Passwords are in clear text
in both, so that no hash is measured. Root and Debian's dovecot-pop3d are needed for the other column.
"""

import argparse
import contextlib
import json
import os
import platform
import ssl
import statistics
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.servers import Site
from tests.bench.workloads import ROWS, WORKLOADS, Figures, Row, Start, Workload
from tests.interop import dovecot

LEAST = 1e-9
"""What was too little to be measured: without control groups, less than a hundredth of a second."""

Rounds = dict[str, list[Figures]]
"""Of each server, each round's figures."""


def machine(*, uvloop: bool) -> dict[str, str]:
    """What the figures are of."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    found = {
        "processor": f"{os.cpu_count()} x {models[0].partition(':')[2].strip() if models else platform.machine()}",
        "system": f"Linux {platform.release()}",
        "python": platform.python_version() + (", uvloop" if uvloop else ""),
        "openssl": ssl.OPENSSL_VERSION,
    }
    if dovecot.missing() is None:
        command = ["dovecot", "--version"]
        found["dovecot"] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return found


def measured(workload: Workload, starts: dict[str, Start], rounds: int) -> Rounds:
    """All rounds, behind one that warms up."""
    workload.prepare()
    workload.refresh()
    found: Rounds = {name: [] for name in starts}
    with contextlib.ExitStack() as stack:
        running = {}
        if not workload.started:
            running = {name: stack.enter_context(start()) for name, start in starts.items()}
        for number in range(rounds + 1):
            for name in [*starts] if number % 2 else reversed(starts):
                workload.refresh()
                figures = workload.measure(running[name]) if running else workload.measure_starts(starts[name])
                if number:
                    found[name].append(figures)
    return found


def result(name: str, found: Rounds) -> dict[str, Any]:
    """A row for the JSON: medians, and each round's figures."""
    row = ROWS[name]
    each = {server: [figures[name] * row.scale for figures in rounds] for server, rounds in found.items()}
    told: dict[str, Any] = {"unit": row.unit, "rounds": each}
    told |= {server: statistics.median(figures) for server, figures in each.items()}
    if len(each) == 2:
        told["ratio"] = statistics.median(
            a / max(LEAST, b) for a, b in zip(each["pop3d"], each["dovecot"], strict=True)
        )
    return told


def shown(figure: float | None) -> str:
    """Three digits that matter."""
    if figure is None:
        return ""
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def limits(row: Row) -> tuple[str, str]:
    """``must`` and ``aim``, with the unit where they are no ratios."""
    unit = f" {row.unit.partition(' ')[0]}" if row.absolute else ""
    return f"{row.must:g}{unit}", f"{row.aim:g}{unit}"


HEAD = ("workload", "what", "ratio", "must", "aim", "pop3d", "Dovecot", "unit")


def cells(name: str, told: dict[str, Any]) -> tuple[str, ...]:
    """A row of the table, of `result`."""
    row = ROWS[name]
    figures = [shown(told.get(column)) for column in ("ratio", "pop3d", "dovecot")]
    return (name, row.what, figures[0], *limits(row), figures[1], figures[2], row.unit)


def markdown(rows: dict[str, Any]) -> str:
    """The table as it stands in documents."""
    lines = [HEAD, ("---",) * len(HEAD), *(cells(name, told) for name, told in rows.items())]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.beside", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=5, help="that count; one more warms up")
    parser.add_argument("--scale", type=float, default=1.0, help="of messages, sessions, mailboxes")
    parser.add_argument("--only", help=f"with commas between: {', '.join(ROWS)}; open_large, neighbours")
    parser.add_argument("--uvloop", action="store_true", help="pop3d on uvloop")
    parser.add_argument("--out", type=Path, help="write JSON here; rows that are there and not measured stay")
    parser.add_argument("--markdown", action="store_true", help="the table for documents")
    options = parser.parse_args(arguments)
    only = set(options.only.split(",")) if options.only else set(ROWS)
    for kind in WORKLOADS:
        if kind.name in only:
            only = only - {kind.name} | set(kind.names)
    if only - set(ROWS):
        parser.error(f"unknown: {', '.join(sorted(only - set(ROWS)))}")
    console = Console(stderr=True)
    if (why := dovecot.missing()) is not None:
        console.print(f"without the other column: {why}")
    rows: dict[str, Any] = {}
    for kind in WORKLOADS:
        if only.isdisjoint(kind.names):
            continue
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="pop3d-bench-") as folder:
            site = Site(Path(folder))
            top = 'loop = "uvloop"' if options.uvloop else ""
            starts: dict[str, Start] = {"pop3d": partial(site.pop3d, top=top)}
            if why is None:
                starts["dovecot"] = site.dovecot
            found = measured(kind(site, options.scale), starts, options.rounds)
        rows |= {name: result(name, found) for name in kind.names if name in only}
        took = time.monotonic() - begun
        console.print(f"{', '.join(kind.names)}: {options.rounds} rounds, {took:.0f} s, load {os.getloadavg()[0]:.1f}")
        if options.out is not None:
            kept = json.loads(options.out.read_text())["rows"] if options.out.exists() else {}
            rows_kept = {name: (kept | rows)[name] for name in ROWS if name in kept | rows}
            about = {"machine": machine(uvloop=options.uvloop), "rounds": options.rounds, "scale": options.scale}
            options.out.write_text(json.dumps({**about, "rows": rows_kept}, indent=1) + "\n")
    if options.markdown:
        print(markdown(rows))
        return
    table = Table(*HEAD[:1], *HEAD[2:])
    for name, told in rows.items():
        first, _, *others = cells(name, told)
        table.add_row(first, *others)
    Console().print(table)


if __name__ == "__main__":
    main()
