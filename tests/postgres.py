"""A PostgreSQL of the tests' own: its cluster in a folder, reached by a socket in it."""

import itertools
import os
import shutil
import subprocess
import tempfile
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
    """Raises FileNotFoundError when PostgreSQL is not installed."""

    def __init__(self) -> None:
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
        self.start()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._binaries / program), *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, user=self._user, cwd=self.folder, timeout=60)

    def start(self) -> None:
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-D", self.data, "-o", options, "-l", self.folder / "log")

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-w", "-D", self.data, "-m", "fast")

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

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
