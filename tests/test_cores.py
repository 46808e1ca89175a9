"""A program of ours that crashes leaves no core file, which could hold passwords; a library that is imported may."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

CRASH = "import os, signal; os.kill(os.getpid(), signal.SIGABRT)"
MAINS = {
    "pop3cli": f"import pop3cli.cli.app; pop3cli.cli.app.main = lambda: exec({CRASH!r})\n"
    "from pop3cli.__main__ import main; main()",
    "pop3d": f"import pop3d.cli; pop3d.cli.app = lambda **_: exec({CRASH!r})\npop3d.cli.main()",
}
FLAG = "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"  # PR_GET_DUMPABLE


def crashed(program: str, folder: Path) -> bool:
    """Whether a core was written for a process that was allowed to have one."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=folder,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (hard, hard)),
    )
    _, status = os.waitpid(process.pid, 0)
    process.returncode = 0
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGABRT
    return os.WCOREDUMP(status)


@pytest.mark.parametrize("name", MAINS)
def test_no_core_is_written(name: str, tmp_path: Path) -> None:
    if not crashed(CRASH, tmp_path):
        pytest.skip("no process writes a core here: ulimit -Hc, or kernel.core_pattern")
    assert not crashed(MAINS[name], tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
@pytest.mark.parametrize(
    ("program", "dumpable"),
    [
        ("import pop3cli, pop3d, pop3core, pop3cli.cli.app, pop3d.cli", "1"),
        ("from pop3cli.cli.process import no_core; no_core()", "0"),
        ("from pop3d.system.process import no_core; no_core()", "0"),
        ("from pop3d.auth.hashing import _begin_worker; _begin_worker()", "0"),
    ],
)
def test_only_programs_make_themselves_not_dumpable(program: str, dumpable: str) -> None:
    program = f"{program}\n{FLAG}; import sys; sys.stdout.flush(); import os; os._exit(0)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == dumpable
