"""Fixtures that tests of every part use."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from pop3d.auth.users_file import add_user
from pop3d.net.certificates import create_self_signed
from tests.site import Daemon, Site, free_port, site_configuration

if TYPE_CHECKING:
    from tests.postgres import Cluster

pytest.register_assert_rewrite("pop3d.store_contract")

# How long an example takes says what else the machine does, and is no fault: coverage alone makes one twice as slow.
settings.register_profile("pop3core", deadline=None)
settings.load_profile("pop3core")

# A shell that starts us in the background makes us deaf to Ctrl-C, and so would be every program that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def nothing_is_left_in_the_checkout() -> Iterator[None]:
    """A relative path, such as the default of `state`, leads into the folder that the tests are run from.

    With ``-n``, the tests that run beside the culprit at that moment fail as well. Names with a dot are those of tools.
    """
    before = set(os.listdir(ROOT))
    yield
    left = [name for name in os.listdir(ROOT) if name not in before and not name.startswith(".")]
    assert not left, f"{left} came into {ROOT} during this test; give what makes it a folder below tmp_path"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """User "alice" with the password "secret", not started."""
    port = free_port()
    create_self_signed(["localhost", "127.0.0.1"], tmp_path)
    add_user(tmp_path / "users", "alice", "secret", scheme="PLAIN")
    (tmp_path / "pop3d.toml").write_text(site_configuration(port))
    return Site(tmp_path, port)


@pytest.fixture
def daemon(site: Site) -> Iterator[Daemon]:
    """The site, served."""
    running = Daemon(site)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
        running.process.communicate()


@pytest.fixture
def run_pop3d():
    """Runs a pop3d command to its end: `run_pop3d("user", "add", ..., stdin="secret")`."""

    def run(*arguments: str, stdin: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pop3d", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=cwd,
        )

    return run


@pytest.fixture(scope="session")
def cluster() -> "Iterator[Cluster]":
    """A real PostgreSQL. Whoever stops it starts it again."""
    from tests.postgres import Cluster  # needs an extra

    try:
        running = Cluster()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    yield running
    running.close()


@pytest.fixture
def database(cluster: "Cluster") -> str:
    """The conninfo of a new database with our tables."""
    return cluster.database()
