"""The examples run, and are as short as they say."""

import ast
import contextlib
import importlib.util
import os
import poplib
import re
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from pop3core import Listing, ServerConfig, ServerConnection
from pop3core import events as e
from pop3core.answers import CommitFailed, Content, LoginAccepted, LoginRejected
from pop3d.net.certificates import create_self_signed
from tests.site import Daemon, Site

EXAMPLES = Path(__file__).parent.parent / "examples"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}  # the engine beside them, whatever is installed
MAIL = b"Subject: hello\r\n\r\nworld\r\nSubject: dots\r\n\r\n.\r\n..\r\n"  # both messages of the servers

needs_trio = pytest.mark.skipif(importlib.util.find_spec("trio") is None, reason="trio is not installed")
drivers = pytest.mark.parametrize("driver", ["blocking", "asyncio", pytest.param("trio", marks=needs_trio)])


@contextlib.contextmanager
def serving(name: str, *arguments: str) -> Iterator[int]:
    """An example that is a server, as a program; its port."""
    command = [sys.executable, EXAMPLES / name, "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline().split()[-1])
        finally:
            process.terminate()


@contextlib.contextmanager
def connected(port: int, password: str = "secret") -> Iterator[poplib.POP3]:
    """poplib, logged in."""
    with contextlib.closing(poplib.POP3("127.0.0.1", port, timeout=20)) as client:
        client.user("alice")
        client.pass_(password)
        yield client


def fetch(driver: str, port: int, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """An example that is a client, run to its end."""
    command = [sys.executable, EXAMPLES / f"{driver}_client.py", "--port", str(port), *arguments]
    return subprocess.run(command, capture_output=True, timeout=60, env=ENVIRONMENT)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost with its key, in one file."""
    folder = tmp_path_factory.mktemp("certificate")
    create_self_signed(["localhost"], folder)
    both = folder / "it.pem"
    both.write_bytes((folder / "cert.pem").read_bytes() + (folder / "key.pem").read_bytes())
    return both


def test_the_example_of_two_engines_prints_its_dialogue() -> None:
    command = [sys.executable, EXAMPLES / "two_engines.py"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, env=ENVIRONMENT)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "C: RETR 1" in lines
    assert "S: +OK 45 octets" in lines
    assert "S: .." in lines
    assert "   (the server removes (2,))" in lines
    assert lines[-1].startswith("   Replied(command=Quit(), ok=True")


def test_tiny_server() -> None:
    command = [sys.executable, EXAMPLES / "tiny_server.py", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().split()[-1])
            with contextlib.closing(poplib.POP3("127.0.0.1", port, timeout=20)) as client:
                client.user("alice")
                client.pass_("secret")
                assert client.stat() == (2, 49)
                assert client.retr(2)[1] == [b"Subject: dots", b"", b".", b".."]
                client.dele(1)
                client.quit()
            with contextlib.closing(poplib.POP3("127.0.0.1", port, timeout=20)) as client:
                client.user("alice")
                client.pass_("secret")
                assert client.uidl()[1] == [b"1 2"]
                client.quit()
        finally:
            process.terminate()


def test_the_tiny_server_has_forty_lines() -> None:
    source = (EXAMPLES / "tiny_server.py").read_text()
    tree = ast.parse(source)
    documented = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)
        for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    code = [number for number, line in enumerate(source.splitlines(), 1) if line.strip() and number not in documented]
    assert len(code) <= 40


@drivers
def test_a_server_serves_poplib(driver: str) -> None:
    with serving(f"{driver}_server.py") as port:
        with connected(port) as client:
            assert client.stat() == (2, 49)
            assert client.retr(2)[1] == [b"Subject: dots", b"", b".", b".."]
            assert client.top(1, 0)[1] == [b"Subject: hello", b""]
            with pytest.raises(poplib.error_proto, match="IN-USE"), connected(port):
                pass
            client.dele(1)
            client.quit()
        with connected(port) as client:
            assert client.uidl()[1] == [b"1 2"]
        with pytest.raises(poplib.error_proto, match="AUTH"), connected(port, "wrong"):
            pass


@drivers
def test_a_client_fetches_from_a_server_of_its_kind(driver: str) -> None:
    with serving(f"{driver}_server.py") as port:
        refused = fetch(driver, port, "--password", "wrong")
        assert refused.returncode == 1
        assert b"PASS: the password is secret" in refused.stderr
        for options in ([], ["--delete"]):
            result = fetch(driver, port, *options)
            assert (result.returncode, result.stdout, result.stderr) == (0, MAIL, b"")
        assert fetch(driver, port).stdout == b""


@drivers
def test_the_example_client_says_that_it_was_cut_off(driver: str) -> None:
    def say_hello_and_go() -> None:
        sock, _ = listener.accept()
        sock.sendall(b"+OK hello\r\n")
        sock.recv(100)
        sock.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=say_hello_and_go)
        thread.start()
        result = fetch(driver, listener.getsockname()[1])
        thread.join()
    assert result.returncode == 1
    assert result.stderr.strip() == b"the server went away"


@pytest.mark.parametrize("driver", ["blocking", "asyncio"])
def test_examples_serve_and_fetch_over_tls(driver: str, certificate: Path) -> None:
    with serving(f"{driver}_server.py", "--certificate", str(certificate)) as port:
        result = fetch(driver, port, "--cafile", str(certificate))
        assert (result.returncode, result.stdout, result.stderr) == (0, MAIL, b"")
        context = ssl.create_default_context(cafile=certificate)
        if driver == "asyncio":
            client: poplib.POP3 = poplib.POP3_SSL("localhost", port, timeout=20, context=context)
        else:
            client = poplib.POP3("localhost", port, timeout=20)
            with pytest.raises(poplib.error_proto, match="needs TLS first"):
                client.user("alice")
            client.stls(context)
            assert fetch(driver, port).returncode == 1
        with contextlib.closing(client):
            client.user("alice")
            client.pass_("secret")
            assert client.stat() == (2, 49)


@pytest.mark.parametrize("name", ["trio_server.py", "trio_client.py"])
def test_without_trio_it_says_what_to_install(name: str) -> None:
    text = (
        "import runpy, sys; sys.modules['trio'] = None; sys.path.insert(0, sys.argv[1]);"
        "runpy.run_path(sys.argv[1] + '/' + sys.argv[2])"
    )
    command = [sys.executable, "-c", text, str(EXAMPLES), name]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, env=ENVIRONMENT)
    assert (result.returncode, result.stderr) == (1, "this example needs trio: pip install trio\n")


def test_a_mailbox_is_copied(site: Site, daemon: Daemon, tmp_path: Path) -> None:
    site.maildir("alice", {f"cur/{n}.{'.' * n}:2,": b"Subject: %d\n\n..\n" % n for n in range(1, 4)})
    folder = tmp_path / "copies"
    folder.mkdir()

    def copy(*options: str) -> subprocess.CompletedProcess[str]:
        url = f"pop3s://alice@localhost:{site.port}"
        command = [sys.executable, EXAMPLES / "copy_mailbox.py", url, folder, "--cacert", site.certificate, *options]
        environment = {**ENVIRONMENT, "POP3_PASSWORD": "secret"}
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)

    first = copy()
    assert (first.returncode, first.stdout, first.stderr) == (0, "3 copied\n", "")
    mail = sorted(path.read_bytes() for path in folder.iterdir())
    assert mail == [b"Subject: %d\r\n\r\n..\r\n" % n for n in range(1, 4)]
    assert copy("--delete").stdout == "0 copied\n"
    assert not list((tmp_path / "mail/alice/cur").iterdir())
    daemon.end()
    refused = copy()
    assert refused.returncode == 1
    assert "Connection refused" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def dialogue(port: int, said: bytes) -> bytes:
    """All that a server answers to this, octet by octet, to the end of the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall(said)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65536), b""))


def test_the_proxy_says_what_the_server_behind_says() -> None:
    said = b"".join(
        line + b"\r\n"
        for line in (
            b"USER alice",
            b"PASS secret",
            *(b"STAT", b"LIST", b"LIST 2", b"UIDL", b"UIDL 1"),
            *(b"RETR 1", b"RETR 2", b"RETR 3", b"TOP 1 0", b"TOP 2 1", b"TOP 2 9", b"RETR 2"),
            *(b"DELE 1", b"RETR 1", b"STAT", b"RSET", b"LIST", b"NOOP", b"QUIT"),
        )
    )
    with serving("tiny_server.py") as upstream, serving("proxy.py", "--upstream", f"127.0.0.1:{upstream}") as port:
        direct = dialogue(upstream, said)
        assert direct.count(b"\r\n.\r\n") == 9
        assert dialogue(port, said) == direct
        assert dialogue(port, b"USER alice\r\nPASS wrong\r\nQUIT\r\n") == dialogue(
            upstream, b"USER alice\r\nPASS wrong\r\nQUIT\r\n"
        )


def test_what_is_deleted_at_the_proxy_is_deleted_behind_it_by_quit_only() -> None:
    with serving("tiny_server.py") as upstream, serving("proxy.py", "--upstream", f"127.0.0.1:{upstream}") as port:
        with connected(port) as client:
            client.dele(1)
        with connected(upstream) as client:
            assert client.stat()[0] == 2
        with connected(port) as client:
            client.dele(1)
            assert client.quit().startswith(b"+OK")
        with connected(upstream) as client:
            assert client.uidl()[1] == [b"1 2"]
        assert fetch("blocking", port, "--delete").stdout == b"Subject: dots\r\n\r\n.\r\n..\r\n"
        with connected(upstream) as client:
            assert client.stat() == (0, 0)


class Upstream(socketserver.BaseRequestHandler):
    """A server behind with one large message, that removes nothing; the user's name says what goes wrong."""

    PIECE = b"." + b"x" * 61 + b"\r\n"
    PIECES = 1_000_000
    sent: ClassVar[int] = 0

    def handle(self) -> None:
        conn = ServerConnection(ServerConfig(allow_plaintext=True))
        octets, name = len(self.PIECE) * self.PIECES, ""
        with contextlib.suppress(OSError):
            while not isinstance(event := conn.next_event(), e.Closed):
                match event:
                    case e.NeedData():
                        conn.receive_data(self.request.recv(4096))
                    case e.SendData(data):
                        self.request.sendall(data)
                        type(self).sent += len(data)
                    case e.LoginRequested(e.Password("delayed")):
                        conn.answer(LoginRejected("LOGIN-DELAY", "not so often"))
                    case e.LoginRequested(e.Password(name)):
                        conn.answer(LoginAccepted(Listing([octets, 2], [b"large", b"small"])))
                    case e.ContentRequested(_, offset) if name == "broken" and offset > 1_000_000:
                        return
                    case e.ContentRequested(_, 0) if name == "gone":
                        return
                    case e.ContentRequested(1, offset):
                        end = min(offset + 1000 * len(self.PIECE), octets)
                        conn.answer(Content(self.PIECE * ((end - offset) // len(self.PIECE)), last=end == octets))
                    case e.ContentRequested():
                        conn.answer(Content(b"\r\n", last=True))
                    case e.CommitRequested(numbers):
                        conn.answer(CommitFailed(numbers, "SYS/PERM"))


@pytest.fixture
def proxied() -> Iterator[int]:
    """The port of a proxy in front of `Upstream`."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Upstream) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        try:
            with serving("proxy.py", "--upstream", f"127.0.0.1:{server.server_address[1]}") as port:
                yield port
        finally:
            server.shutdown()


def test_the_proxy_tells_that_the_server_behind_did_not_commit(proxied: int) -> None:
    with connected(proxied) as client:
        client.dele(1)
        client.dele(2)
        with pytest.raises(poplib.error_proto, match=re.escape("-ERR [SYS/PERM] 2 of 2 deleted messages")):
            client.quit()


def test_the_proxy_reads_no_faster_than_its_client(proxied: int) -> None:
    Upstream.sent = 0
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        sock.settimeout(60)
        sock.connect(("127.0.0.1", proxied))
        sock.sendall(b"USER alice\r\nPASS secret\r\nRETR 1\r\n")
        before = -1
        while before != Upstream.sent or not before:  # until nothing moves any more
            before = Upstream.sent
            time.sleep(0.5)
        whole = len(Upstream.PIECE) * Upstream.PIECES
        assert 0 < before < whole // 2
        got, tail = 0, b""
        while not tail.endswith(b"\r\n.\r\n"):
            data = sock.recv(1 << 20)
            assert data
            got, tail = got + len(data), (tail + data)[-5:]
    assert got > whole + Upstream.PIECES  # a dot stuffed in each line


def test_the_proxy_passes_on_why_there_is_no_login(proxied: int) -> None:
    assert b"-ERR [LOGIN-DELAY] not so often\r\n" in dialogue(proxied, b"USER delayed\r\nPASS x\r\n")


def test_a_message_cut_off_behind_the_proxy_is_cut_off_before_it(proxied: int) -> None:
    answer = dialogue(proxied, b"USER broken\r\nPASS x\r\nRETR 1\r\n")
    assert b"+OK 64000000 octets\r\n" in answer
    assert b"\r\n.\r\n" not in answer


def test_a_server_behind_that_goes_ends_the_session(proxied: int) -> None:
    answer = dialogue(proxied, b"USER gone\r\nPASS x\r\nDELE 2\r\nRETR 1\r\nQUIT\r\n")
    assert answer.endswith(
        b"-ERR [SYS/TEMP] the server behind went away\r\n-ERR [SYS/TEMP] the server behind is gone; closing\r\n"
    )


def test_top_of_a_large_message_leaves_the_session_whole(proxied: int) -> None:
    with connected(proxied) as client:
        assert len(client.top(1, 0)[1]) == Upstream.PIECES  # no empty line: all of it is header
        assert client.retr(2)[1] == [b""]


def test_nobody_behind_the_proxy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with serving("proxy.py", "--upstream", f"127.0.0.1:{port}") as proxy:
        answer = dialogue(proxy, b"USER alice\r\nPASS x\r\nQUIT\r\n")
    assert b"-ERR [SYS/TEMP] the server behind cannot be reached\r\n+OK bye" in answer
