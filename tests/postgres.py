"""A PostgreSQL of the tests' own: its cluster in a folder, reached by a socket in it."""

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

import psycopg

ROOT = Path(__file__).parent.parent
SCHEMA = (ROOT / "examples/postgres/schema.sql").read_text()


def binaries() -> Path | None:
    """Where initdb and postgres are; None when they are not installed."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[4]))
    return folders[-1].parent if folders else None


class Cluster:
    """``listen``: an address to be reached by as well. Raises FileNotFoundError when PostgreSQL is not installed."""

    def __init__(self, listen: str = "") -> None:
        self._listen = listen
        found = binaries()
        if found is None:
            raise FileNotFoundError("PostgreSQL is not installed (Debian: apt install postgresql)")
        self._binaries = found
        self._user = "nobody" if os.geteuid() == 0 else None  # it does not run as root
        self.folder = Path(tempfile.mkdtemp(prefix="pop3d-pg-"))
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        self._numbers = itertools.count(1)
        self._run("initdb", "--pgdata", self.data, "--username", "owner", "--auth", "trust", "--encoding", "UTF8")
        if listen:
            with (self.data / "pg_hba.conf").open("a") as file:
                file.write("host all all samenet trust\n")
        self.start()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._binaries / program), *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, user=self._user, cwd=self.folder, timeout=60)

    def start(self) -> None:
        options = f"-c listen_addresses={self._listen} -c unix_socket_directories={self.folder} -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-D", self.data, "-o", options, "-l", self.folder / "log")

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-w", "-D", self.data, "-m", "fast")

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    @property
    def socket(self) -> Path:
        return self.folder / ".s.PGSQL.5432"

    def conninfo(self, database: str) -> str:
        return f"host={self.folder} user=owner dbname={database}"

    def database(self) -> str:
        """The conninfo of a new database with our tables."""
        name = f"mail{next(self._numbers)}"
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as connection:
            connection.execute(f"create database {name}".encode())
        with psycopg.connect(self.conninfo(name)) as connection:
            connection.execute(SCHEMA.encode())
        return self.conninfo(name)


class _Way:
    """One connection through a `Relay`. While an event is not set, what goes that way is held back."""

    def __init__(self, client: socket.socket, server: socket.socket, relay: "Relay") -> None:
        self.client, self.server, self.relay = client, server, relay
        self.requests, self.answers = threading.Event(), threading.Event()
        self.silence(relay.silent)
        self._pumps = [
            threading.Thread(target=self._pump, args=(client, server, self.requests), daemon=True),
            threading.Thread(target=self._pump, args=(server, client, self.answers), daemon=True),
        ]
        for pump in self._pumps:
            pump.start()

    def silence(self, silent: bool) -> None:
        for event in (self.requests, self.answers):
            event.clear() if silent else event.set()

    def _pump(self, source: socket.socket, to: socket.socket, passes: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                last = self.relay.last_request
                if source is self.client and last is not None and last in data.lower():
                    self.answers.clear()
                passes.wait()
                to.sendall(data)
        passes.wait()
        self._shut()

    def _shut(self) -> None:
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._shut()
        self.silence(False)
        for pump in self._pumps:
            pump.join()
        self.client.close()
        self.server.close()


class Relay:
    """The way to a cluster, on a TCP port of loopback: it can fall silent, and all connections stay open then.

    ``silent``: whether new connections are, too. ``last_request``: no answer comes to what has this in it, nor later.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._socket = str(cluster.socket)
        self._ways: list[_Way] = []
        self._changing = threading.Lock()  # a connection that is just made falls silent with the others
        self.silent = False
        self.last_request: bytes | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._socket)
                with self._changing:
                    self._ways.append(_Way(client, server, self))

    def conninfo(self, direct: str) -> str:
        """The same database, by this way."""
        port = self._listener.getsockname()[1]
        return " ".join(["host=127.0.0.1", f"port={port}", *(w for w in direct.split() if not w.startswith("host="))])

    def freeze(self) -> None:
        """The connections there are fall silent; new ones go through."""
        with self._changing:
            self._silence(True)

    def _silence(self, silent: bool) -> None:
        for way in self._ways:
            way.silence(silent)

    def down(self) -> None:
        """All fall silent."""
        with self._changing:
            self.silent = True
            self._silence(True)

    def up(self, *, thaw: bool = False) -> None:
        """New connections go through; those there are too, with what was held back, if they ``thaw``."""
        with self._changing:
            self.silent, self.last_request = False, None
            if thaw:
                self._silence(False)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for way in self._ways:
            way.close()


def execute(conninfo: str, query: str, *parameters: object) -> list[tuple[object, ...]]:
    """The rows of one statement, committed at once."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        cursor = connection.execute(query.encode(), parameters)
        return cursor.fetchall() if cursor.description else []
