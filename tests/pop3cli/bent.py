"""A small POP3 server that is honest, and can be bent in one place at a time: a method overridden is a fault."""

from __future__ import annotations

import asyncio
import ssl
from typing import ClassVar

PASSWORD = b"s e c r e t"
MAIL = (
    b"Subject: one\r\n\r\nfirst\r\n.dot\r\n..\r\nlast\r\n",
    b"Subject: two\r\nFrom: bob@example.org\r\n\r\n1\r\n2\r\n3\r\n4\r\n",
    b"Subject: three\r\n\r\n",
)
OK, ERR, BYE = b"+OK\r\n", b"-ERR no\r\n", b"+OK bye\r\n"


def stuffed(content: bytes) -> bytes:
    lines = content.split(b"\r\n")[:-1]
    return b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines) + b".\r\n"


class Bent:
    """One mailbox for anyone who knows the password. Each connection is a `Talk`, of this class's ``talk``."""

    def __init__(self, talk: type[Talk] | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.talk, self.tls = talk or Talk, tls
        self.mail = dict(enumerate(MAIL, 1))
        self.sessions = 0
        self.open = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sessions += 1
        talk = self.talk(self, reader, writer, self.sessions)
        try:
            await talk.run()
        finally:
            self.open -= talk.inside


class Talk:
    """One connection. ``do_x``: what is said to the command X; None hangs up."""

    greeting: ClassVar[bytes] = b"+OK hello\r\n"
    everywhere: ClassVar[tuple[str, ...]] = ("TOP", "UIDL", "RESP-CODES", "PIPELINING", "EXPIRE 30", "LOGIN-DELAY 0")
    outside: ClassVar[tuple[str, ...]] = ("USER", "SASL PLAIN", "UTF8", "LANG")
    line_max: ClassVar[int] = 255

    def __init__(self, site: Bent, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.site, self.reader, self.writer, self.number = site, reader, writer, number
        self.inside = False
        self.names = dict(site.mail)
        self.marked: set[int] = set()
        self.secure = site.tls is None
        self.buffer = b""

    async def run(self) -> None:
        self.writer.write(self.greeting)
        while (line := await self.line()) is not None:
            reply = await self.answer(line)
            self.writer.write(reply or b"")
            await self.writer.drain()
            if reply is None or line.upper() == b"QUIT":
                return

    async def line(self) -> bytes | None:
        while b"\n" not in self.buffer:
            if not (data := await self.reader.read(65536)):
                return None
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.removesuffix(b"\r")

    async def answer(self, line: bytes) -> bytes | None:
        if len(line) + 2 > self.line_max:
            return b"-ERR too long\r\n"
        keyword, *words = line.split(b" ")
        name = keyword.decode("ascii", "replace").upper()
        if name == "PASS":
            return self.do_pass(line[5:])
        if name == "AUTH":
            return await self.auth(words)
        if name == "STLS":
            return await self.stls(words)
        if not name.isalnum() or name not in self.commands():
            return b"-ERR unknown command\r\n"
        return getattr(self, f"do_{name.lower()}")(*words) if self.fits(name, words) else b"-ERR usage\r\n"

    def commands(self) -> set[str]:
        inside = {"STAT", "LIST", "UIDL", "RETR", "TOP", "DELE", "NOOP", "RSET"}
        return {"CAPA", "QUIT", *(inside if self.inside else {"USER", "UTF8", "LANG"})}

    def fits(self, name: str, words: list[bytes]) -> bool:
        least, most = {"USER": (1, 1), "LANG": (0, 1), "LIST": (0, 1), "UIDL": (0, 1)}.get(name, (0, 0))
        if name in ("RETR", "DELE"):
            least = most = 1
        if name == "TOP":
            least = most = 2
        numbers = name not in ("USER", "LANG")
        return least <= len(words) <= most and (not numbers or all(w.isdigit() and len(w) <= 10 for w in words))

    # --- before the login ---

    def capabilities(self) -> tuple[str, ...]:
        return self.everywhere if self.inside else (*self.outside, *self.everywhere)

    def do_capa(self) -> bytes:
        stls = () if self.secure else ("STLS",)
        return b"+OK\r\n" + b"".join(f"{one}\r\n".encode() for one in (*self.capabilities(), *stls)) + b".\r\n"

    def do_user(self, _name: bytes) -> bytes:
        return OK

    def do_pass(self, password: bytes) -> bytes:
        if self.inside or password != PASSWORD:
            return b"-ERR [AUTH] no\r\n"
        return self.enter()

    def enter(self) -> bytes:
        if self.site.open:
            return b"-ERR [IN-USE] in use\r\n"
        self.site.open += 1
        self.inside = True
        return OK

    async def auth(self, words: list[bytes]) -> bytes | None:
        if [word.upper() for word in words] != [b"PLAIN"] or self.inside:
            return b"-ERR no such mechanism\r\n"
        self.writer.write(b"+ \r\n")
        await self.line()
        return b"-ERR [AUTH] no\r\n"

    async def stls(self, words: list[bytes]) -> bytes | None:
        if self.secure or words or self.site.tls is None:
            return b"-ERR no\r\n"
        self.before_handshake()
        self.writer.write(OK)
        await self.writer.drain()
        await self.writer.start_tls(self.site.tls)
        self.secure = True
        return b""

    def before_handshake(self) -> None:
        self.buffer = b""

    def do_utf8(self) -> bytes:
        return OK

    def do_lang(self, tag: bytes | None = None) -> bytes:
        if tag is None:
            return b"+OK\r\nen English\r\nde Deutsch\r\n.\r\n"
        return OK if tag in (b"en", b"de", b"*") else ERR

    def do_quit(self) -> bytes:
        if self.inside:
            self.commit()
        self.site.open -= self.inside
        self.inside = False
        return BYE

    def commit(self) -> None:
        for number in self.marked:
            del self.site.mail[number]

    # --- behind it ---

    def there(self) -> list[int]:
        """Names (lasting ones) of messages by their place; a message's number is its place, from 1."""
        return list(self.names)

    def name(self, word: bytes) -> int | None:
        place = int(word) - 1
        names = self.there()
        return names[place] if 0 <= place < len(names) and names[place] not in self.marked else None

    def size(self, name: int) -> int:
        return len(self.names[name])

    def listing(self) -> list[tuple[int, int]]:
        return [(place, name) for place, name in enumerate(self.there(), 1) if name not in self.marked]

    def do_stat(self) -> bytes:
        return b"+OK %d %d\r\n" % (len(self.listing()), sum(self.size(name) for _, name in self.listing()))

    def do_list(self, word: bytes | None = None) -> bytes:
        if word is None:
            lines = b"".join(b"%d %d\r\n" % (place, self.size(name)) for place, name in self.listing())
            return b"+OK\r\n" + lines + b".\r\n"
        name = self.name(word)
        return ERR if name is None else b"+OK %d %d\r\n" % (int(word), self.size(name))

    def uid(self, name: int) -> bytes:
        return b"uid-%d" % name

    def do_uidl(self, word: bytes | None = None) -> bytes:
        if word is None:
            lines = b"".join(b"%d %s\r\n" % (place, self.uid(name)) for place, name in self.listing())
            return b"+OK\r\n" + lines + b".\r\n"
        name = self.name(word)
        return ERR if name is None else b"+OK %d %s\r\n" % (int(word), self.uid(name))

    def do_retr(self, word: bytes) -> bytes:
        name = self.name(word)
        return ERR if name is None else b"+OK\r\n" + stuffed(self.names[name])

    def do_top(self, word: bytes, count: bytes) -> bytes:
        name = self.name(word)
        if name is None:
            return ERR
        head, _, body = self.names[name].partition(b"\r\n\r\n")
        lines = body.split(b"\r\n")[:-1][: int(count)]
        return b"+OK\r\n" + stuffed(b"".join(line + b"\r\n" for line in (head, b"", *lines)))

    def do_dele(self, word: bytes) -> bytes:
        name = self.name(word)
        if name is None:
            return ERR
        self.marked.add(name)
        return OK

    def do_noop(self) -> bytes:
        return OK

    def do_rset(self) -> bytes:
        self.marked.clear()
        return OK
