"""``python -m pop3cli``, and what the installed script calls."""

import gc

__all__ = ["main"]


def main() -> None:
    """Import the program, and run it."""
    gc.disable()  # what is imported stays: looking for garbage among it is a tenth of the time it takes to begin
    from pop3cli.app import main as run
    from pop3cli.process import no_core

    no_core()

    gc.freeze()
    gc.enable()
    run()


if __name__ == "__main__":
    main()
