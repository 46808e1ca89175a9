"""`python -m tests.untidy maildir [--seconds 600] [--seed 1]`: the long run of a machine that makes the world untidy.

Progress goes to standard error. The first fault ends it with status 1, and with the steps that lead to it, shrunk.
"""

import argparse
import logging
import sys
import time

from tests.untidy.hunting import hunt
from tests.untidy.maildir import Maildir

_RUNS_AT_ONCE = 50  # from one seed: so often progress is told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("machine", choices=("maildir",))
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    begun, number = time.monotonic(), options.seed
    while (passed := time.monotonic() - begun) < options.seconds:
        told = f"{passed:.0f} of {options.seconds} s, seed {number}: {Maildir.runs} runs, {Maildir.taken} steps"
        print(f"\r{told}", end="", file=sys.stderr, flush=True)
        hunt(Maildir, number, _RUNS_AT_ONCE)
        number += 1
    print(file=sys.stderr)
    print(f"no fault in {Maildir.runs} runs, {Maildir.taken} steps, seeds {options.seed} to {number - 1}")


if __name__ == "__main__":
    main()
