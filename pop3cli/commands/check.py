"""``pop3cli check``: what a server shows, whether it can be trusted, and whether the login works.

It goes on as far as it can. A server whose certificate is refused is connected to once more, without verification, to
show what it is; nothing but CAPA and QUIT is said to it then, and no password is asked for. What is wrong is a
`CheckRemark`, with what to do about it; the exit status is that of the first that is bad.
"""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from pop3cli.accounts.url import Account
from pop3cli.auth.login import LoginPlan, way_to, with_secret
from pop3cli.errors import CertificateRefused, CommandRefused, MailError, NotConnected
from pop3cli.exit_status import ExitStatus
from pop3cli.mailbox.visit import Visit
from pop3cli.net.certificates import Certificate, chain_of, read_certificate
from pop3cli.net.session import Session
from pop3cli.net.tls import client_context
from pop3cli.options import Options, error_text
from pop3cli.sanitize import harmless
from pop3cli.terminal.terminal import Terminal
from pop3cli.terminal.units import human_size
from pop3core.events import Greeted

__all__ = ["CheckRemark", "CheckReport", "check", "examine"]

_DAYS_WARNED: Final = 21
"""Days before the end of a certificate from which on somebody should see to it: renewal has failed some times then."""

_SHOWN_NAMES: Final = 20

Level = Literal["bad", "warning", "note"]


@dataclass(frozen=True, slots=True)
class CheckRemark:
    """Something to be told. ``about``: which part; ``status``: what a bad one ends the program with."""

    level: Level
    about: str
    text: str
    status: ExitStatus = ExitStatus.OK


@dataclass(slots=True)
class CheckReport:
    """What was seen of a server; what was not reached is None or empty.

    ``trusted``: it was verified; ``pinned``: by a pin alone, which is not the same as by an authority (RFC 8314 §5.3).
    ``octets``: of all ``messages`` together.
    """

    account: Account
    trusted: bool = False
    pinned: bool = False
    chain: list[Certificate] = field(default_factory=list)
    tls_version: str = ""
    cipher: str = ""
    greeting: str | None = None
    before: tuple[str, ...] | None = None
    after: tuple[str, ...] | None = None
    mechanism: str | None = None
    said: str = ""
    messages: int | None = None
    octets: int | None = None
    findings: list[CheckRemark] = field(default_factory=list)

    @property
    def status(self) -> ExitStatus:
        """That of the first bad finding."""
        return next((finding.status for finding in self.findings if finding.level == "bad"), ExitStatus.OK)

    def add(self, level: Level, about: str, text: str, status: ExitStatus = ExitStatus.OK) -> None:
        """One more finding; its text may be foreign."""
        self.findings.append(CheckRemark(level, about, harmless(text), status))

    def failed(self, about: str, fault: MailError) -> None:
        """What went wrong is a finding."""
        self.add("bad", about, error_text(fault), fault.status)


def check(account: Account, options: Options, terminal: Terminal) -> ExitStatus:
    """Examine an account, and show what was found."""
    report = examine(account, options)
    if options.json:
        terminal.json(_as_json(report))
    else:
        _show(report, terminal)
    return report.status


def examine(account: Account, options: Options) -> CheckReport:
    """All that can be found out. Asks for the password at the terminal, when all before it went well.

    Raises `UsageFault` and `SettingFault` for options that cannot be used; what the server does wrong is a finding.
    """
    report = CheckReport(account)
    entrance = way_to(account, options.settings)
    with Visit(options.new_trace()) as visit:
        if not _connected(visit, entrance, report):
            return report
        if options.settings.insecure:
            report.add("warning", "certificate", "not verified, because of --insecure; --pin or --cacert verify it")
        _look_at_tls(visit.session, report)
        report.before = visit.do(_announced(visit.session, report))
        _try_login(visit, entrance, options, report)
        if visit.session.connected:
            try:
                visit.do(visit.session.quit())
            except MailError as fault:
                report.failed("end", fault)
    report.trusted = report.trusted and not options.settings.insecure
    return report


# --- the connection ---


def _connected(visit: Visit, entrance: LoginPlan, report: CheckReport) -> bool:
    try:
        greeting = visit.do(entrance.connect(visit.session))
        report.trusted = True
        report.pinned = entrance.tls.verify_mode is ssl.CERT_NONE
    except CertificateRefused as fault:
        report.failed("certificate", fault)
        # nothing of ours, neither certificate nor password, is for a stranger
        stranger = dataclasses.replace(entrance, tls=client_context(insecure=True))
        try:
            visit.do(visit.session.close())
            greeting = visit.do(stranger.connect(visit.session))
        except MailError as again:
            report.failed("connection", again)
            return False
    except MailError as fault:
        report.failed("connection", fault)
        return False
    report.greeting = _greeted(greeting)
    return True


def _greeted(greeting: Greeted) -> str:
    return f"[{greeting.code}] {greeting.text}" if greeting.code else greeting.text


def _look_at_tls(session: Session, report: CheckReport) -> None:
    tls = session.tls
    if tls is None:
        return
    report.tls_version = str(tls.version())
    cipher = tls.cipher()
    report.cipher = cipher[0] if cipher else ""
    if report.tls_version == "TLSv1.2":
        report.add("note", "TLS", "the server has no TLS 1.3, which is quicker and better; it may need a newer OpenSSL")
    try:
        report.chain = [read_certificate(octets) for octets in chain_of(tls)]
    except ValueError as fault:
        report.add("warning", "certificate", f"it cannot be read ({fault}); others may not be able to either")
    now = datetime.now(UTC)
    for place, certificate in enumerate(report.chain):
        days = certificate.days_left(now)
        whose = "it" if place == 0 else f"{certificate.subject}, in the chain,"
        if 0 <= days < _DAYS_WARNED:
            left = "today" if days == 0 else f"in {days} days" if days > 1 else "tomorrow"
            report.add("warning", "certificate", f"{whose} expires {left}; it should be renewed now")
        elif days < 0 and report.trusted:
            report.add("warning", "certificate", f"{whose} has expired; it should be renewed")


async def _announced(session: Session, report: CheckReport) -> tuple[str, ...] | None:
    try:
        capabilities = await session.capa()
    except CommandRefused:
        report.add("note", "capabilities", "the server does not know CAPA; only USER and PASS are tried")
        return None
    except MailError as fault:
        report.failed("capabilities", fault)
        return None
    return tuple(" ".join((name, *arguments)) for name, arguments in capabilities.items())


# --- the login ---


def _try_login(visit: Visit, entrance: LoginPlan, options: Options, report: CheckReport) -> None:
    session = visit.session
    if not session.connected:
        return
    if not report.trusted:
        report.add("note", "login", "not tried: a server that is not trusted is told no password")
        return
    if entrance.account.user is None:
        report.add("note", "login", "not tried: nobody is named; give pop3s://user@host")
        return
    try:
        entrance = with_secret(entrance, options.settings)
        report.mechanism, report.said = visit.do(entrance.log_in(session))
        report.after = visit.do(_announced(session, report))
        item = visit.do(session.stat())
        report.messages, report.octets = item.messages, item.octets
    except NotConnected:
        pass  # why is a finding already
    except MailError as fault:
        report.failed("login" if report.mechanism is None else "mailbox", fault)


# --- showing it ---


def _show(report: CheckReport, terminal: Terminal) -> None:
    def row(label: str, text: str, style: str = "") -> None:
        terminal.line((f"{label:<15}", "label"), (text, style))

    account = report.account
    row("Server", f"{account.server}, TLS {'by STLS' if account.stls else 'from the first octet'}")
    for place, certificate in enumerate(report.chain):
        row("Certificate" if place == 0 else "  issued by", certificate.subject or "(no subject)")
        days = certificate.days_left(datetime.now(UTC))
        row("  valid", f"{certificate.not_before:%Y-%m-%d} to {certificate.not_after:%Y-%m-%d}, {days} days left")
        if place == 0:
            more = len(certificate.names) - _SHOWN_NAMES
            names = ", ".join(certificate.names[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
            row("  names", names or "none")
            row("  key", f"{certificate.key}, signed with {certificate.signature} by {certificate.issuer}")
            row("  pin", f"sha256:{certificate.pin}")
    if report.chain:
        # RFC 8314 §5: one sees how confidential an account is
        trust = "no" if not report.trusted else "by its pin" if report.pinned else "yes"
        row("  trusted", trust, "ok" if report.trusted else "err")
    if report.tls_version:
        row("TLS", f"{report.tls_version}, {report.cipher}")
    if report.greeting is not None:
        row("Greeting", report.greeting)
    if report.before is not None:
        row("Capabilities", ", ".join(report.before))
    if report.after is not None and report.after != report.before:
        row("  logged in", ", ".join(report.after))
    if report.mechanism is not None:
        row("Login", f"by {report.mechanism}: {report.said}", "ok")
    if report.messages is not None and report.octets is not None:
        row("Mailbox", f"{report.messages:,} messages, {human_size(report.octets)}")
    styles: Mapping[Level, str] = {"bad": "err", "warning": "strong", "note": "faint"}
    for finding in report.findings:
        terminal.line((f"{finding.level + ':':<15}", styles[finding.level]), f"{finding.about}: {finding.text}")


def _as_json(report: CheckReport) -> dict[str, Any]:
    return {
        "server": {"host": report.account.host, "port": report.account.port, "stls": report.account.stls},
        "user": report.account.user,
        "trusted": report.trusted,
        "pinned": report.trusted and report.pinned,
        "certificates": [certificate.as_json() for certificate in report.chain],
        "tls": {"version": report.tls_version, "cipher": report.cipher},
        "greeting": report.greeting,
        "capabilities": {"before_login": report.before, "after_login": report.after},
        "login": None if report.mechanism is None else {"mechanism": report.mechanism, "text": report.said},
        "mailbox": None if report.messages is None else {"messages": report.messages, "octets": report.octets},
        "findings": [{"level": f.level, "about": f.about, "text": f.text} for f in report.findings],
        "status": int(report.status),
    }
