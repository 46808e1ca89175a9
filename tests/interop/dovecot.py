"""Dovecot's POP3, from Debian's dovecot-pop3d, on loopback: for tests and benchmarks beside the real one."""

import contextlib
import grp
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.site import free_port

CONFIGURATION = """
base_dir = {root}/run
log_path = {root}/dovecot.log
protocols = pop3
disable_plaintext_auth = no
mail_location = maildir:{mail}:INDEX={root}/index/%u
mail_uid = {user}
mail_gid = {group}
first_valid_uid = 0
first_valid_gid = 0
ssl = {ssl}
{certificate}
passdb {{
  {passdb}
}}
userdb {{
  {userdb}
}}
service pop3-login {{
  # the same process for many connections, as Dovecot's own advice for speed has it
  service_count = 0
  chroot =
  inet_listener pop3 {{
    address = 127.0.0.1
    port = {pop3}
  }}
  inet_listener pop3s {{
    address = 127.0.0.1
    port = {pop3s}
  }}
}}
service pop3 {{
  service_count = 0
  vsz_limit = 4G
}}
{extra}
"""

TUNED = """
mail_fsync = never
pop3_no_flag_updates = yes
maildir_very_dirty_syncs = yes
"""
"""What makes it quicker still, at the price of promises: nothing is synced."""


AUTHENTICATION = """
base_dir = {root}/run
log_path = {root}/dovecot.log
protocols =
ssl = no
auth_mechanisms = {mechanisms}
auth_failure_delay = {delay}
auth_username_chars =
{passdbs}
userdb {{
  driver = static
  args = uid={user} gid=nogroup home={root}/home/%u allow_all_users=yes
}}
{service}
"""

CHAIN = """
passdb {{
  driver = passwd-file
  args = {root}/passwd
}}
passdb {{
  driver = static
  args = password=shared
}}
"""
"""A passwd-file first; who is not let in by that, by one password for all."""


def missing() -> str | None:
    """Why there is no Dovecot to run; None when there is."""
    if shutil.which("dovecot") is None or not Path("/usr/lib/dovecot/pop3").exists():
        return "Dovecot is not installed (Debian: apt install dovecot-pop3d)"
    return None if os.geteuid() == 0 else "Dovecot's login processes want root to start them"


@contextlib.contextmanager
def serving(
    root: Path,
    mail: str,
    *,
    certificate: Path | None = None,
    key: Path | None = None,
    extra: str = "",
    users: dict[str, dict[str, str]] | None = None,
    passwd_file: Path | None = None,
) -> Iterator[int]:
    """Dovecot on Maildirs at ``mail``, where ``%u`` stands for the user; any user, password "secret". Its port.

    ``passwd_file``: those who are in it, with the passwords that are there.

    ``root``: a folder for all that is Dovecot's own. With a certificate it is POP3S. Mail belongs to nobody. ``users``:
    only these, with settings of their own.
    """
    for folder in ("run", "index", "home"):
        (root / folder).mkdir(parents=True, exist_ok=True)
        shutil.chown(root / folder, "nobody", "nogroup")
    for above in (root, *root.parents):
        if above.stat().st_uid == os.geteuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o111)
    port = free_port()
    userdb = f"driver = static\n  args = uid=nobody gid=nogroup home={root}/home/%u"
    if users is not None:
        userdb = f"driver = passwd-file\n  args = {root}/users"
        numbers = f"{pwd.getpwnam('nobody').pw_uid}:{grp.getgrnam('nogroup').gr_gid}"
        (root / "users").write_text("".join(_user(name, numbers, root, some) for name, some in users.items()))
    passdb = "driver = static\n  args = password=secret"
    if passwd_file is not None:
        passdb = f"driver = passwd-file\n  args = {passwd_file}"
    text = CONFIGURATION.format(
        passdb=passdb,
        userdb=userdb,
        root=root,
        mail=mail,
        user="nobody",
        group="nogroup",
        ssl="required" if certificate else "no",
        certificate=f"ssl_cert = <{certificate}\nssl_key = <{key}" if certificate else "",
        pop3=0 if certificate else port,
        pop3s=port if certificate else 0,
        extra=extra,
    )
    (root / "dovecot.conf").write_text(text)
    process = subprocess.Popen(["dovecot", "-F", "-c", root / "dovecot.conf"], stderr=subprocess.DEVNULL)
    try:
        _await(port, root, process)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _user(name: str, numbers: str, root: Path, settings: dict[str, str]) -> str:
    """A line of a passwd-file. Dovecot expands variables in it."""
    fields = " ".join(f"userdb_{key}={value.replace('%', '%%')}" for key, value in settings.items())
    return f"{name}::{numbers}::{root}/home/{name}::{fields}\n"


def _await(port: int, root: Path, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(f"Dovecot did not start: {(root / 'dovecot.log').read_text()}")


class Authentication:
    """Dovecot's service auth alone, with the sockets that our documentation gives it; to be started and ended at will.

    ``root``: a folder for all that is its own. ``users``: lines of the passwd-file of `CHAIN`. ``user``: who may
    connect.
    """

    def __init__(
        self,
        root: Path,
        users: str = "",
        *,
        mechanisms: str = "plain login",
        delay: str = "0 secs",
        passdbs: str = CHAIN,
        user: str = "root",
    ) -> None:
        self.root = root
        self.client, self.userdb = root / "sockets/auth-pop3d", root / "sockets/auth-pop3d-userdb"
        self._process: subprocess.Popen[bytes] | None = None
        for folder in ("run", "sockets", "home"):
            (root / folder).mkdir(parents=True)
        (root / "passwd").write_text(users)
        for above in (root, *root.parents):
            if above.stat().st_uid == os.geteuid() and above != Path("/"):
                above.chmod(above.stat().st_mode | 0o111)
        page = (Path(__file__).parents[2] / "docs/running.md").read_text()
        (service,) = re.findall(r"^```\n(service auth \{\n.*?^\})\n```", page, re.MULTILINE | re.DOTALL)
        service = service.replace("unix_listener ", f"unix_listener {root}/sockets/")
        text = AUTHENTICATION.format(
            service=service.replace("user = vmail", f"user = {user}"),
            root=root,
            mechanisms=mechanisms,
            delay=delay,
            user=user,
            passdbs=passdbs.format(root=root),
        )
        (root / "dovecot.conf").write_text(text)

    def start(self) -> None:
        self._process = subprocess.Popen(["dovecot", "-F", "-c", self.root / "dovecot.conf"], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(self.userdb))
                return
            time.sleep(0.05)
        raise AssertionError(f"Dovecot did not start: {(self.root / 'dovecot.log').read_text()}")

    def kill_process(self, number: signal.Signals = signal.SIGKILL) -> None:
        """The process that answers; the master stays, and starts another one for who comes next."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for pid in children:
            # it outlives its master as long as it has clients
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"dovecot/auth"):
                os.kill(int(pid), number)

    def reload(self) -> None:
        """As `doveadm reload`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def end(self) -> None:
        if self._process is not None:
            self.kill_process()
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(20)
            self._process = None
