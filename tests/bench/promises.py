"""`python -m tests.bench.promises [NAME ...]`: what pop3d promises of service and defence, measured on a real process.

Each line is one promise: what was measured, the figure, and the aim. A figure depends on the machine and on what else
it does; the aims are for two quiet cores. The exit status is 1 when an aim was missed, so that a person looks.
`python -m tests.bench.promises beside` (and the run of all) prints the table of docs/running.md, in its form;
`... guesses` that of docs/security.md, in a quarter of an hour.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench import defence, guessing, honest, service
from tests.bench.site import Row, Site, make

PROMISES: dict[str, Callable[[Site], Iterator[Row]]] = {
    function.__name__: function
    for function in (
        defence.who_does_not_read,
        defence.the_half_open,
        defence.the_idle,
        defence.hogs,
        defence.out_of_descriptors,
        defence.failed_handshakes,
        service.orderly_end,
        service.another_certificate,
        service.the_clock,
        service.soak,
        defence.guessing,
        defence.hashing,
        defence.strangers,
        defence.nonsense,
        service.privileges,
    )
}


BESIDE = "beside"
GUESSES = "guesses"
_GUESSED = 20.0  # seconds of each trial


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [*PROMISES, BESIDE, GUESSES]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or some of: {', '.join(known)}")
    names = parser.parse_args().names or known
    if unknown := set(names) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    console = Console()
    table = Table("promise", "what", "figure", "aim", "")
    missed = False
    for name in names:
        if name in (BESIDE, GUESSES):
            continue
        console.print(name, style="dim")
        with made() as site:
            for row in PROMISES[name](site):
                missed |= not row.met
                sign = "≥" if row.at_least else "≤"
                table.add_row(
                    row.promise, row.what, f"{row.figure:.4g} {row.unit}", f"{sign} {row.aim:.4g} {row.unit}",
                    "" if row.met else "[red]missed[/]",
                )  # fmt: skip
    if table.row_count:
        console.print(table)
    if BESIDE in names:
        rows = []
        for situation in honest.SITUATIONS:
            with made() as site:
                rows.append(honest.measured(site, situation))
        print(honest.as_markdown(rows))
    if GUESSES in names:
        with made() as site:
            lines = [
                guessing.measured(site, mechanism, source, _GUESSED)
                for source in guessing.SOURCES
                for mechanism in guessing.MECHANISMS
            ]
        print(guessing.as_markdown(lines))
    sys.exit(missed)


@contextlib.contextmanager
def made() -> Iterator[Site]:
    """A new site; what serves it is ended."""
    with tempfile.TemporaryDirectory(prefix="pop3d-promises-") as folder:
        site = Site(Path(folder))
        make(site.root)
        try:
            yield site
        finally:
            site.stop()


if __name__ == "__main__":
    main()
