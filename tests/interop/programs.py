"""Clients of other people: each reads one message, over the version of TLS and by the mechanism that it is told.

A program is a function from a `Visit` to an `Outcome`. Those with options for mechanisms stand in `FORCED` with them.
"""

import os
import pty
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SECONDS_MAX = 60.0
"""A client that has not ended by then is ended. It takes a tenth of a second on a machine that is idle."""
SILENT = 0.5
"""Seconds without output before a ``q`` is typed: behind a failure, mutt and neomutt wait at an empty index."""


@dataclass(frozen=True)
class Visit:
    """What a client is told."""

    folder: Path
    """A new one, for its files."""
    port: int
    user: str
    secret: str
    """A password, or a token of OAuth 2."""
    certificate: Path
    """The server's, which is to be trusted."""
    tls: str
    """`1.2` or `1.3`: this version and no other."""
    stls: bool = False
    mechanism: str | None = None
    """The one to use, `USER` and `APOP` among them; None: the client's own choice."""
    by_token: bool = False
    own: tuple[Path, Path] | None = None
    """The client's certificate and key."""

    def file(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    @property
    def environment(self) -> dict[str, str]:
        home = str(self.folder)
        return {**os.environ, "HOME": home, "FETCHMAILHOME": home, "LC_ALL": "C.UTF-8", "TERM": "vt100"}


@dataclass(frozen=True)
class Outcome:
    status: int
    message: bytes | None
    """Its octets, lines ended by CRLF; None: there is none."""
    said: str
    """All that the client told of the session."""


def curl(visit: Visit) -> Outcome:
    message = visit.folder / "message"
    url = f"{'pop3' if visit.stls else 'pop3s'}://localhost:{visit.port}/1"
    command: list[object] = ["curl", "-sSv", "--ssl-reqd", "--cacert", visit.certificate, "-o", message, url]
    command += [f"--tlsv{visit.tls}", "--tls-max", visit.tls]
    if visit.by_token:
        command += ["--user", f"{visit.user}:", "--oauth2-bearer", visit.secret]
    else:
        command += ["--user", f"{visit.user}:{visit.secret}"]
    if visit.mechanism is not None:
        command += ["--login-options", f"AUTH={'+APOP' if visit.mechanism == 'APOP' else visit.mechanism}"]
    if visit.own is not None:
        command += ["--cert", visit.own[0], "--key", visit.own[1]]
    return _run(visit, command, lambda: message)


def mpop(visit: Visit) -> Outcome:
    for name in ("tmp", "new", "cur"):
        (visit.folder / "out" / name).mkdir(parents=True)
    own = "" if visit.own is None else f"tls_cert_file {visit.own[0]}\ntls_key_file {visit.own[1]}\n"
    text = f"""account x
host localhost
port {visit.port}
user {visit.user}
password {visit.secret}
auth {visit.mechanism.lower() if visit.mechanism else "on"}
tls on
tls_starttls {"on" if visit.stls else "off"}
tls_trust_file {visit.certificate}
tls_priorities NORMAL:-VERS-ALL:+VERS-TLS{visit.tls}
{own}keep on
uidls_file {visit.folder}/uidls
received_header off
delivery maildir {visit.folder}/out
account default : x
"""
    command: list[object] = ["mpop", "-d", "-C", visit.file("rc", text)]
    return _run(visit, command, lambda: next((visit.folder / "out/new").iterdir(), None))


def fetchmail(visit: Visit) -> Outcome:
    protocol = "apop" if visit.mechanism == "APOP" else "pop3"
    auth = " auth password" if visit.mechanism == "USER" else ""
    text = (
        f"set no syslog\npoll localhost protocol {protocol} port {visit.port}{auth}"
        f' user "{visit.user}" password "{visit.secret}" is root here'
        f' {"" if visit.stls else "ssl "}sslproto "TLS{visit.tls}" sslcertck sslcertfile "{visit.certificate}"'
        f' keep fetchall no rewrite mda "cat >{visit.folder}/message"\n'
    )
    command: list[object] = ["fetchmail", "-vv", "-f", visit.file("rc", text), "--pidfile", visit.folder / "pid"]
    # otherwise it puts a Received: of its own before the message
    return _run(visit, [*command, "--invisible"], lambda: visit.folder / "message")


def mutt(visit: Visit) -> Outcome:
    return _mutt(visit, ["mutt", "-d", "2"], visit.folder / ".muttdebug0")


def neomutt(visit: Visit) -> Outcome:
    return _mutt(visit, ["neomutt", "-d", "2", "-l", str(visit.folder / "log")], visit.folder / "log0")


def _mutt(visit: Visit, command: list[str], log: Path) -> Outcome:
    """Either: it wants a terminal. Keys that are pushed pipe the message, as it is, into a file, and leave."""
    message = visit.folder / "message"
    token = visit.file("token", visit.secret)
    lines = [
        f"set pop_user={visit.user}",
        f'set pop_oauth_refresh_command="cat {token}"' if visit.by_token else f"set pop_pass={visit.secret}",
        f"set certificate_file={visit.certificate} ssl_force_tls=yes",
        f"set ssl_use_tlsv1_2={'yes' if visit.tls == '1.2' else 'no'}",
        f"set ssl_use_tlsv1_3={'yes' if visit.tls == '1.3' else 'no'}",
        "set pop_delete=no pop_reconnect=no quit=yes wait_key=no sleep_time=0 pipe_decode=no",
        f"set folder={visit.folder}",
        f"set spoolfile={'pop' if visit.stls else 'pops'}://{visit.user}@localhost:{visit.port}/",
    ]
    if visit.mechanism is not None:
        lines.append(f"set pop_authenticators={visit.mechanism.lower()}")
    if visit.own is not None:
        pair = visit.file("own.pem", "".join(path.read_text() for path in visit.own))
        lines.append(f"set ssl_client_cert={pair}")
    rc = visit.file("rc", "\n".join([*lines, ""]))
    keys = f'push "<pipe-message>cat >{message}<enter><exit>"'
    status = _on_terminal([*command, "-n", "-F", str(rc), "-e", keys], visit.environment)
    return Outcome(status, _with_crlf(message), log.read_text(errors="replace") if log.exists() else "")


def _run(visit: Visit, command: list[object], arrived: Callable[[], Path | None]) -> Outcome:
    done = subprocess.run(
        [str(word) for word in command],
        env=visit.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS_MAX,
        check=False,
    )
    return Outcome(done.returncode, _with_crlf(arrived()), done.stdout.decode(errors="replace"))


def _with_crlf(path: Path | None) -> bytes | None:
    """Most clients store lines as the system has them."""
    octets = path.read_bytes() if path is not None and path.exists() else b""
    return octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") or None


def _on_terminal(command: list[str], environment: dict[str, str]) -> int:
    """The exit status of what runs on a terminal of its own; a ``q`` is typed when it is silent."""
    deadline = time.monotonic() + SECONDS_MAX
    ours, its = pty.openpty()
    process = subprocess.Popen(command, env=environment, stdin=its, stdout=its, stderr=its, start_new_session=True)
    try:
        os.close(its)
        while process.poll() is None and time.monotonic() < deadline:
            if not select.select([ours], [], [], SILENT)[0]:
                os.write(ours, b"q")
                continue
            try:
                os.read(ours, 65536)
            except OSError:  # Linux says so that nobody has the terminal open any more
                break
        return process.wait(max(1.0, deadline - time.monotonic()))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(ours)


PROGRAMS: dict[str, Callable[[Visit], Outcome]] = {
    "curl": curl,
    "fetchmail": fetchmail,
    "mpop": mpop,
    "mutt": mutt,
    "neomutt": neomutt,
}
FORCED: dict[str, tuple[str, ...]] = {
    "curl": ("PLAIN", "LOGIN", "APOP"),
    "fetchmail": ("USER", "APOP"),
    "mpop": ("USER", "PLAIN", "LOGIN", "APOP", "SCRAM-SHA-256", "EXTERNAL", "OAUTHBEARER", "XOAUTH2"),
    "mutt": ("USER", "PLAIN", "LOGIN", "APOP", "SCRAM-SHA-256", "EXTERNAL", "OAUTHBEARER"),
    # built with GNU SASL, it takes no name of SASL in pop_authenticators: "scram-sha-256 is not a valid authenticator"
    "neomutt": ("USER", "APOP", "OAUTHBEARER"),
}
"""The mechanisms that each has an option for; fetchmail and curl know no SCRAM."""


def missing(program: str) -> str | None:
    """What to do where it is not installed."""
    return None if shutil.which(program) else f"{program} is missing: apt-get install {program}"
