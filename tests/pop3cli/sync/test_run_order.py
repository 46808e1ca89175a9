"""The order in which sync asks the kernel for things, as strace sees it: what a power cut needs and no kill shows."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pop3cli.conftest import there
from tests.site import Site

CALLS = "trace=fsync,link,rename,write,ftruncate,mkdir"


def traced(site: Site, tmp_path: Path, destination: Path) -> list[str]:
    """The system calls of a sync that deletes, with the paths of descriptors; those of one thread in order."""
    log = tmp_path / "strace"
    account = f"pop3s://alice@localhost:{site.port}"
    command = ["strace", "-f", "-y", "-s", "4000", "-e", CALLS, "-o", log, sys.executable, "-m", "pop3cli", "sync"]
    options = ["--cacert", site.certificate, "--delete", "--state", tmp_path / "remembered"]
    environment = {**os.environ, "POP3CLI_PASSWORD": "secret"}
    ran = subprocess.run([*command, account, destination, *options], capture_output=True, timeout=120, env=environment)
    if b"ptrace" in ran.stderr:
        pytest.skip("strace may not trace here")
    assert ran.returncode == 0, ran.stderr
    return log.read_text(errors="replace").splitlines()


def position(calls: list[str], pattern: str, behind: int = -1) -> int:
    """Where the first call like this is, behind another one."""
    for number, call in enumerate(calls):
        if number > behind and re.search(pattern, call):
            return number
    raise AssertionError(f"{pattern} is not there behind {behind}")


pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def test_a_maildir(site: Site, box: Path, tmp_path: Path) -> None:
    out, state = tmp_path / "out", re.escape(str(tmp_path / "remembered"))
    calls = traced(site, tmp_path, out)
    assert not [call for call in calls if "rename(" in call]  # which replaces what is there
    named = [number for number, call in enumerate(calls) if re.search(r"\blink\(", call)]
    assert len(named) == 3
    begun = position(calls, rf'write\(\d+<{state}>, ".*run ')
    assert position(calls, rf"fsync\(\d+<{state}>", begun) < named[0]
    assert position(calls, rf"fsync\(\d+<{re.escape(str(tmp_path))}>") < named[0]  # the folder's own name
    for number in named:
        name = re.search(r"/out/tmp/([^\"]+)", calls[number])
        assert name is not None
        written = [n for n, call in enumerate(calls) if "write(" in call and f"/tmp/{name[1]}>" in call]
        synced = position(calls, rf"fsync\(\d+<[^>]*/out/tmp/{re.escape(name[1])}>")
        assert written[-1] < synced < number
    there_now = position(calls, rf"fsync\(\d+<{re.escape(str(out))}/new>", named[-1])
    recorded = position(calls, rf'write\(\d+<{state}>, ".*fetched ')
    durable = position(calls, rf"fsync\(\d+<{state}>", recorded)
    assert there_now < recorded < durable
    assert sent_behind(calls, durable)
    assert there(box) == set()


def test_an_mbox(site: Site, box: Path, tmp_path: Path) -> None:
    out, state = tmp_path / "mail.mbox", re.escape(str(tmp_path / "remembered"))
    calls = traced(site, tmp_path, out)
    announced = position(calls, rf'write\(\d+<{state}>, ".*append ')
    durable = position(calls, rf"fsync\(\d+<{state}>", announced)
    grown = position(calls, rf"write\(\d+<{re.escape(str(out))}>")
    synced = position(calls, rf"fsync\(\d+<{re.escape(str(out))}>", grown)
    recorded = position(calls, rf'write\(\d+<{state}>, ".*fetched .*appended ')
    written = position(calls, rf"write\(\d+<{re.escape(str(out))}>", synced)  # into the room, which is durable
    all_there = position(calls, rf"fsync\(\d+<{re.escape(str(out))}>", written)
    assert durable < grown < synced < written < all_there < recorded
    assert sent_behind(calls, position(calls, rf"fsync\(\d+<{state}>", recorded))
    assert there(box) == set()


def sent_behind(calls: list[str], number: int) -> bool:
    """Whether a line was written behind it that says what was deleted: told only when QUIT was answered."""
    return position(calls, r"write\(1.*3 deleted", number) > number
