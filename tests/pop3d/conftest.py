"""Sites of another user than root's."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pop3d.net.certificates import create_self_signed
from tests.site import Site


@pytest.fixture
def open_site() -> Iterator[Site]:
    """A site in folders that everybody can reach, of the user number 12345."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        create_self_signed(["localhost"], root)
        (root / "users").write_text("alice:{PLAIN}x\nbob:{PLAIN}x\n")
        (root / "users").chmod(0o640)
        (root / "pop3d.toml").write_text(
            'hostname = "localhost"\nuser = "#12345"\ngroup = "#12345"\n[[listen]]\nport = 0\n'
            '[tls]\ncertificate = "cert.pem"\nprivate_key = "key.pem"\n'
        )
        site = Site(root, 0)
        for user in ("alice", "bob"):
            site.maildir(user, {"new/1.host": b"1\n", "cur/2.host:2,": b"2\n"})
        for path in (root / "mail", *(root / "mail").rglob("*")):
            os.chown(path, 12345, 12345)
        for name in ("users", "key.pem"):
            os.chown(root / name, 0, 12345)
        (root / "key.pem").chmod(0o640)
        yield site
