"""Courier's POP3 server, which Debian does not install beside Dovecot: `.ci/run` unpacks it into ``.courier/``."""

import os
import subprocess
from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".courier"
_PROGRAM = "usr/lib/courier/courier/courierpop3d"
_LIBRARIES = ("usr/lib", "usr/lib/courier-authlib", "usr/lib/*-linux-gnu")


def program() -> Path | None:
    return next((path for path in (Path("/") / _PROGRAM, FOLDER / _PROGRAM) if path.exists()), None)


def missing() -> str | None:
    """Why there is no Courier to run; None when there is."""
    if program() is None:
        return "Courier is not there (Debian: `.ci/run` has the lines that unpack courier-pop into .courier/)"
    return None


def said(box: Path, *commands: str) -> list[bytes]:
    """What courierpop3d answers about a Maildir: the replies to the commands, as octets, the greeting left out."""
    courier = program()
    assert courier is not None
    libraries = [str(path) for pattern in _LIBRARIES for path in FOLDER.glob(pattern)]
    about = {"AUTHENTICATED": "alice", "AUTHADDR": "alice", "HOME": str(box.parent), "TCPREMOTEIP": "127.0.0.1"}
    done = subprocess.run(
        [courier, box],
        input="".join(f"{command}\r\n" for command in (*commands, "QUIT")).encode(),
        capture_output=True,
        cwd=box.parent,
        env={**os.environ, **about, "LD_LIBRARY_PATH": ":".join(libraries)},
        timeout=20,
    )
    _, replies = done.stdout.split(b"\r\n", 1)
    found = []
    for command in commands:
        many = command.split()[0] in ("LIST", "UIDL", "RETR", "TOP") and replies.startswith(b"+OK")
        end = b"\r\n.\r\n" if many and (" " not in command or command[:4] in ("RETR", "TOP ")) else b"\r\n"
        reply, _, replies = replies.partition(end)
        found.append(reply)
    assert replies.startswith(b"+OK"), done
    return found
