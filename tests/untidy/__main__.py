"""`python -m tests.untidy maildir [--seconds 600] [--seed 1]`: the long run of a machine that makes the world untidy.

Progress goes to standard error. The first fault ends it, with the steps that lead to it, shrunk.
"""

import argparse
import logging
import sys
import time

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.untidy.maildir import Maildir

RUNS_AT_ONCE = 50


def hunt(machine: type[Maildir], number: int, runs: int, *, steps: int = 30, shrink: bool = True) -> None:
    """Try ``runs`` runs; raises the first fault, shrunk."""
    how = settings(
        max_examples=runs,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    run_state_machine_as_test(seed(number)(machine), settings=how)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("machine", choices=("maildir",))
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    begun, number = time.monotonic(), options.seed
    while (passed := time.monotonic() - begun) < options.seconds:
        print(f"\r{passed:.0f} s, {Maildir.runs} runs, {Maildir.taken} steps", end="", file=sys.stderr, flush=True)
        hunt(Maildir, number, RUNS_AT_ONCE)
        number += 1
    print(file=sys.stderr)
    print(f"no fault in {Maildir.runs} runs of {Maildir.taken} steps, seeds {options.seed} to {number - 1}")


if __name__ == "__main__":
    main()
