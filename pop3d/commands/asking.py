"""What commands ask of the daemons that run, over the control socket; and how they show numbers and times."""

from __future__ import annotations

import time
from collections.abc import Mapping

from pop3d.config import Config
from pop3d.control.client import Asked, NoAnswer, NoDaemon, ask
from pop3d.errors import CommandError
from pop3d.exit_status import ExitStatus

__all__ = ["asked", "duration", "iso", "octets", "when"]


def asked(config: Config, request: Mapping[str, str | bool]) -> list[Asked]:
    """The answers of all daemons with this state folder. Raises `CommandError`."""
    try:
        return ask(config.state, request)
    except NoDaemon:
        what = f"no pop3d runs with the state folder {config.state}"
        remedy = "start it (`pop3d serve`), or name the configuration that it has with --config FILE"
        raise CommandError(f"{what}; {remedy}", ExitStatus.UNAVAILABLE) from None
    except PermissionError:
        what = f"control socket in {config.state}: it is for another user"
        raise CommandError(f"{what}; run this as root, or as `user`", ExitStatus.NOPERM) from None
    except NoAnswer as fault:
        text = f"the daemon did not answer: {fault}; try again, and look into its log"
        raise CommandError(text, ExitStatus.UNAVAILABLE) from None
    except OSError as fault:
        what = f"control socket in {config.state}: {fault.strerror}"
        raise CommandError(f"{what}; run this as root, or as `user`", ExitStatus.UNAVAILABLE) from None


def octets(number: int) -> str:
    """In four or five characters: ``512``, ``1.5K``, ``23M``."""
    size = float(number)
    for unit in ("", "K", "M", "G"):
        if size < 1000:
            return f"{size:.0f}{unit}" if size >= 10 or not unit else f"{size:.1f}{unit}"
        size /= 1024
    return f"{size:.1f}T"


def duration(seconds: float) -> str:
    """In a few characters: ``42s``, ``12m``, ``3h07``, ``2d04h``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02}h"


def when(unix: float, now: float | None = None) -> str:
    """Local time for a person: ``14:02`` of today, ``Nov 27`` of another day."""
    today = time.localtime(time.time() if now is None else now)
    local = time.localtime(unix)
    return time.strftime("%H:%M" if local[:3] == today[:3] else "%b %d", local)


def iso(unix: float) -> str:
    """Local time with its zone: ``2026-11-27T14:02:09+00:00``."""
    text = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(unix))
    return f"{text[:-2]}:{text[-2:]}"
