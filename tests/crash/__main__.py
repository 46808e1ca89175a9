"""`python -m tests.crash --kills 200`: pop3d is killed at random instants, and every message is accounted for.

While a program delivers without pause and another one sets flags, clients log in, fetch, delete and quit, or go without
a word; at random instants the daemon gets SIGKILL, is started again, and the first login is timed. A journal says what
was delivered, what a client has marked, and whether its QUIT was answered. Each message must then be

- there, whole, under its unique-id, when no QUIT had marked it: else it is *lost*, *torn*, *doubled* or *renamed*;
- gone, when a QUIT that marked it was answered +OK: else it is *resurrected*;
- either, when the QUIT that marked it was cut.
"""

import argparse
import sys

from tests.crash.site import Crash


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with Crash(options.seed) as crash:
        for kill in range(1, options.kills + 1):
            crash.round()
            print(f"\r{kill} / {options.kills} kills, {crash.tally}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        crash.account()
        print(crash.tally)
        sys.exit(1 if crash.tally.faults else 0)


if __name__ == "__main__":
    main()
