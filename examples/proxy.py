"""A POP3 proxy for loopback: a server engine towards the client, a client engine towards the server behind it.

python examples/proxy.py --port 8110 --upstream localhost:110
python examples/proxy.py --port 8110 --upstream pop.example.org:995 --tls

The client's password logs in upstream, and what upstream's LIST and UIDL say is the listing. The server engine answers
the rest itself and asks only for content, which is read from upstream no faster than the client takes it, and for the
commit: DELE for each marked message, then QUIT. A client that goes without QUIT ends upstream without one as well.
"""

import argparse
import contextlib
import socket
import socketserver
import ssl
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator

from pop3core import ClientConfig, ClientConnection, Listing, ServerConfig, ServerConnection
from pop3core import events as e
from pop3core.answers import (
    CommitFailed,
    Committed,
    Content,
    ContentFailed,
    LoginAccepted,
    LoginRejected,
    Pending,
    ServerAnswer,
    TlsEstablished,
)
from pop3core.commands import Capa, Command, Dele, List, Pass, Quit, Retr, Top, Uidl, User
from pop3core.errors import LocalProtocolError, RemoteProtocolError
from pop3core.maildrop import is_unique_id

SECONDS = 600  # RFC 1939 §3: no server is less patient
AHEAD = 100  # commands queued in the engine, which sends as many of them ahead as upstream lets it
READ_OCTETS = 16384  # upstream's content comes in pieces of about this size: the engine takes 64 KiB at most


class UpstreamFault(Exception):
    """Upstream refuses the login, or is of no use. ``code``: a response code; None where the password is at fault."""

    def __init__(self, text: str, code: str | None) -> None:
        super().__init__(text)
        self.code = code


class Upstream:
    """The session with the server behind."""

    def __init__(self, sock: socket.socket, *, tls: bool) -> None:
        self._sock = sock
        self._conn = ClientConnection(ClientConfig(allow_plaintext=True))
        if tls:
            self._conn.answer(TlsEstablished())
        self._reading: Command | None = None  # a RETR or TOP whose content is not at its end

    def close(self) -> None:
        """Go without QUIT: upstream removes nothing."""
        self._sock.close()

    def _event(self, *, wait: bool = True) -> e.ClientEvent:
        """What upstream says next; `NeedData` only when nothing has come and ``wait`` is False."""
        try:
            while True:
                match event := self._conn.next_event():
                    case e.SendData(data):
                        self._sock.sendall(data)
                    case e.NeedData() if wait:
                        self._conn.receive_data(self._sock.recv(READ_OCTETS))
                    case e.Greeted(False, code, text):
                        raise UpstreamFault(text, code or "SYS/TEMP")
                    case e.Disconnected(expected=False):
                        raise UpstreamFault("the server behind went away", "SYS/TEMP")
                    case _:
                        return event
        except (OSError, RemoteProtocolError):
            raise UpstreamFault("the server behind does not answer", "SYS/TEMP") from None

    def _run(self, commands: Iterable[Command]) -> Iterator[e.ClientEvent]:
        """Say ``commands``, some ahead of their replies, and hear all that is said until the last is answered."""
        waiting = deque(commands)
        while True:
            while waiting and self._conn.waiting < AHEAD:
                self._conn.send(waiting.popleft())
            event = self._event(wait=self._conn.waiting + self._conn.unanswered > 0)
            if isinstance(event, e.NeedData | e.Disconnected):
                return
            yield event

    def log_in(self, name: str, password: bytes) -> Listing:
        """What upstream has for this user."""
        sizes: list[int] = []
        uids: list[bytes] = []
        for event in self._run((User(name), Pass(password), Capa(), List(), Uidl())):
            match event:
                case e.Replied(User() | Pass(), False, code, text):
                    raise UpstreamFault(text, None if code == "AUTH" else code)
                case e.Replied(List() | Uidl(), False, code, text):
                    raise UpstreamFault(text, code or "SYS/PERM")
                case e.ListItem(number, octets) if number == len(sizes) + 1:
                    sizes.append(octets)
                case e.UidItem(number, uid) if number == len(uids) + 1 and is_unique_id(uid.encode()):
                    uids.append(uid.encode())
                case e.ListItem() | e.UidItem():
                    raise UpstreamFault("the server behind lists messages in no order", "SYS/PERM")
        if len(sizes) != len(uids):
            raise UpstreamFault("the server behind lists other messages by LIST than by UIDL", "SYS/PERM")
        return Listing(sizes, uids)

    def content(self, number: int, lines: int | None, *, flushed: bool) -> ServerAnswer:
        """The next piece of a message. Not ``flushed``: what the client is to get first should leave before a wait."""
        if self._reading is None:
            self._reading = Retr(number) if lines is None else Top(number, lines)
            self._conn.send(self._reading)
        while True:
            match self._event(wait=flushed):
                case e.NeedData():
                    return Pending()
                case e.ContentReceived(data):
                    return Content(data, last=False)
                case e.ContentEnded():
                    self._reading = None
                    return Content(b"", last=True)
                case e.Replied(_, False, code, text):
                    self._reading = None
                    return ContentFailed(code, text)

    def drop(self) -> None:
        """Read the rest of a message that the client does not want."""
        while self._reading is not None:
            if isinstance(self._event(), e.ContentEnded):
                self._reading = None

    def commit(self, numbers: Collection[int]) -> ServerAnswer:
        """Delete, and quit: only upstream's word that it has removed all is passed on."""
        left: set[int] = set()
        code = "SYS/TEMP"
        for event in self._run((*map(Dele, numbers), Quit())):
            match event:
                case e.Replied(Dele(number), False, said, _):
                    left.add(number)
                    code = said or code
                case e.Replied(Quit(), False, said, _):
                    return CommitFailed(numbers, said or code)  # nobody knows which
        return CommitFailed(left, code) if left else Committed()


class Session(socketserver.BaseRequestHandler):
    """One connection of a client, and the one upstream that belongs to it once there was a login."""

    upstream: Upstream | None = None

    def handle(self) -> None:
        """Do what the engine says until it is closed."""
        # upstream is not asked for UTF8, so it is not offered
        conn = ServerConnection(ServerConfig("localhost", allow_plaintext=True, utf8=False))
        self.request.settimeout(SECONDS)
        with contextlib.suppress(OSError):  # the client went, or said nothing for too long
            while not isinstance(event := conn.next_event(), e.Closed):
                match event:
                    case e.NeedData():
                        conn.receive_data(self.request.recv(4096))
                    case e.SendData(data):
                        self.request.sendall(data)
                    case _:
                        self.relay(conn, event)

    def finish(self) -> None:
        """Whatever happened, nothing is left open upstream."""
        if self.upstream is not None:
            self.upstream.close()

    def relay(self, conn: ServerConnection, event: e.ServerEvent) -> None:
        """Answer the engine's question with what upstream says."""
        try:
            match event:
                case e.LoginRequested(credential):
                    conn.answer(LoginAccepted(self.log_in(credential)))
                case e.ContentRequested(number, _, lines) if self.upstream:
                    conn.answer(self.upstream.content(number, lines, flushed=not conn.unsent))
                case e.ContentDropped() if self.upstream:
                    self.upstream.drop()
                case e.CommitRequested(numbers) if self.upstream:
                    conn.answer(self.upstream.commit(numbers))
        except UpstreamFault as fault:
            match event:
                case e.LoginRequested():
                    conn.answer(LoginRejected(fault.code, str(fault)))
                    return  # the client may try again: each login has a connection of its own
                case e.ContentRequested():
                    conn.answer(ContentFailed(fault.code, str(fault)))
                case e.CommitRequested(numbers):
                    conn.answer(CommitFailed(numbers, "SYS/TEMP"))
            conn.finish("the server behind is gone")

    def log_in(self, credential: e.Credential) -> Listing:
        """Open a session upstream."""
        if not isinstance(credential, e.Password) or credential.authzid not in ("", credential.username):
            raise UpstreamFault("only a user name and a password can be passed on", None)
        self.finish()  # the one that was refused before
        assert isinstance(self.server, Proxy)
        try:
            self.upstream = self.server.connect()
            return self.upstream.log_in(credential.username, credential.secret)
        except OSError:
            raise UpstreamFault("the server behind cannot be reached", "SYS/TEMP") from None
        except LocalProtocolError:  # AUTH PLAIN can say names that USER cannot
            raise UpstreamFault("the server behind takes no such name or password", None) from None


class Proxy(socketserver.ThreadingTCPServer):
    """Listens; ``connect`` opens a connection upstream."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int, connect: Callable[[], Upstream]) -> None:
        super().__init__(("127.0.0.1", port), Session)
        self.connect = connect


def main() -> None:
    """Listen until interrupted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8110)
    parser.add_argument("--upstream", required=True, metavar="HOST:PORT")
    parser.add_argument("--tls", action="store_true", help="TLS to the server behind, from the first octet")
    options = parser.parse_args()
    host, _, port = options.upstream.rpartition(":")

    def connect() -> Upstream:
        sock = socket.create_connection((host, int(port)), timeout=SECONDS)
        if options.tls:
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=host)
        return Upstream(sock, tls=options.tls)

    with Proxy(options.port, connect) as server:
        print("listening on 127.0.0.1 port", server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
