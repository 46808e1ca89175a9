"""``python -m pop3cli``, and what the installed script calls."""

import os
import sys

# As in pop3d/__main__.py: `python -m` would import from the current folder, which may be a stranger's.
if sys.path and sys.path[0] in ("", os.path.realpath(".")) and not __file__.startswith(os.path.join(sys.path[0], "")):
    del sys.path[0]

import gc

__all__ = ["main"]


def main() -> None:
    """Import the program, and run it."""
    gc.disable()  # what is imported stays: looking for garbage among it is a tenth of the time it takes to begin
    from pop3cli.cli.app import main as run
    from pop3cli.cli.process import no_core

    no_core()

    gc.freeze()
    gc.enable()
    run()


if __name__ == "__main__":
    main()
