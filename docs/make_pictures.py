"""Makes the pictures of the documentation: `python docs/make_pictures.py`.

Real programs in a real terminal: pop3d serves sample mail, pop3cli is typed, and what the screen shows becomes an SVG.
"""

from __future__ import annotations

import asyncio
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path

from rich.console import Console
from rich.text import Text

from pop3d.commands.demo import sample_messages
from pop3d.testing import serving

PICTURES = Path(__file__).parent / "pictures"
COLUMNS, ROWS = 100, 60
ACCOUNT = "pop3s://demo@mail.example.org"
SESSION = (("list",), ("show", "2"), ("delete", "1", "--yes"), ("stat",))


def on_screen(arguments: list[str], environment: dict[str, str]) -> str:
    """What a terminal shows when a program runs in it, escape sequences included."""
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    with subprocess.Popen(arguments, stdin=slave, stdout=slave, stderr=slave, env=environment) as process:
        os.close(slave)
        shown = b""
        try:
            while data := os.read(master, 65536):
                shown += data
        except OSError:  # the other end is closed
            pass
        if process.wait() != 0:
            raise SystemExit(f"{arguments} failed: {shown.decode()}")
    os.close(master)
    return shown.decode()


def session(port: int, certificate: Path) -> str:
    """Some commands, each behind a prompt."""
    environment = {**os.environ, "POP3CLI_PASSWORD": "secret", "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    shown = ""
    for command, *arguments in SESSION:
        typed = " ".join(["pop3cli", command, ACCOUNT, *arguments])
        real = [sys.executable, "-m", "pop3cli", command, f"pop3s://demo@localhost:{port}", *arguments]
        shown += f"\x1b[2m$\x1b[0m \x1b[1m{typed}\x1b[0m\n"
        shown += on_screen([*real, "--cacert", str(certificate)], environment) + "\n"
    return shown


async def shown_session() -> str:
    """The session of the README."""
    mail = [message.as_bytes() for message in sample_messages()]
    async with serving({"demo": mail}) as server:
        return await asyncio.to_thread(session, server.port, server.certificate)


def main() -> None:
    """Make them all."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(asyncio.run(shown_session()).replace("\r\n", "\n").rstrip()))
    picture = console.export_svg(title="pop3cli", unique_id="session")
    PICTURES.mkdir(exist_ok=True)
    # a picture that fetches no fonts: whoever reads the documentation asks nobody else for anything
    (PICTURES / "session.svg").write_text(re.sub(r"@font-face \{.*?\}\n", "", picture, flags=re.DOTALL))


if __name__ == "__main__":
    main()
