"""``pop3cli doctor``, from the first connection to the last line shown.

Every examination ends: each wait has its patience, each examination its seconds, and so has the whole; what does not
get its turn is skipped and says so. A server's worst is a finding and never an error of ours.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from pop3cli.accounts.url import Account
from pop3cli.auth.login import LoginPlan, way_to
from pop3cli.auth.passwords import find_password
from pop3cli.doctor.deleting import victim
from pop3cli.doctor.findings import Finding, Skip, Verdict, Violation, failed
from pop3cli.doctor.raw_connection import RawConnectionFault, Silence
from pop3cli.doctor.report import Result, as_json, as_junit, new_table, show_end, show_row, summary
from pop3cli.doctor.server_under_test import LoginFailed, ServerUnderTest
from pop3cli.doctor.table import EXAMINATIONS, Examination
from pop3cli.errors import MailError, ServerBroken, TimedOut, UsageFault, refusal
from pop3cli.exit_status import ExitStatus
from pop3cli.files import whole_file
from pop3cli.mailbox.visit import Visit
from pop3cli.net.session import Session
from pop3cli.options import Options
from pop3cli.terminal.terminal import Terminal
from pop3cli.terminal.units import human_size
from pop3core.commands import Pass
from pop3core.errors import RemoteProtocolError
from pop3core.events import Replied

__all__ = ["EXAMINATION_SECONDS", "PATIENCE_MAX", "TOTAL_SECONDS", "doctor", "examine"]

PATIENCE_MAX: Final = 15.0
"""Seconds that each wait may take, even where --timeout grants more: there are many waits."""

EXAMINATION_SECONDS: Final = 60.0
"""Seconds that one examination may take."""

TOTAL_SECONDS: Final = 600.0
"""Seconds that all together may take; what has not begun by then is skipped."""


def doctor(
    account: Account, options: Options, terminal: Terminal, *, destructive: bool, yes: bool, junit: Path | None
) -> ExitStatus:
    """Examine a server. SOME_FAILED when an examination failed; raises `MailError` when none can be made."""
    if destructive and not yes and not terminal.can_ask:
        raise UsageFault("doctor --destructive", "there is no terminal to ask at", "give --yes to delete one message")
    settings = options.settings
    entrance = way_to(account, settings)
    entrance = replace(entrance, timeout=min(entrance.timeout, PATIENCE_MAX))
    password = find_password(account, settings.password_command, keyring=settings.keyring)
    if not password or set(password) & set(b"\r\n\0"):
        raise UsageFault("login", "a password has no line ends and no NUL")
    patient = ServerUnderTest(account, entrance.tls, password, entrance.timeout, options.new_trace, entrance.dial)
    with Visit() as visit:
        visit.do(_admit(visit.session, entrance, patient))
        if destructive and not yes and not _allowed(visit, patient, account, terminal):
            terminal.line("nothing was examined, and nothing deleted")
            return ExitStatus.SOME_FAILED
        results = visit.do(_run(patient, options, terminal, destructive=destructive))
    if options.json:
        terminal.json(as_json(account.server, results))
    else:
        show_end(results, terminal)
    if junit is not None:
        with whole_file(junit) as stream:
            stream.write(as_junit(account.server, results))
    return ExitStatus.SOME_FAILED if summary(results)["fail"] else ExitStatus.OK


async def _admit(session: Session, entrance: LoginPlan, patient: ServerUnderTest) -> None:
    """Find out, with the client's own words, why nothing can be examined: no server, no trust, no login."""
    try:
        await entrance.connect(session)
    except ServerBroken as fault:
        if not isinstance(fault.__cause__, RemoteProtocolError):
            raise
    finally:
        await session.close()
    try:
        await patient.announced(inside=False)
        try:
            async with patient.inside():
                pass
        except Silence as fault:
            # each further login would count as one more failure, where the password is wrong: that locks people out
            remedy = "servers hold back their answer when logins have failed: check the password, and try later"
            raise TimedOut(f"login to {entrance.account.server}", str(fault), remedy) from None
    except LoginFailed as fault:
        raise _refused(entrance.account, fault) from None
    except (Violation, Skip, RawConnectionFault, OSError):
        pass  # not what keeps the others from being examined


def _refused(account: Account, fault: LoginFailed) -> MailError:
    status = b"" if fault.reply is None else fault.reply.status
    code, text = (None if fault.reply is None else fault.reply.code), status.partition(b" ")[2]
    if code is not None:
        text = text.partition(b"]")[2].lstrip()
    said = Replied(
        Pass(b""), False, None if code is None else code.decode("ascii", "replace"), text.decode("utf-8", "replace")
    )
    return refusal(account.server, said)


def _allowed(visit: Visit, patient: ServerUnderTest, account: Account, terminal: Terminal) -> bool:
    try:
        number, octets = visit.do(victim(patient))
    except (Violation, Skip, RawConnectionFault, OSError):
        return True  # the examinations will say it
    what = f"message {number} ({human_size(octets)}, the smallest)"
    return terminal.ask(f"This deletes {what} of {account.name} for good. Go on? [y/N] ") in ("y", "yes")


async def _run(patient: ServerUnderTest, options: Options, terminal: Terminal, *, destructive: bool) -> list[Result]:
    results = list[Result]()
    table = None if options.json else new_table(terminal)
    async for result in examine(patient, destructive=destructive):
        results.append(result)
        if table is not None:
            show_row(table, result)
    return results


async def examine(patient: ServerUnderTest, *, destructive: bool) -> AsyncIterator[Result]:
    """All examinations, in their order; without ``destructive`` nothing is deleted, not even marked."""
    clock = asyncio.get_running_loop().time
    end = clock() + TOTAL_SECONDS
    try:
        for examination in EXAMINATIONS:
            begun = clock()
            if examination.destructive and not destructive:
                finding = Finding(Verdict.SKIPPED, "it deletes; --destructive makes it")
            elif begun >= end:
                finding = Finding(Verdict.SKIPPED, f"{TOTAL_SECONDS:.0f} s are over; the server is slow")
            else:
                finding = await _examined(examination, patient)
            yield Result(examination, patient.cleaned(finding), clock() - begun)
    finally:
        await patient.release()


async def _examined(examination: Examination, patient: ServerUnderTest) -> Finding:
    limit = asyncio.timeout(EXAMINATION_SECONDS)
    try:
        async with limit:
            return await examination.run(patient)
    except Skip as fault:
        return Finding(Verdict.SKIPPED, str(fault))
    except Violation as fault:
        return fault.finding
    except RawConnectionFault as fault:
        return failed(str(fault), "answer each command, once and in time")
    except OSError as fault:
        if limit.expired():
            return failed(f"no end within {EXAMINATION_SECONDS:.0f} s", "answer in time")
        if isinstance(fault, TimeoutError):
            return failed("no connection in time", "take connections in time")
        reason = fault.reason if isinstance(fault, ssl.SSLError) else fault.strerror
        return failed(f"no connection: {reason or fault}", "take connections, and keep them")
