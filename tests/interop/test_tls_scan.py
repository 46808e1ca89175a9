"""What a scanner of TLS finds (sslyze): nothing."""

import json
import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.site import Daemon, Site

ROOT = Path(__file__).parent.parent.parent
BAD = ("CBC", "RC4", "3DES", "NULL", "EXPORT", "anon", "MD5")


def scanner() -> str:
    """The program, where it may be: it wants versions of libraries that are not ours, so it has a venv of its own."""
    places = [os.environ.get("SSLYZE", ""), shutil.which("sslyze") or "", str(ROOT / ".venv-sslyze/bin/sslyze")]
    found = next((place for place in places if place and Path(place).exists()), None)
    if found is None:
        pytest.skip("sslyze is missing: python3 -m venv .venv-sslyze && .venv-sslyze/bin/pip install sslyze")
    return found


def scanned(program: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run([program, "--json_out=-", *arguments], capture_output=True, text=True, timeout=120)
    report = json.loads(done.stdout[done.stdout.index("{") :])
    (server,) = report["server_scan_results"]
    assert server["scan_status"] == "COMPLETED", server
    return server["scan_result"]


@pytest.mark.parametrize("stls", [False, True], ids=["pop3s", "stls"])
def test_a_scan_of_tls_finds_nothing(site: Site, stls: bool) -> None:
    program = scanner()
    if stls:
        text = site.config.read_text().replace("[[listen]]", '[[listen]]\ntls = "starttls"')
        site.config.write_text(text)
    daemon = Daemon(site)
    # hundreds of connections have more lines of the log than a pipe holds
    reader = threading.Thread(target=daemon.process.stderr.read)
    reader.start()
    try:
        found = scanned(program, *(("--starttls=pop3",) if stls else ()), f"localhost:{site.port}")
    finally:
        daemon.send(signal.SIGTERM)
        reader.join(20)
        status = daemon.process.wait(20)
        daemon.process.stderr.close()
    assert status == 0
    results = {name: attempt["result"] for name, attempt in found.items() if attempt and attempt.get("result")}
    for version in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"):
        assert results[f"{version}_cipher_suites"]["accepted_cipher_suites"] == [], version
    for version in ("tls_1_2", "tls_1_3"):
        suites = [
            suite["cipher_suite"]["name"] for suite in results[f"{version}_cipher_suites"]["accepted_cipher_suites"]
        ]
        assert suites
        for suite in suites:
            assert "GCM" in suite or "CHACHA20_POLY1305" in suite, suite
            assert version == "tls_1_3" or "_ECDHE_" in suite or "_DHE_" in suite, suite
            assert not any(word in suite for word in BAD), suite
    assert results["heartbleed"]["is_vulnerable_to_heartbleed"] is False
    assert results["openssl_ccs_injection"]["is_vulnerable_to_ccs_injection"] is False
    assert results["robot"]["robot_result"].startswith("NOT_VULNERABLE")
    assert results["session_renegotiation"]["is_vulnerable_to_client_renegotiation_dos"] is False
    assert results["session_renegotiation"]["supports_secure_renegotiation"] is True
    assert results["tls_compression"]["supports_compression"] is False
    assert results["tls_fallback_scsv"]["supports_fallback_scsv"] is True
