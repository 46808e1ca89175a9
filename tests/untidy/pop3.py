"""A POP3 server that does what servers do at their worst: it gives ids out again, loses its list, refuses, cuts.

`Server` is the mailbox, and lasts over sessions; `Faults` is what is to go wrong in the sessions of one run. It speaks
over one end of a socket pair, so that a run costs no port and no handshake.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(eq=False)
class Mail:
    """A message on the server. ``announced``: its size as LIST has it; ``hidden``: the server has lost it for now."""

    serial: int
    uid: str
    content: bytes
    announced: int
    hidden: bool = False

    @property
    def text(self) -> bytes:
        return self.content.replace(b"\r\n", b"\n")


@dataclass(frozen=True)
class Faults:
    """What goes wrong in one run. Commands are counted over all of its sessions, from 1.

    ``refused``: the so many-th RETR or DELE is answered -ERR. ``cut``: the connection ends at the so many-th command
    behind the login, of whose answer ``cut_behind`` octets leave. ``quit_update``: which of the marked messages QUIT
    removes, by their place; ``quit_reply``: what the first QUIT answers, "" for a cut.
    """

    refused: frozenset[tuple[str, int]] = frozenset()
    cut: int = 0
    cut_behind: int = 0
    quit_update: Callable[[int], bool] = lambda _: True
    quit_reply: bytes = b"+OK\r\n"
    pipelining: bool = True


@dataclass
class Server:
    """A mailbox. ``on_removal``: is told what our QUIT removes, before it is gone."""

    on_removal: Callable[[Mail], None]
    mails: list[Mail] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)
    listed: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Unique-id to serial and size, as the client has last noticed them; without ids that several messages have."""
    free: list[str] = field(default_factory=list)
    """Unique-ids whose messages are gone."""
    commands: dict[str, int] = field(default_factory=dict)

    def begin_run(self, faults: Faults) -> None:
        self.faults, self.commands = faults, {}

    def there(self) -> list[Mail]:
        return [mail for mail in self.mails if not mail.hidden]

    def passes_for_another(self, uid: str, serial: int, size: int) -> bool:
        """Whether no client could tell a message of this id and size from the one that it has seen under the id."""
        seen, seen_size = self.listed.get(uid, (serial, size))
        return seen != serial and seen_size == size

    def remove(self, mail: Mail) -> None:
        self.mails.remove(mail)
        if mail.uid not in {one.uid for one in self.mails}:
            self.free.append(mail.uid)

    async def serve(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            writer.write(b"+OK\r\n")
            session = _Session(self)
            while line := await reader.readline():
                answer, goes_on = session.answer(line.decode().split())
                writer.write(answer)
                await writer.drain()
                if not goes_on:
                    return
        except OSError:
            pass
        finally:
            writer.close()


class _Session:
    def __init__(self, server: Server) -> None:
        self.server = server
        self.mails = server.there()
        self.marked: list[Mail] = []
        self.noticed = False

    def answer(self, words: list[str]) -> tuple[bytes, bool]:
        """What is said to a command, and whether the session goes on."""
        keyword, faults, counts = words[0], self.server.faults, self.server.commands
        counts[keyword] = counts.get(keyword, 0) + 1
        if keyword == "CAPA":
            return b"+OK\r\nPIPELINING\r\n.\r\n" if faults.pipelining else b"+OK\r\n.\r\n", True
        if keyword in ("USER", "PASS"):
            return b"+OK\r\n", True
        counts[""] = counts.get("", 0) + 1
        cut = counts[""] == faults.cut
        if keyword in ("RETR", "TOP", "DELE", "QUIT") and not self.noticed:
            self.noticed = True  # what was listed was recorded before anything else was said
            uids = [mail.uid for mail in self.mails]
            self.server.listed = {
                mail.uid: (mail.serial, mail.announced) for mail in self.mails if uids.count(mail.uid) == 1
            }
        if cut and keyword == "QUIT" and not faults.cut_behind:
            return b"", False
        answer = self.do(keyword, words[1:], (keyword, counts[keyword]) in faults.refused)
        if cut:
            return answer[: faults.cut_behind], False
        return answer, keyword != "QUIT"

    def do(self, keyword: str, words: list[str], refused: bool) -> bytes:
        numbered = list(enumerate(self.mails, 1))
        match keyword:
            case "LIST":
                lines = [b"%d %d" % (number, mail.announced) for number, mail in numbered]
                return b"\r\n".join([b"+OK", *lines, b".", b""])
            case "UIDL":
                return b"\r\n".join([b"+OK", *(b"%d %s" % (n, mail.uid.encode()) for n, mail in numbered), b".", b""])
            case "QUIT":
                return self.quit()
            case _ if refused:
                return b"-ERR not that one\r\n"
            case "RETR":
                content = self.mails[int(words[0]) - 1].content
                return b"+OK\r\n" + content.replace(b"\r\n.", b"\r\n..") + b".\r\n"
            case "TOP":
                head, _, _ = self.mails[int(words[0]) - 1].content.partition(b"\r\n\r\n")
                return b"+OK\r\n" + head + b"\r\n\r\n.\r\n"
            case "DELE":
                self.marked.append(self.mails[int(words[0]) - 1])
                return b"+OK\r\n"
        raise AssertionError(keyword)

    def quit(self) -> bytes:
        first = self.server.commands["QUIT"] == 1
        for place, mail in enumerate(self.marked):
            if not first or self.server.faults.quit_update(place):
                self.server.on_removal(mail)
                self.server.remove(mail)
                self.server.listed.pop(mail.uid, None)  # whoever asks for a removal has to reckon with it
        return self.server.faults.quit_reply if first else b"+OK\r\n"
