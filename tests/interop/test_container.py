"""As in a container: process 1, a user without a name, no capability, a read-only root, mail in layers of overlayfs."""

import contextlib
import os
import poplib
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.site import Daemon, Site

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("setpriv") is None,
    reason="namespaces of its own: needs root, unshare and setpriv (Debian: apt install util-linux)",
)

NUMBER = 1000650000
ALONE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
AS_NOBODY = [
    "setpriv",
    f"--reuid={NUMBER}",
    f"--regid={NUMBER}",
    "--clear-groups",
    "--inh-caps=-all",
    "--bounding-set=-all",
]
MOUNTS = """
for folder in "$1/mail" "$1/state"; do mount --bind "$folder" "$folder"; done
mount -t tmpfs tmpfs /mnt
mount -o remount,ro,bind /
mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"
for folder in "$1/mail" "$1/state"; do mount --bind "$folder" "$folder"; mount -o remount,rw,bind "$folder"; done
mkdir /mnt/upper /mnt/work
chown --reference="$1/mail" /mnt/upper
mount -t overlay overlay -o "lowerdir=$1/mail,upperdir=/mnt/upper,workdir=/mnt/work" "$1/mail"
cp -p "$1/mail/alice/new/1700000000.M1P1.host" "$1/mail/alice/new/1700000001.M2P1.host"
shift
exec "$@"
"""


def test_it_serves_and_ends_as_process_1_with_a_read_only_root(site: Site, tmp_path: Path) -> None:
    if subprocess.run([*AS_NOBODY, sys.executable, "-c", "import pop3d"], capture_output=True).returncode:
        pytest.skip(f"{sys.executable} is where only its owner can read it; make the venv elsewhere")
    site.maildir("alice", {"new/1700000000.M1P1.host": b"Subject: hello\n\nhello\n"})
    (tmp_path / "state").mkdir()
    text = site.config.read_text().replace('user = "root"', f'user = "#{NUMBER}"\ngroup = "#{NUMBER}"\nstate = "state"')
    site.config.write_text(text)
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, NUMBER, NUMBER)
    for above in tmp_path.parents[:2]:  # pytest's own, which nobody else may enter
        above.chmod(0o755)
    prefix = [*ALONE, "--", "sh", "-ec", MOUNTS, "sh", str(tmp_path), *AS_NOBODY]
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no namespaces of its own here: {tried.stderr}")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    daemon = Daemon(site, prefix, env=environment, cwd="/")
    process_1 = int(Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").read_text())
    try:
        with contextlib.closing(poplib.POP3_SSL("localhost", site.port, context=site.context(), timeout=20)) as client:
            client.user("alice")
            client.pass_("secret")
            assert [client.retr(number)[1] for number in (1, 2)] == 2 * [[b"Subject: hello", b"", b"hello"]]
            client.dele(1)
            client.dele(2)
            assert client.quit().startswith(b"+OK")
        os.kill(process_1, signal.SIGTERM)
        assert daemon.process.wait(20) == 0
    finally:
        if daemon.process.poll() is None:
            os.kill(process_1, signal.SIGKILL)  # which nobody else does: it has become another user
        _, rest = daemon.process.communicate()
    assert "state folder" not in daemon.log + rest, daemon.log + rest
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["cache", "keep"]
