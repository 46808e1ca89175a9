"""The filter for fail2ban, by fail2ban's own tool, on lines that pop3d wrote."""

import base64
import contextlib
import poplib
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.site import Daemon, Site

FILTER = Path(__file__).parents[2] / "examples/fail2ban/pop3d.conf"


@pytest.fixture
def matched(tmp_path: Path):
    """Runs the tool over a log; the address and name of each line that matched."""
    tool = shutil.which("fail2ban-regex")
    if tool is None:
        pytest.skip("fail2ban-regex is missing: apt-get install fail2ban")

    def run(log: str) -> list[str]:
        file = tmp_path / "pop3d.observe.log"
        file.write_text(log)
        result = subprocess.run(
            [tool, "--usedns", "no", "-o", "<ip>", str(file), str(FILTER)], capture_output=True, text=True, timeout=60
        )
        assert result.returncode in (0, 255), result.stderr  # 255: nothing matched
        return result.stdout.split()

    return run


NAMES = [
    b"alice",
    b"x ip=192.0.2.66 user=y",
    b'"}\n2026-11-23 07:10:12.101+00:00 WARNING authentication failed ip=192.0.2.66 user=y',
    b'\n{"time": "2026-11-23T07:10:12.101Z", "level": "warning", "event": "authentication failed", "ip": "192.0.2.6", ',
    "jörg\u2028\x1b[31m".encode(),
]


@pytest.mark.parametrize("form", ["text", "json"])
def test_fail2ban_finds_the_address_and_no_other(site: Site, matched, form: str) -> None:
    site.config.write_text(f'{site.config.read_text()}\n[log]\nformat = "{form}"\n[limits]\nauth_penalty = 0.1\n')
    site.maildir("alice", {})
    daemon = Daemon(site)
    try:
        for name in NAMES:
            client = poplib.POP3_SSL("localhost", site.port, context=site.context(), timeout=20)
            response = base64.b64encode(b"\0" + name + b"\0wrong")
            with contextlib.closing(client), pytest.raises(poplib.error_proto):
                client._shortcmd(f"AUTH PLAIN {response.decode()}")  # type: ignore[attr-defined]
        good = poplib.POP3_SSL("localhost", site.port, context=site.context(), timeout=20)
        good.user("alice")
        good.pass_("secret")
        good.quit()
        with contextlib.suppress(ssl.SSLError, OSError):
            poplib.POP3_SSL("localhost", site.port, context=ssl.create_default_context(), timeout=20)
    finally:
        assert daemon.end() == 0
    failures = daemon.log.count("authentication failed ip=127" if form == "text" else 'failed", "ip": "127')
    assert failures >= 2
    assert matched(daemon.log) == ["127.0.0.1"] * failures


def test_fail2ban_reads_the_journal_too(matched) -> None:
    # what fail2ban makes of a journal entry, with the journal's time before it
    line = "2026-11-23 07:10:12.101+00:00 WARNING authentication failed ip=2001:db8::7 user=root"
    older = line.replace(".101+00:00", ",101")  # as versions before had it
    assert matched(f"{older}\n") == ["2001:db8::7"]
    assert matched(f"Nov 23 07:10:12 host pop3d[17]: {line}\n{line}\n") == ["2001:db8::7"] * 2
