"""A command's side of the control socket: all daemons with a state folder are asked, one after the other.

Blocking code. What comes back is bounded in octets and time, whoever made the socket: root may ask a daemon of `user`.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pop3d.control.socket_file import connected

__all__ = ["Asked", "NoAnswer", "NoDaemon", "ask"]

_SECONDS_MAX: Final = 30.0  # seconds that a daemon may be silent
_OCTETS_MAX: Final = 256 * 1024 * 1024  # octets of an answer: a hundred times what 10,000 sessions take


class NoDaemon(Exception):
    """No daemon that lives has this state folder."""


class NoAnswer(Exception):
    """A daemon did not answer to the end, or refused; one line says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What one daemon answered. ``name``: of its socket."""

    name: str
    lines: list[dict[str, Any]]


def ask(state: Path, request: Mapping[str, str | bool]) -> list[Asked]:
    """The answers of all daemons with that state folder. Raises `NoDaemon`, `NoAnswer`, and OSError."""
    try:
        daemons = connected(state)
    except (FileNotFoundError, NotADirectoryError):
        daemons = []
    if not daemons:
        raise NoDaemon
    try:
        return [Asked(name, _answer(sock, request)) for name, sock in daemons]
    finally:
        for _, sock in daemons:
            sock.close()


def _answer(sock: socket.socket, request: Mapping[str, str | bool]) -> list[dict[str, Any]]:
    sock.settimeout(_SECONDS_MAX)
    lines: list[dict[str, Any]] = []
    left = _OCTETS_MAX
    try:
        sock.sendall(json.dumps(request).encode() + b"\n")
        with sock.makefile("rb") as file:
            while left > 0 and (line := file.readline(left)):
                left -= len(line)
                if not line.endswith(b"\n"):
                    break
                found = json.loads(line)
                if not isinstance(found, dict):
                    raise ValueError
                if "done" in found:
                    return lines
                if "error" in found:
                    raise NoAnswer(str(found["error"]))
                lines.append(found)
    except TimeoutError:
        raise NoAnswer(f"nothing came for {_SECONDS_MAX:.0f} seconds") from None
    except ConnectionError:
        raise NoAnswer("it ended") from None
    except (ValueError, RecursionError):
        raise NoAnswer("its answer is not what a daemon of this version says") from None
    raise NoAnswer("it ended" if left > 0 else "its answer is too long")
