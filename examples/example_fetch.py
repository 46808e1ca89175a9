"""What the clients of these examples want: log in, write every message to stdout, quit. Knows no network.

The driver gives each event that is not about the network to `Fetch.heard`, which says what to send next.
"""

import argparse
import sys
from collections.abc import Iterator

from pop3core import ClientConnection
from pop3core.commands import Capa, Command, Dele, Pass, Quit, Retr, Stat, User
from pop3core.events import ClientEvent, ContentEnded, ContentReceived, Greeted, Replied, StatItem

AHEAD = 32  # messages asked for before the first has come; the engine sends ahead only where the server lets it


def arguments(text: str | None) -> argparse.ArgumentParser:
    """The options that each client has."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8110)
    parser.add_argument("--user", default="alice")
    parser.add_argument("--password", default="secret")
    parser.add_argument("--delete", action="store_true", help="delete what was fetched")
    return parser


class Fetch:
    """The wishes of one session. ``refused``: what the server said no to."""

    def __init__(self, conn: ClientConnection, options: argparse.Namespace) -> None:
        self.refused: list[str] = []
        self._conn = conn
        self._delete: bool = options.delete
        self._wishes: Iterator[Command] = iter(())
        self._unfinished = 0  # messages of which the end has not come
        for command in (Capa(), User(options.user), Pass(options.password.encode()), Stat()):
            conn.send(command)  # all at once: each waits for its turn

    def heard(self, event: ClientEvent) -> None:
        """Take what the server said."""
        match event:
            case Greeted(False, _, text):
                self.refused.append(text)
            case StatItem(messages, _):
                self._wishes, self._unfinished = map(Retr, range(1, messages + 1)), messages
                for _ in range(AHEAD):
                    self._next()
                if not messages:
                    self._conn.send(Quit())
            case ContentReceived(data):
                sys.stdout.buffer.write(data)
            case ContentEnded(Retr(number)):  # only now is the message whole
                if self._delete:
                    self._conn.send(Dele(number))
                self._one_less()
            case Replied(Capa(), False):
                pass  # an old server: it has nothing to announce
            case Replied(command, False, _, text):
                self.refused.append(f"{command.keyword}: {text}")
                if isinstance(command, Retr):
                    self._one_less()
                elif not isinstance(command, Dele | Quit):
                    self._conn.send(Quit())

    def _one_less(self) -> None:
        self._next()
        self._unfinished -= 1
        if not self._unfinished:
            self._conn.send(Quit())

    def _next(self) -> None:
        for command in self._wishes:
            self._conn.send(command)
            return
