"""`pop3d check`: all that is wrong with a site, or soon will be, before its users notice.

Each finding is a line: where, what, and what to do. A fault keeps the daemon from serving, or somebody from the mail,
or shows a secret; the rest are warnings. Started as root it looks at configuration, certificates and users as root, as
`serve` does, and then becomes the configured `user`: what it can open then, so can the daemon. It changes nothing.
"""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from pop3d.assembly import plugin_faults
from pop3d.auth import AuthError
from pop3d.auth.hashing import holds_the_lock
from pop3d.auth.passwd_file import Line
from pop3d.auth.users_file import read_lines
from pop3d.commands import check_asked, check_mail, check_names, check_users
from pop3d.commands.check_listeners import listeners
from pop3d.commands.configured import configured
from pop3d.commands.finding import CheckFinding, counted
from pop3d.commands.finding import fault as _fault
from pop3d.commands.finding import mode_faults as _mode
from pop3d.commands.finding import warning as _warning
from pop3d.config import Config, ConfigError, Pam
from pop3d.exit_status import ExitStatus
from pop3d.extras import install_line
from pop3d.key_pairs import KeyPairs
from pop3d.net.certificates import covers, shown_by
from pop3d.net.pem import chain_fault, closed_to_us
from pop3d.observe.log import sanitized
from pop3d.system.ownership import acting
from pop3d.system.privileges import IdentityDoubt, ProcessIdentity, become, process_identity
from pop3d.system.state_folder import CACHE, KEEP

__all__ = ["CheckFinding", "check", "findings"]

_RSA_BITS_MAX: Final = 3072  # a handshake with 4096 takes 5 ms of the event loop, with 2048 one
_DAYS_LEFT: Final = 14  # a certificate that ends sooner should have been renewed: those of ACME last 90 days, or 47
_IDLE_LEAST: Final = 600  # seconds (RFC 1939 §3)


def check(path: Path | None) -> ExitStatus:
    """Show what `findings` finds in the configuration at ``path``, or the one found."""
    found = findings(path)
    faults = sum(one.fault for one in found)
    console = Console(highlight=False, soft_wrap=True)
    for one in found:
        word, style = ("fault", "bold red") if one.fault else ("warning", "yellow")
        console.print(Text.assemble((word, style), ": ", sanitized(one.text)))
    style = "bold red" if faults else "yellow" if found else "bold green"
    console.print(Text(f"{counted(faults, 'fault')}, {counted(len(found) - faults, 'warning')}", style))
    return ExitStatus.CONFIG if faults else ExitStatus.OK


def findings(path: Path | None) -> list[CheckFinding]:
    """All there are. A process of root becomes the configured `user` on the way."""
    try:
        config = configured(path, serves=True)
    except ConfigError as fault:
        return [CheckFinding(True, text) for text in fault.faults]
    found = [*_limits(config), *listeners(config), *_certificates(config)]
    with acting(config.owner):
        found += _state(config.state)
    daemon = _whom(config, found)
    found += (CheckFinding(True, text) for text in plugin_faults(config))
    lines: list[Line] = []
    try:
        if config.auth.backend == "file":
            lines = read_lines(config.auth.users)
            found += check_users.users(config, lines)
            found += check_names.clashes(config, lines)
    except AuthError as fault:
        found.append(CheckFinding(True, str(fault)))
    pam = (config.auth.pam or Pam()) if config.auth.backend == "pam" else None
    with acting(config.owner):
        found += check_asked.databases(config)
        found += check_names.unreachable(config)
        if config.auth.oauth is not None:
            found += check_asked.tokens(config.auth.oauth)
        if pam is not None:
            found += check_asked.pam(pam)
    root = os.geteuid() == 0
    if daemon.becomes is not None and daemon.doubt is None:
        become(daemon.becomes)
        found += _reloadable(config)
        if any(holds_the_lock(_scheme(line)) for line in lines):
            found += _processes()
    if config.log.file is not None:
        found += _log_file(config.log.file)
    if pam is not None:
        found += check_asked.as_user(pam)
    if config.auth.backend == "dovecot":
        found += check_asked.dovecot(config)
    if config.store.backend == "maildir" and (daemon.named is not None or not root):
        users = [line.user for line in lines if line.user is not None]
        found += check_mail.mail(config, users, daemon.named.uid if daemon.named is not None else os.geteuid())
    return found


def _scheme(line: Line) -> str:
    return line.user.secret.scheme if line.user is not None and line.user.secret is not None else ""


# --- configuration, certificates, state ---


def _limits(config: Config) -> Iterator[CheckFinding]:
    if config.limits.idle_timeout < _IDLE_LEAST:
        what = f"{config.limits.idle_timeout:g} seconds is less than RFC 1939 asks for"
        yield _warning("`limits.idle_timeout`", what, f"clients may count on {_IDLE_LEAST}")
    if (postgres := config.auth.postgres) is not None:
        for column, key, off in (
            ("login_delay", "limits.login_delay", not config.limits.login_delay),
            ("expire_days", "store.expire", config.store.expire == "never"),
        ):
            if off and re.search(rf"\b{column}\b", postgres.query):
                what = f"users have a column `{column}`, which has no effect without this key"
                yield _warning(
                    f"`{key}`", what, "set what no user goes beyond, which clients are told before the login"
                )
    if config.store.expire != "never" and config.store.backend == "maildir" and not config.store.deleted:
        what = "messages that expire are gone for good"
        yield _warning("`store.expire`", what, 'deleted = "deleted/{user}" keeps them, for `pop3d undelete`')


def _certificates(config: Config) -> Iterator[CheckFinding]:
    if config.tls is None:
        return
    pairs = KeyPairs.read(config)
    yield from (CheckFinding(True, text) for text in (*pairs.faults, *pairs.dates()))
    if not pairs.faults:
        try:
            pairs.tls()
        except OSError as fault:
            what = getattr(fault, "reason", None) or fault.strerror or type(fault).__name__
            yield _fault("[tls]", f"OpenSSL refuses certificate or key: {what}", "make or request new ones")
    if "scram-sha-256-plus" in config.auth.mechanisms and find_spec("OpenSSL") is None:
        what = "scram-sha-256-plus is not offered behind TLS 1.3 without pyOpenSSL"
        yield _warning("`auth.mechanisms`", what, install_line("channel-binding"))
    given = "hostname" in config.model_fields_set
    for files, hosts in ((config.tls, (config.hostname,)), *((sni, sni.hosts) for sni in config.tls.sni)):
        for certificate, private_key in files.pairs:
            yield from _certificate(certificate, hosts, sure=given or files is not config.tls)
            if not any(text.startswith(f"private key {private_key}: it holds") for text in pairs.faults):
                yield from _mode(private_key, "the private key")


def _certificate(certificate: Path, hosts: tuple[str, ...], *, sure: bool) -> Iterator[CheckFinding]:
    """``sure``: the names were given, and are not this machine's own, which clients may know by another."""
    try:
        shown = shown_by(certificate)
        chain = chain_fault(certificate)
    except (OSError, ValueError):
        return  # told already
    where, left = f"certificate {certificate}", shown.ends - datetime.datetime.now(datetime.UTC)
    if datetime.timedelta() <= left < datetime.timedelta(days=_DAYS_LEFT):
        yield _warning(where, f"ends on {shown.ends:%Y-%m-%d}, in {left.days} days", "renew it")
    if shown.rsa_bits > _RSA_BITS_MAX:
        what = f"its RSA key has {shown.rsa_bits} bits, and each handshake holds up all connections for milliseconds"
        yield _warning(where, what, "request one with an ECDSA key (P-256), or RSA of 2048 bits")
    if chain is not None:
        yield _warning(where, *chain)
    for host in hosts:
        if not covers(shown.names, host):
            names = ", ".join(sorted(shown.names)) or "no name at all"
            what = f"it is for {names}, not for {host!r}, so clients that connect to that will refuse it"
            yield CheckFinding(sure or not shown.names, f"{where}: {what}; get one with that name as subjectAltName")


def _state(state: Path) -> Iterator[CheckFinding]:
    """Looked at as whoever we are: started as root, `serve` gives the folder to `user`."""
    remedy = "make it a folder that can be written to, or set another `state`; nothing is cached or remembered"
    try:
        if state.exists():
            for folder in (state, *(part for part in (state / CACHE, state / KEEP) if part.exists())):
                with tempfile.TemporaryFile(dir=folder):
                    pass
            return
        above = next(folder for folder in state.parents if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            yield _fault(f"state folder {state}", f"it is not there, and cannot be made in {above}", remedy)
    except OSError as fault:
        yield _fault(f"state folder {state}", f"cannot be written to: {fault.strerror}", remedy)


def _log_file(file: Path) -> Iterator[CheckFinding]:
    """Looked at as whom `serve` becomes, who opens it."""
    what = file if file.exists() else file.parent
    if not os.access(what, os.W_OK | (os.X_OK if what != file else 0)) or file.is_dir():
        remedy = f"give {what} to the user who runs pop3d, or set another file; serve does not start"
        yield _fault(f"`log.file` {file}", "this user cannot write to it", remedy)


def _whom(config: Config, found: list[CheckFinding]) -> ProcessIdentity:
    """Whom `serve` becomes."""
    try:
        answer = process_identity(config.user, config.group)
    except LookupError as fault:
        found.append(_fault("`user` or `group`", str(fault), "name those that own the mail"))
        return ProcessIdentity(None)
    match answer.doubt:
        case IdentityDoubt.NOBODY:
            what = "not set, and `serve`, started as root, refuses to go on without it"
            found.append(_fault("`user`", what, 'add user = "vmail" (whoever owns the mail)'))
        case IdentityDoubt.ROOT:
            what = "root: every fault would have all rights"
            found.append(_warning("`user`", what, "give the mail a user of its own"))
        case IdentityDoubt.ANOTHER:
            what = f"this was checked by another user than {config.user!r}, who may see less or more"
            found.append(_warning("`user`", what, "run it as root, or as that user"))
    return answer


def _reloadable(config: Config) -> Iterator[CheckFinding]:
    """As the configured user."""
    files = [config.auth.users] if config.auth.backend == "file" else []
    if config.auth.oauth is not None:
        files += config.auth.oauth.files
    pem = config.tls.files if config.tls is not None else []
    files += [config.file] if config.file is not None else []
    for file in dict.fromkeys(files + pem):
        try:
            os.close(os.open(file, os.O_RDONLY | os.O_CLOEXEC))
        except PermissionError:
            what = f"{config.user!r} cannot read it, so a new one is not taken without a restart"
            remedy = "let that user's group read it, and reach its folder (chgrp, chmod 0640)"
            yield _warning(file, what, closed_to_us(file) if file in pem else remedy)
        except OSError:
            pass  # told already


def _processes() -> Iterator[CheckFinding]:
    """As the configured user, who checks passwords of SHA-crypt in processes."""
    try:
        # as `serve` starts them, from a folder that is nobody else's
        asked = [sys.executable, "-c", "import pop3d.auth.hashing"]
        started = subprocess.run(asked, capture_output=True, cwd=Path(__file__).parents[2])  # noqa: S603
        works = started.returncode == 0
    except OSError:
        works = False
    if not works:
        what = "`user` cannot run it with what is installed there, so no SHA-crypt password can be checked"
        yield _fault(sys.executable, what, "install where that user can read, such as /opt, and not in root's home")
