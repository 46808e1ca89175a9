"""`python -m tests.fuzz.turns [--seconds N]`: looks for what a client can say to keep the event loop from all others.

A real daemon runs in this process; each turn of its event loop is measured by the CPU of its thread, so what else the
machine does hardly counts. One hostile client at a time speaks (`tests.fuzz.hostile`). An attack that makes a turn
longer than any of its kind is said again twice, and counts for the shortest of the three; at the end the worst of each
kind is made smaller, as long as it stays as bad. Status 1 when one is over the limit.
"""

import argparse
import random
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from tests.fuzz.hostile import Attack, kinds
from tests.fuzz.measured import Measured

REPETITIONS = 3
SMALLER_SECONDS = 10  # to make the worst attack of a kind smaller
KEEPS = 0.8  # of the time, for a smaller attack to count as just as bad


@dataclass
class Worst:
    """Of a kind: seconds of the longest turn, and what makes it."""

    seconds: float
    attack: Attack


def steady(daemon: Measured, attack: Attack, first: float) -> float:
    """The shortest of three: what did not come by chance."""
    more = (daemon.longest(attack.listener, attack.said) for _ in range(REPETITIONS - 1))
    return min(first, *more)


def search(daemon: Measured, seconds: float, chance: random.Random, marked_max: int) -> dict[str, Worst]:
    """The worst of each kind; every kind is tried at least once, and all have as much time."""
    found: dict[str, Worst] = {}
    end = time.monotonic() + seconds
    makers = kinds(daemon.messages, marked_max)
    spent = dict.fromkeys(makers, 0.0)
    while time.monotonic() < end or len(found) < len(makers):
        began = time.monotonic()
        name = min(spent, key=lambda kind: spent[kind])
        attack = makers[name](chance)
        took = daemon.longest(attack.listener, attack.said)
        before = found.get(name)
        if before is None or took > before.seconds:
            took = steady(daemon, attack, took)
            if before is None or took > before.seconds:
                found[name] = Worst(took, attack)
        spent[name] += time.monotonic() - began
    return found


def smaller(daemon: Measured, worst: Worst) -> Attack:
    """The same with fewer lines, and as bad."""
    attack, size = worst.attack, len(worst.attack.lines) // 2
    end = time.monotonic() + SMALLER_SECONDS
    while size and time.monotonic() < end:
        lines = attack.lines
        shorter = [replace(attack, lines=part) for part in (lines[:-size], lines[size:]) if part]
        for one in shorter:
            if daemon.longest(one.listener, one.said) >= KEEPS * worst.seconds:
                attack = one
                break
        else:
            size //= 2
    return attack


def shown(attack: Attack) -> str:
    """Its lines, with how often each is said."""
    runs = [(line, len(list(same))) for line, same in groupby(attack.lines)]
    told = [f"{line[:40]!r}{'...' if len(line) > 40 else ''} x{times}" for line, times in runs[:3]]
    return ", ".join(told) + (f", and {len(runs) - 3} more" if len(runs) > 3 else "")


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 1 when a turn was longer than the limit."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz.turns", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600, help="to look for long turns (default 600)")
    parser.add_argument("--limit", type=float, default=5, metavar="MS", help="milliseconds of a turn (default 5)")
    parser.add_argument("--messages", type=int, default=20_000, help="small messages in the Maildir (default 20000)")
    parser.add_argument("--million", type=int, default=1_000_000, help="messages of the largest mailbox")
    parser.add_argument("--seed", type=int, default=None, help="of the chance; default: another each time")
    options = parser.parse_args(arguments)
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    chance = random.Random(seed)
    with (
        tempfile.TemporaryDirectory(prefix="turns-") as name,
        Measured(Path(name), options.messages, options.million) as daemon,
    ):
        found = search(daemon, options.seconds, chance, options.messages)
        for worst in found.values():
            if worst.seconds * 1000 > options.limit:
                worst.attack = smaller(daemon, worst)
    print(f"{'longest turn':>12}  {'octets':>9}  kind: what was said (seed {seed})")
    for kind, worst in sorted(found.items(), key=lambda item: -item[1].seconds):
        print(f"{worst.seconds * 1000:9.2f} ms  {len(worst.attack.said):>9}  {kind}: {shown(worst.attack)}")
    over = [kind for kind, worst in found.items() if worst.seconds * 1000 > options.limit]
    if over:
        print(f"{len(over)} kinds have a turn of more than {options.limit:g} ms")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
