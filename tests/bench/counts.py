"""`python -m tests.bench.counts [--check | --update]`: what fixed work costs the engine, in instructions.

A count does not depend on what else the machine does, so a change that costs more than a few in a hundred is seen at
once. Each workload of `tests.bench.fixed` runs in a fresh interpreter under valgrind's callgrind, once and twice over;
the difference is the work without the start. What is kept in counts.json is kept for one build of Python:
two builds of the same version differ by a tenth, and by another tenth in another workload. A build that is not there is
not compared, which is said.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench.fixed import WORKLOADS

ROOT = Path(__file__).resolve().parent.parent.parent
KEPT = Path(__file__).parent / "counts.json"
TOLERANCE = 0.05
REPETITIONS = 1
SECONDS = 300  # for one run

Counts = dict[str, int]


def build() -> str:
    """Which Python this is: two with the same key count the same."""
    how = repr([sysconfig.get_config_var(name) for name in ("CONFIG_ARGS", "PY_CFLAGS", "PY_CFLAGS_NODIST", "LDFLAGS")])
    # where it is installed is no matter
    digest = hashlib.sha256(how.replace(sys.base_prefix, "").encode()).hexdigest()[:6]
    return f"{platform.python_version()}, {platform.python_compiler()}, {digest}"


def missing() -> str | None:
    """Why nothing can be counted here; None when it can."""
    return None if shutil.which("valgrind") else "valgrind is not installed (Debian: apt install valgrind)"


def run(prefix: list[str], name: str, repetitions: int, cache: str) -> "subprocess.CompletedProcess[str]":
    python = [os.path.realpath(sys.executable), "-S", "-s", "-m", "tests.bench.fixed", name, str(repetitions)]
    # nothing of the caller's environment: the stack begins with it
    environment = {"PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": cache, "PATH": os.defpath}
    return subprocess.run([*prefix, *python], env=environment, capture_output=True, text=True, timeout=SECONDS)


def instructions(name: str, repetitions: int, cache: str) -> int:
    """Of a whole run, the interpreter's start included. ``cache``: a folder with the compiled modules."""
    done = run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"], name, repetitions, cache)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or found is None:
        raise SystemExit(f"callgrind did not count {name!r}: {done.stderr.strip().splitlines()[-1:]}")
    return int(found[1])


def counted(names: list[str]) -> Counts:
    """Instructions of each workload, done once."""
    with tempfile.TemporaryDirectory(prefix="counts-") as cache, ThreadPoolExecutor(2) as pool:
        run([], names[0], 0, cache)  # compiles the modules
        runs = [(name, times) for name in names for times in (REPETITIONS, 2 * REPETITIONS)]
        found = dict(zip(runs, pool.map(lambda run: instructions(run[0], run[1], cache), runs), strict=True))
    return {name: (found[name, 2 * REPETITIONS] - found[name, REPETITIONS]) // REPETITIONS for name in names}


def worse(now: Counts, kept: Counts) -> list[str]:
    """A line for each workload that costs more than is tolerated; new ones cannot."""
    return [
        f"{name}: {now[name]:,} instructions, {now[name] / kept[name] - 1:.1%} more than the {kept[name]:,} kept"
        for name in now
        if name in kept and now[name] > kept[name] * (1 + TOLERANCE)
    ]


def main(arguments: list[str] | None = None, path: Path = KEPT) -> int:
    """The exit status: 1 when a check failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.counts", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--check", action="store_true", help=f"status 1 when one costs over {TOLERANCE:.0%}% more")
    parser.add_argument("--update", action="store_true", help="keep what was counted, in counts.json")
    parser.add_argument("--only", choices=[*WORKLOADS], help="one workload")
    options = parser.parse_args(arguments)
    everything: dict[str, Counts] = json.loads(path.read_text()) if path.exists() else {}
    kept = everything.get(build(), {})
    why = missing() or (
        None if kept or not options.check else f"nothing is kept for Python {build()}: --update keeps it"
    )
    if why is not None:
        print(f"not counted: {why}")
        return 0
    now = counted([options.only] if options.only else [*WORKLOADS])
    for name, count in now.items():
        print(f"{name:24} {count:>14,}" + (f"  {count / kept[name] - 1:+.1%}" if name in kept else ""))
    if options.update:
        everything[build()] = kept | now
        path.write_text(json.dumps(everything, indent=2, sort_keys=True) + "\n")
    faults = worse(now, kept) if options.check else []
    for fault in faults:
        print(f"{fault}. If that is worth it: python -m tests.bench.counts --update")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
