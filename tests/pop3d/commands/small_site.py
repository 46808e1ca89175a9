"""A site of one user, for commands that bring mail, which run as processes."""

import subprocess
import sys
from pathlib import Path

CONFIGURATION = (
    'state = "state"\n[[listen]]\nhost = "127.0.0.1"\nport = 0\ntls = "none"\n'
    '[store]\npath = "mail/{user}"\nquota_messages = 4\ndeleted = "deleted/{user}"\n'
)


def small_site(folder: Path) -> Path:
    """Made in ``folder``, which is returned: alice may have four messages, and what she deletes is kept."""
    (folder / "pop3d.toml").write_text(CONFIGURATION)
    (folder / "users").write_text("alice:{PLAIN}secret\n")
    return folder


def run(site: Path, *arguments: str | Path, stdin: bytes = b"") -> tuple[int, str, str]:
    """Exit status, standard output and standard error of ``pop3d`` there."""
    command = [sys.executable, "-m", "pop3d", *arguments, "--config", site / "pop3d.toml"]
    result = subprocess.run(command, input=stdin, capture_output=True, timeout=60)
    return result.returncode, result.stdout.decode(), result.stderr.decode()
