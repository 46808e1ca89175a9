"""`python -m tests.bench.deliver`: what one `pop3d deliver` costs, by the users in the users file.

Processor time (user and system) and memory of the whole process; the least of some runs, each with the ratio to a file
of one user in the same run. The aim is 0.2 s for 100,000 users.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

CONFIGURATION = '[[listen]]\nport = 0\ntls = "none"\nhost = "127.0.0.1"\n[store]\npath = "mail/{user}"\n'
HASH = "{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$" + "A" * 43
MESSAGE = b"Subject: x\n\n" + b"x" * 4000 + b"\n"


def measured(command: Sequence[str | Path], stdin: bytes) -> tuple[float, int]:
    """Seconds of processor time, and KiB of memory at most, of one run that must end well."""
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(stdin)
        process.stdin.close()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return used.ru_utime + used.ru_stime, used.ru_maxrss


def cost(folder: Path, users: int, runs: int) -> tuple[float, int]:
    """The least that a delivery to the user in the middle of a file of so many costs."""
    (folder / "pop3d.toml").write_text(CONFIGURATION)
    (folder / "users").write_text("".join(f"user{number:06}@example.org:{HASH}\n" for number in range(users)))
    command = [sys.executable, "-m", "pop3d", "deliver", "--config", folder / "pop3d.toml"]
    name = f"user{users // 2:06}@example.org"
    return min(measured([*command, "--", name], MESSAGE) for _ in range(runs))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.deliver", description=__doc__)
    parser.add_argument("--users", type=int, nargs="+", default=[1, 1_000, 10_000, 100_000])
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(arguments)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program has its modules compiled
    table = Table("users", "CPU in ms", "ratio", "MiB")
    bare, memory = min(measured([sys.executable, "-c", ""], b"") for _ in range(options.runs))
    first = None
    with tempfile.TemporaryDirectory() as folder:
        for users in options.users:
            seconds, memory_used = cost(Path(folder), users, options.runs)
            first = first or seconds
            table.add_row(f"{users:,}", f"{seconds * 1000:.0f}", f"{seconds / first:.2f}", f"{memory_used / 1024:.0f}")
    table.add_row("(python alone)", f"{bare * 1000:.0f}", f"{bare / (first or bare):.2f}", f"{memory / 1024:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
