"""Certificates as certbot keeps them, where only root may look; and the way from there to a pop3d that is not root."""

import os
import poplib
import shutil
import signal
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pki import Authority
from tests.site import Daemon, Site, free_port

HOOK = Path(__file__).parents[2] / "examples/certbot/pop3d-deploy.sh"
USER = 12345

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, whose files certbot's are")


class Certbot:
    """A folder like /etc/letsencrypt: ``live`` has links into ``archive``, both closed to all but root."""

    def __init__(self, root: Path) -> None:
        self.root, self.number = root, 0
        self.lineage = root / "live/localhost"
        self.archive = root / "archive/localhost"
        for folder in (root, root / "live", root / "archive"):
            folder.mkdir(mode=0o755 if folder == root else 0o700)
        for folder in (self.lineage, self.archive):
            folder.mkdir(mode=0o755)
        self.authority = Authority(root / "ca", "root")
        self.issuer = Authority(root / "ca", "issuer", self.authority)

    def write(self) -> None:
        """The files of the next certificate; the links do not lead there yet."""
        self.number += 1
        own, key = self.issuer.issue("own", dns=["localhost"])
        chain = self.issuer.certificate.read_bytes()
        for name, octets, mode in (
            ("cert", own.read_bytes(), 0o644),
            ("chain", chain, 0o644),
            ("fullchain", own.read_bytes() + chain, 0o644),
            ("privkey", key.read_bytes(), 0o600),
        ):
            path = self.archive / f"{name}{self.number}.pem"
            path.write_bytes(octets)
            path.chmod(mode)

    def switch(self, *names: str) -> None:
        """Let links lead to the newest files, one after the other."""
        for name in names:
            link = self.lineage / f"{name}.pem"
            link.unlink(missing_ok=True)  # as certbot does
            link.symlink_to(f"../../archive/localhost/{name}{self.number}.pem")

    def renew(self) -> bytes:
        """All of it; the new certificate as DER."""
        self.write()
        self.switch("cert", "privkey", "chain", "fullchain")
        return ssl.PEM_cert_to_DER_cert((self.lineage / "cert.pem").read_text())


@pytest.fixture
def certbot() -> Iterator[Certbot]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Certbot(Path(folder) / "letsencrypt")


@pytest.fixture
def site(certbot: Certbot) -> Site:
    """Served from a root's start by another user; ``certificate`` and ``private_key`` are for the test to say."""
    root = certbot.root.parent
    (root / "users").write_text("alice:{PLAIN}secret\nbob:{PLAIN}secret\n")
    (root / "users").chmod(0o640)
    os.chown(root / "users", 0, USER)
    made = Site(root, free_port())
    for user in ("alice", "bob"):
        made.maildir(user, {"new/1.host": b"Subject: 1\n\n1\n"})
    for path in (root / "mail", *(root / "mail").rglob("*")):
        os.chown(path, USER, USER)
    return made


def configure(site: Site, folder: Path) -> None:
    site.config.write_text(
        f'hostname = "localhost"\nuser = "#{USER}"\ngroup = "#{USER}"\n'
        f'[[listen]]\nhost = "127.0.0.1"\nport = {site.port}\n'
        f'[tls]\ncertificate = "{folder}/fullchain.pem"\nprivate_key = "{folder}/privkey.pem"\n'
    )


def log_in(site: Site, certbot: Certbot, user: str) -> poplib.POP3_SSL:
    """By a client that verifies, and has the root only."""
    context = ssl.create_default_context(cafile=certbot.authority.certificate)
    client = poplib.POP3_SSL("localhost", site.port, context=context, timeout=20)
    client.user(user)
    client.pass_("secret")
    return client


def shown(site: Site, certbot: Certbot) -> bytes:
    client = log_in(site, certbot, "bob")
    assert isinstance(client.sock, ssl.SSLSocket)
    own = client.sock.getpeercert(binary_form=True)
    client.quit()
    assert own is not None
    return own


def deploy(certbot: Certbot, site: Site, reload: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The hook, as certbot runs it."""
    ours = {"POP3D_TLS": f"{site.root}/tls", "POP3D_GROUP": str(USER), "POP3D_RELOAD": reload}
    lineage = {"RENEWED_LINEAGE": str(certbot.lineage), "RENEWED_DOMAINS": "localhost"}
    return subprocess.run(
        ["sh", HOOK], env={**os.environ, **ours, **lineage, **environment}, capture_output=True, text=True, timeout=60
    )


def test_the_hook_takes_each_renewal_to_new_connections(certbot: Certbot, site: Site) -> None:
    first = certbot.renew()
    assert deploy(certbot, site, "true").returncode == 0
    folder = site.root / "tls/localhost"
    configure(site, folder)
    daemon = Daemon(site)
    try:
        session = log_in(site, certbot, "alice")
        assert shown(site, certbot) == first
        for _ in range(2):
            new = certbot.renew()
            done = deploy(certbot, site, f"kill -HUP {daemon.process.pid}")
            assert (done.returncode, done.stderr) == (0, "")
            daemon.wait_for("certificate reloaded")
            assert shown(site, certbot) == new
            assert session.stat()[0] == 1  # which began before both
        session.quit()
        assert "not reloaded" not in daemon.log
        assert sorted(path.name for path in folder.iterdir()) == ["fullchain.pem", "privkey.pem"]
        for path, mode in ((site.root / "tls", 0o750), (folder, 0o750), (folder / "privkey.pem", 0o640)):
            found = path.stat()
            assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (0, USER, mode), path
    finally:
        assert daemon.end() == 0


def test_a_hook_that_fails_leaves_the_old_pair_whole(certbot: Certbot, site: Site) -> None:
    certbot.renew()
    assert deploy(certbot, site, "true").returncode == 0
    folder = site.root / "tls/localhost"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    certbot.renew()
    (certbot.lineage / "fullchain.pem").unlink()
    assert deploy(certbot, site, "true").returncode != 0
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert "certbot names here" in deploy(certbot, site, "true", RENEWED_LINEAGE="").stderr


def test_without_the_hook_each_attempt_says_what_is_missing(certbot: Certbot, site: Site) -> None:
    first = certbot.renew()
    configure(site, certbot.lineage)
    daemon = Daemon(site)  # as root it could read them
    try:
        session = log_in(site, certbot, "alice")
        for _ in range(2):
            certbot.renew()
            daemon.log = ""
            daemon.send(signal.SIGHUP)
            daemon.wait_for("users reloaded")
            lines = [line for line in daemon.log.splitlines() if "certificate not reloaded, the old one stays" in line]
            assert len(lines) == 2
            assert "fullchain.pem: Permission denied; user 12345 cannot enter" in lines[0]
            assert "privkey.pem: Permission denied; user 12345 cannot enter" in lines[1]
            assert all(f"{certbot.root}/live: let certbot's deploy hook copy" in line for line in lines)
            assert "cert create" not in daemon.log
            assert shown(site, certbot) == first
        assert session.stat()[0] == 1
        session.quit()
    finally:
        assert daemon.end() == 0


def test_links_that_are_switched_one_by_one_are_taken_when_they_fit(certbot: Certbot, site: Site) -> None:
    """Where the folders were opened to the mail's user, and pop3d is told in between."""
    for path in (certbot.root / "live", certbot.root / "archive"):
        path.chmod(0o755)
    first = certbot.renew()
    os.chown(certbot.archive / "privkey1.pem", 0, USER)
    (certbot.archive / "privkey1.pem").chmod(0o640)
    configure(site, certbot.lineage)
    daemon = Daemon(site)
    try:
        session = log_in(site, certbot, "alice")
        for number in (2, 3):
            certbot.write()
            os.chown(certbot.archive / f"privkey{number}.pem", 0, USER)  # certbot keeps group and mode
            (certbot.archive / f"privkey{number}.pem").chmod(0o640)
            certbot.switch("cert", "privkey")
            daemon.send(signal.SIGHUP)
            daemon.wait_for("does not belong to certificate")
            assert shown(site, certbot) == first
            certbot.switch("chain", "fullchain")
            daemon.send(signal.SIGHUP)
            daemon.wait_for("certificate reloaded")
            new = ssl.PEM_cert_to_DER_cert((certbot.lineage / "cert.pem").read_text())
            assert shown(site, certbot) == new != first
            first = new
        assert session.stat()[0] == 1
        session.quit()
    finally:
        assert daemon.end() == 0


def test_systemd_takes_the_credentials(tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is missing: apt-get install systemd")
    unit = tmp_path / "pop3d.service"
    unit.write_text(
        (HOOK.parents[1] / "systemd/pop3d.service").read_text().replace("/usr/local/bin/pop3d ", "/bin/sh ")
    )
    (tmp_path / "pop3d.service.d").mkdir()
    shutil.copy(HOOK.with_name("credentials.conf"), tmp_path / "pop3d.service.d")
    done = subprocess.run([tool, "verify", "--man=no", unit], capture_output=True, text=True, timeout=60)
    ours = [line for line in done.stderr.splitlines() if "pop3d" in line]
    assert (done.returncode, ours) == (0, [])
