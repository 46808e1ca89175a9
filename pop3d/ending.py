"""How a run of the program ends: errors as lines on standard error, and an `ExitStatus`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from pop3d.config import ConfigError
from pop3d.errors import CommandError
from pop3d.exit_status import ExitStatus

__all__ = ["ended"]


def ended(run: Callable[[], object], debug: Callable[[], bool]) -> NoReturn:
    """Run a command and exit. ``run``: an exit status, or anything else when it is done. ``debug``: asked at a fault of
    ours, whether its traceback is wanted.
    """
    try:
        status = run()
    except ConfigError as fault:
        _complain(*fault.faults)
        status = ExitStatus.CONFIG
    except CommandError as fault:
        _complain(*str(fault).splitlines())
        status = fault.status
    except KeyboardInterrupt:
        status = ExitStatus.INTERRUPTED
    except Exception as fault:
        status = _unexpected(fault, debug() or bool(os.environ.get("POP3D_DEBUG")))
    sys.exit(status if isinstance(status, int) else 0)


def _unexpected(fault: Exception, debug: bool) -> int:
    """A usage error of typer's, which knows how to show itself, or a fault of ours."""
    if callable(show := getattr(fault, "show", None)):
        show()
        return int(getattr(fault, "exit_code", ExitStatus.USAGE))
    if debug:
        import traceback

        traceback.print_exception(fault)
    _complain(f"a fault of ours: {type(fault).__name__}: {fault}; run with --debug for details, and please report it")
    return ExitStatus.SOFTWARE


def _complain(*lines: str) -> None:
    for line in lines:
        print(f"pop3d: {line}", file=sys.stderr)
