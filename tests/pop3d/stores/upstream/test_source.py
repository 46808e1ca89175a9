"""A mailbox on another server as a source: what it tells, and what becomes of it when the connection is cut."""

import contextlib
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pop3d.net.certificates import create_self_signed
from pop3d.stores.arriving import MessageCut, SourceEnded, SourceUnusable
from pop3d.stores.upstream import source as sources
from pop3d.stores.upstream.source import Pop3Source, login_plan, password_of

BOX = [(b"one", b"Subject: 1\r\n\r\n.1\r\n"), (b"two", b"Subject: 2\r\n"), (b"three", b"Subject: 3\r\n" * 20_000)]


class Server:
    """One mailbox; ``cut``: octets of an answer to RETR after which the connection ends, for each of the next ones."""

    def __init__(self, folder: Path, box: list[tuple[bytes, bytes]]) -> None:
        self.box, self.cut, self.said = list(box), list[int](), list[bytes]()
        self.uidl, self.busy = True, 0
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"pop3s://alice@localhost:{self.listener.getsockname()[1]}"
        self.cacert = folder / "cert.pem"
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                with contextlib.suppress(OSError), self.tls.wrap_socket(sock, server_side=True) as wire:
                    self.talk(wire)

    def talk(self, wire: ssl.SSLSocket) -> None:
        box = list(self.box)
        wire.sendall(b"+OK hello\r\n")
        for line in wire.makefile("rb"):
            self.said.append(line.split()[0])
            answer = self.answer(line.split(), box)
            if line.startswith(b"RETR") and self.cut and (octets := self.cut.pop(0)) < len(answer):
                wire.sendall(answer[:octets])
                return
            wire.sendall(answer)

    def answer(self, words: list[bytes], box: list[tuple[bytes, bytes]]) -> bytes:
        match words:
            case [b"CAPA"]:
                return b"+OK\r\nUSER\r\nUIDL\r\nPIPELINING\r\n.\r\n"
            case [b"LIST"]:
                sizes = (b"%d %d\r\n" % (number, len(text)) for number, (_, text) in enumerate(box, 1))
                return b"+OK\r\n" + b"".join(sizes) + b".\r\n"
            case [b"UIDL"] if self.uidl:
                uids = (b"%d %b\r\n" % (number, uid) for number, (uid, _) in enumerate(box, 1))
                return b"+OK\r\n" + b"".join(uids) + b".\r\n"
            case [b"RETR", number]:
                text = box[int(number) - 1][1]
                if not text:
                    return b"-ERR it is\x1b[2J gone\r\n"
                return b"+OK\r\n" + text.replace(b"\r\n.", b"\r\n..") + b".\r\n"
            case [b"USER", _]:
                return b"+OK\r\n"
            case [b"PASS", b"secret"]:
                self.busy -= 1
                return b"+OK\r\n" if self.busy < 0 else b"-ERR [IN-USE] busy\r\n"
            case _:
                return b"-ERR no\r\n"

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(5)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    create_self_signed(["localhost"], tmp_path)
    monkeypatch.setattr(sources, "_PAUSES", (0.0, 0.0))
    monkeypatch.setattr(sources, "_OPENINGS", (0.0, 0.0, 0.0))
    server = Server(tmp_path, BOX)
    yield server
    server.close()


@contextlib.contextmanager
def opened(server: Server, password: bytes = b"secret") -> Iterator[Pop3Source]:
    source = Pop3Source(login_plan(server.url, lambda: password, cacert=server.cacert))
    try:
        yield source
    finally:
        source.close()


def read(source: Pop3Source, done: set[bytes]) -> list[tuple[bytes | None, bytes]]:
    """Unique-id and text of all that come whole, as an import takes them."""
    found = []
    for message in source.messages(done):
        with contextlib.suppress(MessageCut):
            found.append((message.uid, b"".join(message.content())))
            done.add(message.key)
    return found


STORED = [(uid, text.replace(b"\r\n", b"\n")) for uid, text in BOX]


def test_messages_come_with_their_ids_and_nothing_is_deleted(server: Server) -> None:
    with opened(server) as source:
        done: set[bytes] = set()
        assert read(source, done) == STORED
        assert (source.progress, source.total, source.failed, source.remarks) == (3, 3, [], [])
        assert source.identity == server.url
    with opened(server) as source:
        server.box.append((b"four", b"Subject: 4\r\n"))
        assert read(source, done) == []
    with opened(server) as source:
        assert read(source, done) == [(b"four", b"Subject: 4\n")]
    assert not {b"DELE", b"QUIT"} & set(server.said)
    assert server.said.count(b"RETR") == 4


@pytest.mark.parametrize("octets", [0, 3, 20, 100_000])
def test_a_connection_that_is_cut_is_made_anew(server: Server, octets: int) -> None:
    server.cut = [10**9, 10**9, octets]
    with opened(server) as source:
        assert read(source, set()) == STORED
        assert source.total == source.progress == 3


def test_numbers_may_be_others_behind_a_cut(server: Server) -> None:
    server.cut = [10**9, 5]
    with opened(server) as source:
        done: set[bytes] = set()
        messages = source.messages(done)
        first = next(messages)
        assert b"".join(first.content()) == STORED[0][1]
        del server.box[0]  # by another client
        found = []
        for message in messages:
            with contextlib.suppress(MessageCut):
                found.append((message.uid, b"".join(message.content())))
        assert found == STORED[1:]


def test_a_server_that_always_cuts_is_given_up(server: Server) -> None:
    server.cut = [10**9] + [5] * 50
    with opened(server) as source:
        done: set[bytes] = set()
        with pytest.raises(
            SourceEnded, match=r"localhost port \d+: the server went away during RETR; try again"
        ) as caught:
            read(source, done)
    assert (len(done), caught.value.status) == (1, 69)


def test_what_nobody_took_to_its_end_is_read_away(server: Server) -> None:
    server.box.append((b"four", b"Subject: 4\r\n"))
    with opened(server) as source:
        found = []
        for message in source.messages(()):
            content = iter(message.content())
            found.append(next(content)[:10] if message.uid == b"three" else b"".join(content)[:10])
    assert found == [b"Subject: 1", b"Subject: 2", b"Subject: 3", b"Subject: 4"]


def test_messages_without_an_id_of_their_own_are_known_by_content(server: Server) -> None:
    server.box = [(b"same", b"a\r\n"), (b"same", b"b\r\n"), (b"same", b"a\r\n"), (b"own", b"c\r\n")]
    with opened(server) as source:
        done: set[bytes] = set()
        assert read(source, done) == [(b"same", b"a\n"), (b"same", b"b\n"), (b"same", b"a\n"), (b"own", b"c\n")]
        assert len(done) == 4
    server.box.append((b"same", b"d\r\n"))
    server.cut = [10**9, 3]
    with opened(server) as source:
        assert read(source, done) == [(b"same", b"d\n")]
    server.uidl = False
    with opened(server) as source:
        assert read(source, set()) == [(None, b"a\n"), (None, b"b\n"), (None, b"a\n"), (None, b"c\n"), (None, b"d\n")]
        assert source.remarks[0].startswith(f"{server.url}: it has no unique-ids (")


def test_a_message_that_the_server_refuses_is_told(server: Server) -> None:
    server.box[1] = (b"two", b"")
    with opened(server) as source:
        assert read(source, set()) == [STORED[0], STORED[2]]
        assert source.failed == [f"{server.url} message 2: it is?[2J gone"]


def test_who_is_not_let_in(server: Server, tmp_path: Path) -> None:
    with pytest.raises(SourceUnusable, match="login") as caught, opened(server, b"wrong"):
        pass
    assert caught.value.status == 77
    (tmp_path / "other").mkdir()
    create_self_signed(["localhost"], tmp_path / "other")
    server.cacert = tmp_path / "other" / "cert.pem"
    with pytest.raises(SourceUnusable, match="not signed by anyone trusted") as caught, opened(server):
        pass
    assert caught.value.status == 77
    with pytest.raises(SourceUnusable, match="no user in it") as caught:
        login_plan("pop3s://localhost", lambda: b"")
    assert caught.value.status == 2
    with pytest.raises(SourceUnusable, match="a password in the account's URL"):
        login_plan("pop3s://alice:secret@localhost", lambda: b"")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(SourceUnusable, match="is the server running") as caught:
        Pop3Source(login_plan(f"pop3://alice@127.0.0.1:{port}", lambda: b"secret"))
    assert caught.value.status == 69


def test_a_mailbox_that_is_in_use_for_a_moment(server: Server) -> None:
    server.busy = 2
    with opened(server) as source:
        assert read(source, set()) == STORED
    server.busy = 3
    with pytest.raises(SourceUnusable, match="busy") as caught, opened(server):
        pass
    assert caught.value.status == 75


def test_where_a_password_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_PASSWORD", "from the environment")
    assert password_of("echo from a command", "SOME_PASSWORD", "alice") == b"from a command"
    assert password_of(None, "SOME_PASSWORD", "alice") == b"from the environment"
    monkeypatch.delenv("SOME_PASSWORD")
    with pytest.raises(
        SourceUnusable, match="no terminal to ask at; give --password-command CMD, or set SOME_PASSWORD"
    ):
        password_of(None, "SOME_PASSWORD", "alice")
    with pytest.raises(SourceUnusable, match="false ended with status 1") as caught:
        password_of("false", "SOME_PASSWORD", "alice")
    assert caught.value.status == 78


def test_host_names_need_no_file_of_python_later() -> None:
    """The codec is loaded before root becomes a user who need not be able to read Python's library."""
    code = (
        "import pop3d.stores.upstream.source, socket, sys; before = set(sys.modules);"
        "socket.getaddrinfo('localhost', 995); assert set(sys.modules) <= before, set(sys.modules) - before"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
