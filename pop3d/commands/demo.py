"""`pop3d demo`: a server to try, complete with certificate, user and mail, that leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import shutil
import sys
import tempfile
from email.message import EmailMessage
from pathlib import Path

from rich.console import Console

from pop3d.assembly import assemble
from pop3d.auth.users_file import add_user
from pop3d.commands.serve import Ending
from pop3d.config import Config
from pop3d.errors import CommandError
from pop3d.exit_status import ExitStatus
from pop3d.net.certificates import create_self_signed
from pop3d.observe.log import configure
from pop3d.server import ListenError

__all__ = ["demo", "sample_messages"]

_HOST = "127.0.0.1"
_USER = "demo"


def demo(port: int, *, once: bool) -> int:
    """Serve a sample mailbox on loopback until Ctrl-C; ``once``: until one pop3cli session is done. The exit status."""
    configure("warning" if once else "info")
    with tempfile.TemporaryDirectory(prefix="pop3d-demo-") as folder:
        return asyncio.run(_demo(Path(folder), port, once=once))


async def _demo(folder: Path, port: int, *, once: bool) -> int:
    password = secrets.token_urlsafe(9)
    certificate, private_key = create_self_signed([_HOST, "localhost"], folder)
    users = folder / "users"
    add_user(users, _USER, password)
    _fill(folder / "mail" / _USER)
    config = Config.model_validate(
        {
            "hostname": "localhost",
            "state": folder / "state",
            "listen": [{"host": _HOST, "port": port}],
            "tls": {"certificate": certificate, "private_key": private_key},
            "auth": {"users": users},
            "store": {"path": str(folder / "mail" / "{user}")},
            "limits": {"connections": 100},
        }
    )
    server = assemble(config)
    ending = None if once else Ending()
    try:
        await server.start()
    except ListenError as fault:
        raise CommandError(f"{fault} with --port", ExitStatus.UNAVAILABLE) from None
    (_, bound), *_ = server.addresses
    trial = _Trial(password, certificate, bound)
    if ending is not None:
        trial.explain()
        await ending.wait_and_drain(server, drain_timeout=1)
        return 0
    try:
        return await trial.run()
    finally:
        await server.drain(1)


class _Trial:
    """The lines to try."""

    def __init__(self, password: str, certificate: Path, port: int) -> None:
        self._password, self._certificate, self._port = password, certificate, port
        beside = Path(sys.executable).parent / "pop3cli"
        self._pop3cli = str(beside) if beside.exists() else shutil.which("pop3cli") or "pop3cli"
        self._account = f"pop3s://{_USER}@{_HOST}:{port}"

    def _arguments(self, command: str, *arguments: str) -> list[str]:
        return [self._pop3cli, command, self._account, *arguments, "--cacert", str(self._certificate)]

    def explain(self) -> None:
        console = Console(highlight=False, soft_wrap=True)
        console.print(f"[bold green]POP3S is served on {_HOST} port {self._port}[/], with a mailbox of sample mail.")
        console.print("From another terminal:\n")
        for command, *arguments in (("list",), ("show", "2"), ("shell",)):
            line = shlex.join(self._arguments(command, *arguments))
            console.print(f"  [cyan]POP3CLI_PASSWORD={self._password} {line}[/]")
        curl = ["curl", "--cacert", str(self._certificate), "--user", f"{_USER}:{self._password}"]
        console.print(f"  [cyan]{shlex.join([*curl, f'pop3s://{_HOST}:{self._port}/1'])}[/]\n")
        console.print("Ctrl-C ends it, and everything made for it is removed.")

    async def run(self) -> int:
        """One session with pop3cli, shown; its exit status."""
        arguments = self._arguments("list")
        Console(highlight=False, soft_wrap=True).print(f"[cyan]$ {shlex.join(arguments)}[/]")
        environment = {**os.environ, "POP3CLI_PASSWORD": self._password}
        process = await asyncio.create_subprocess_exec(*arguments, env=environment)
        return await process.wait()


def _fill(maildir: Path) -> None:
    for folder in ("tmp", "cur", "new"):
        (maildir / folder).mkdir(parents=True)
    for number, message in enumerate(sample_messages(), 1):
        (maildir / "new" / f"170000000{number}.M{number}P1.localhost").write_bytes(message.as_bytes())


def sample_messages() -> list[EmailMessage]:
    """What the demonstration's mailbox holds."""
    welcome = _message("Postmaster <postmaster@example.org>", "Welcome to POP3 done right", 1)
    welcome.set_content("This mailbox is a sample. Look around, retrieve, delete: it is made anew each time.\n")
    dots = _message("Jörg Müller <joerg@example.org>", "Lines that begin with a dot ✓", 2)
    dots.set_content(".\n..\nA line of one dot ends a POP3 reply, so such lines get one more on the way.\n.hidden\n")
    report = _message("Reports <reports@example.org>", "Monthly figures, with an attachment", 3)
    report.set_content("The figures are attached.\n")
    report.add_alternative("<p>The <b>figures</b> are attached.</p>\n", subtype="html")
    table = "\n".join(f"{month:02d};{month * 1000}" for month in range(1, 13)).encode()
    report.add_attachment(table, maintype="text", subtype="csv", filename="figures.csv")
    return [welcome, dots, report]


def _message(sender: str, subject: str, day: int) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, f"{_USER}@example.org", subject
    message["Date"] = f"Mon, 0{day} Jan 2024 09:00:00 +0000"
    message["Message-ID"] = f"<{day}@example.org>"
    return message
