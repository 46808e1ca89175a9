"""The locale changes no path: whoever delivers, serves or looks, a user has one mailbox."""

import base64
import os
import poplib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.site import Daemon, Site

USER, BOX = "jürgen", "pöst/jürgen"
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def environment(**changes: str) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONUTF8"))}
    return {**others, "PYTHONPATH": str(Path(__file__).parents[2]), **changes}


def latin(folder: Path) -> list[dict[str, str]]:
    """An environment with a locale of ISO 8859-1, which is made for it; none without its sources (package locales)."""
    name = "de_DE.ISO-8859-1"
    if shutil.which("localedef") is None:
        return []
    made = subprocess.run(["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(folder / name)], capture_output=True)
    return [] if made.returncode else [environment(LOCPATH=str(folder), LC_ALL=name)]


@pytest.fixture
def abroad(site: Site, tmp_path: Path) -> Site:
    """A site in whose configuration no path is ASCII, nor its user's name."""
    folder = tmp_path / "büro"
    folder.mkdir()
    for file in ("cert.pem", "key.pem"):
        shutil.copy(tmp_path / file, folder)
    text = site.config.read_text().replace('path = "mail/{user}"', 'path = "pöst/{user}"')
    (folder / "pop3d.toml").write_text(f'state = "zustand-ß"\n{text}'.replace('users = "users"', 'users = "nützer"'))
    (folder / "nützer").write_text(f"{USER}:{{PLAIN}}secret\n")
    return Site(folder, site.port)


def pop3d(site: Site, env: dict[str, str], *words: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "pop3d", *words]
    return subprocess.run(command, input=stdin, env=env, capture_output=True, timeout=60)


def tree(site: Site) -> set[bytes]:
    """All folders, and files but for their changing names."""
    root = os.fsencode(site.root)
    return {os.path.relpath(folder, root) for folder, _, _ in os.walk(root)}


def delivered(site: Site, env: dict[str, str]) -> "subprocess.CompletedProcess[bytes]":
    # as an MTA hands them on, which knows octets alone
    return pop3d(site, env, "deliver", USER, "--config", str(site.config), stdin=b"Subject: x\n\nx\n")


def test_mail_is_delivered_to_the_same_octets(abroad: Site, tmp_path: Path) -> None:
    environments = [environment(LC_ALL="C.UTF-8"), environment(LC_ALL="C"), environment(**ASCII), *latin(tmp_path)]
    folders: list[set[bytes]] = []
    for env in environments:
        done = delivered(abroad, env)
        assert done.returncode == 0, done.stderr
        folders.append(tree(abroad))
        assert len(list((abroad.root / BOX / "new").iterdir())) == len(folders)
    assert folders == [folders[0]] * len(environments)


def test_all_that_serves_and_looks_has_the_same_octets(abroad: Site) -> None:
    env = environment(**ASCII)
    assert delivered(abroad, environment(LC_ALL="C.UTF-8")).returncode == 0
    config = ("--config", str(abroad.config))
    source = abroad.root / "quellé"
    source.write_bytes(b"From a@b Mon Nov 23 07:10:12 2026\nSubject: y\n\ny\n")
    imported = pop3d(abroad, env, "import", USER, str(source), *config)
    assert imported.returncode == 0, imported.stderr
    daemon = Daemon(abroad, env=env)
    try:
        client = poplib.POP3_SSL("localhost", abroad.port, context=abroad.context(), timeout=20)
        plain = base64.b64encode(f"\0{USER}\0secret".encode()).decode()
        client._shortcmd(f"AUTH PLAIN {plain}")  # type: ignore[attr-defined]
        assert client.stat()[0] == 2
        looked = pop3d(abroad, env, "mailbox", USER, *config)
        client.quit()
    finally:
        assert daemon.end() == 0
    assert f"user={USER} " in daemon.log
    assert BOX.encode() in looked.stdout, looked
    # neither the users file nor the state folder is elsewhere, and nobody fell over a name
    found = pop3d(abroad, env, "check", *config)
    assert b"Traceback" not in found.stderr and "zustand" not in found.stdout.decode("utf-8"), found
    assert all(name.decode("utf-8") for name in tree(abroad))
