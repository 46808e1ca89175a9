"""Makes the pictures of the documentation: `python docs/make_pictures.py`.

Real programs in a real terminal: pop3d serves sample mail, pop3cli is typed, and what the screen shows becomes an SVG.
A command that this pop3cli does not have is left out.
"""

from __future__ import annotations

import asyncio
import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
from fcntl import ioctl
from pathlib import Path

import typer.main
from rich.console import Console
from rich.text import Text

from pop3cli.cli.app import app
from pop3d.commands.demo import sample_messages
from pop3d.testing import serving

PICTURES = Path(__file__).parent / "pictures"
COLUMNS, ROWS = 100, 60
ACCOUNT = "pop3s://demo@mail.example.org"
DESTINATION = "DEST"  # stands for a folder
SHOWN: dict[str, tuple[tuple[str, ...], ...]] = {
    "session": (("list",), ("show", "2"), ("delete", "1", "--yes"), ("stat",)),
    "list": (("list",), ("stats", "--top", "3")),
    "show": (("show", "3"), ("show", "2")),
    "shell": (("shell",),),
    "sync": (("sync", DESTINATION), ("sync", DESTINATION)),
    "check": (("check",),),
    "doctor": (("doctor",),),
}
"""Commands of each picture."""
MUCH = {"sync": 4000}
"""Further messages, each of 42 KiB, so that there is time for a bar."""
TYPED = ("stat", "list 1", "explain", "top 2 0", "dele 1", "retr 1", "raw noop please", "quit")
"""What is typed into the shell."""
PROGRAM = "import sys; sys.modules['prompt_toolkit'] = None; from pop3cli.cli.app import main; main()"
"""pop3cli without the library that redraws its prompt: a picture has no cursor that moves."""
LINE = b"%s\n" % (b"x" * 70)
TAKEN_AWAY = "\r\x1b[1A\x1b[2K"
DRAWN_AGAIN = "\r\x1b[2K"
SECONDS = 60.0


def on_screen(arguments: list[str], environment: dict[str, str], typed: tuple[str, ...] = ()) -> str:
    """What a terminal shows when a program runs in it, escape sequences included. ``typed``: a line for each prompt."""
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    lines, shown, seen = list(typed), b"", 0
    with subprocess.Popen(arguments, stdin=slave, stdout=slave, stderr=slave, env=environment) as process:
        os.close(slave)
        try:
            while select.select([master], [], [], SECONDS)[0] and (data := os.read(master, 65536)):
                shown += data
                if lines and b"> " in shown[seen:]:
                    seen = len(shown) + len(lines[0])
                    os.write(master, f"{lines.pop(0)}\r".encode())
        except OSError:  # the other end is closed
            pass
        if process.wait(SECONDS) != 0:
            raise SystemExit(f"{arguments} failed: {shown.decode()}")
    os.close(master)
    return half_way(re.sub(r"\x1b\[\?[0-9]+[hl]", "", shown.decode()))


def half_way(shown: str) -> str:
    """The text of a terminal with a bar that is drawn again and again: once, half way, above what came in its place."""
    drawn, gone, rest = shown.rpartition(TAKEN_AWAY)
    if not gone:
        return shown
    each = drawn.split(DRAWN_AGAIN)
    return f"{each[len(each) // 2]}\r\n{rest}"


def dialogue(name: str, port: int, certificate: Path, folder: str) -> str:
    """The commands of a picture, each behind a prompt."""
    environment = {**os.environ, "POP3CLI_PASSWORD": "secret", "TERM": "xterm-256color", "XDG_STATE_HOME": folder}
    environment.pop("NO_COLOR", None)
    real, shown = f"pop3s://demo@localhost:{port}", ""
    for command, *arguments in SHOWN[name]:
        typed = " ".join(["pop3cli", command, ACCOUNT, *arguments]).replace(DESTINATION, "~/Mail")
        words = [command, real, *(f"{folder}/Mail" if word == DESTINATION else word for word in arguments)]
        words = [sys.executable, "-c", PROGRAM, *words, "--cacert", str(certificate)]
        shown += f"\x1b[2m$\x1b[0m \x1b[1m{typed}\x1b[0m\n"
        shown += on_screen(words, environment, TYPED if command == "shell" else ()) + "\n"
    shown = shown.replace(f"{folder}/Mail", "~/Mail").replace(f" port {port}", "")
    # in a table the longer name takes from the blanks behind it
    return re.sub(r"localhost( [^\r\n]*? ) {7}|localhost", r"mail.example.org\1", shown)


async def shown_in(name: str) -> str:
    """A picture's text, from a server of its own."""
    mail = [message.as_bytes() for message in sample_messages()]
    mail += [b"Subject: %d\n\n%s" % (number, LINE * 600) for number in range(MUCH.get(name, 0))]
    with tempfile.TemporaryDirectory(prefix="pictures-") as folder:
        async with serving({"demo": mail}) as server:
            return await asyncio.to_thread(dialogue, name, server.port, server.certificate, folder)


def make(name: str) -> str:
    """A picture, as SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(asyncio.run(shown_in(name)).replace("\r\n", "\n").rstrip()))
    picture = console.export_svg(title="pop3cli", unique_id=name)
    # some programs drop blanks at the beginning of a text, fixed ones too
    picture = picture.replace("<svg ", '<svg xml:space="preserve" ', 1)
    # a picture that fetches no fonts: whoever reads the documentation asks nobody else for anything
    return re.sub(r"@font-face \{.*?\}\n", "", picture, flags=re.DOTALL)


def main() -> None:
    """Make them all."""
    there = set(getattr(typer.main.get_command(app), "commands", {}))
    PICTURES.mkdir(exist_ok=True)
    for name, commands in SHOWN.items():
        if {command for command, *_ in commands} <= there:
            (PICTURES / f"{name}.svg").write_text(make(name))


if __name__ == "__main__":
    main()
