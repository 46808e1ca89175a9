"""`pop3d cert ...`: certificates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pop3d.errors import CommandError
from pop3d.exit_status import ExitStatus
from pop3d.net.certificates import create_self_signed

__all__ = ["create"]


def create(hosts: Sequence[str], *, out: Path, days: int) -> None:
    """Make a self-signed certificate for ``hosts`` in folder ``out``."""
    try:
        certificate, private_key = create_self_signed(hosts, out, days)
    except ValueError as fault:
        raise CommandError(f"no certificate made: --host: {fault}", ExitStatus.USAGE) from None
    except FileExistsError as fault:
        raise CommandError(f"no certificate made: {fault}", ExitStatus.IOERR) from None
    except OSError as fault:
        raise CommandError(f"no certificate made: {out}: {fault.strerror}", ExitStatus.IOERR) from None
    print(f"made {certificate} and {private_key}, for {', '.join(hosts)}, valid {days} days")
