"""The command: several accounts, once or for ever, and what is told about them.

Each account has a state of its own, and fails on its own. `keep_at` is what ``--watch`` does; an end that is wanted
(SIGTERM, Ctrl-C) cancels the task, and what has come to its end is kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pop3cli.accounts.url import Account, Settings
from pop3cli.auth.login import LoginPlan, prepare, with_secret
from pop3cli.errors import UsageFault
from pop3cli.exit_status import ExitStatus
from pop3cli.files import keep_out_of_others, state_folder
from pop3cli.net.session import Session
from pop3cli.net.trace import Trace
from pop3cli.sync.import_state import remembered
from pop3cli.sync.maildir import Maildir
from pop3cli.sync.mbox import Mbox
from pop3cli.sync.output import Output, status_of
from pop3cli.sync.plan import SyncOptions
from pop3cli.sync.run import SyncReport, SyncRun
from pop3cli.sync.writer import Destination

__all__ = ["Job", "key_of", "octets_of", "seconds_of", "state_path", "sync_all"]

AT_ONCE: Final = 8
"""Accounts that are fetched from at the same time."""

BACK_OFF_MAX: Final = 3600.0
"""Seconds between attempts at an account that fails, at most; never less than the interval."""

_HOPELESS: Final = (ExitStatus.USAGE, ExitStatus.NOPERM, ExitStatus.CONFIG, ExitStatus.DATAERR, ExitStatus.SOFTWARE)
"""What trying again cannot mend; and a wrong password that is said for ever locks an account."""

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SIZES: Final = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


@dataclass(frozen=True, slots=True)
class Job:
    """An account, how to get in, and where its mail goes. ``imported``: unique-ids and times."""

    account: Account
    settings: Settings
    entrance: LoginPlan
    destination: Path
    mbox: bool
    state: Path
    imported: Mapping[str, int]

    def __repr__(self) -> str:
        return f"Job({self.account.name!r}, {str(self.destination)!r})"

    async def log_in(self, session: Session) -> None:
        """Connect, see to TLS, and log in. Raises `MailError`; the session is closed then."""
        entrance = self.entrance
        if entrance.token is not None:  # it may have come to its end since; one that is still good costs nothing
            entrance = await asyncio.to_thread(with_secret, entrance, self.settings)
        await entrance.connect(session)
        try:
            await entrance.log_in(session)
        except BaseException:
            await session.close()
            raise

    def opened(self, headers_only: bool) -> Destination:
        """The destination."""
        if self.mbox:
            return Mbox(self.destination)
        return Maildir(self.destination, key_of(self.account), headers_only=headers_only)


def key_of(account: Account) -> str:
    """What an account's state is kept under. The port is part of it: behind tunnels all hosts are localhost."""
    return f"{account.user}@{account.host.lower()}:{account.port}"


def seconds_of(text: str, what: str) -> float:
    """``30d`` and its like. Raises `UsageFault`, which names ``what``."""
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if not found:
        raise UsageFault(f"{what} {text}", "no time", "give a number and s, m, h, d or w, such as 30d")
    return float(found[1]) * _UNITS[found[2]]


def octets_of(text: str, what: str) -> int:
    """``25M`` and its like. Raises `UsageFault`, which names ``what``."""
    found = re.fullmatch(r"(\d{1,15})([KMG]?)", text.upper())
    if not found:
        raise UsageFault(f"{what} {text}", "no size", "give octets, or a number and K, M or G, such as 25M")
    return int(found[1]) * _SIZES[found[2]]


def destination_of(text: str, account: Account) -> tuple[Path, bool]:
    """Where an account's mail goes, and whether that is an mbox.

    ``maildir:`` and ``mbox:`` before it say so; else a file, or a name that ends with ``.mbox``, is an mbox.
    """
    kind, separator, rest = text.partition(":")
    said = separator == ":" and kind in ("maildir", "mbox")
    path = Path((rest if said else text).replace("{account}", _safe(account.name))).expanduser()
    if not str(path) or str(path) == ".":
        raise UsageFault(f"destination {text!r}", "no path in it")
    return path, kind == "mbox" if said else path.is_file() or path.suffix == ".mbox"


def state_path(account: Account, destination: Path, given: str | None) -> Path:
    """The file that remembers what went from an account to a destination; ``given``: what ``--state`` says."""
    if given is not None:
        return Path(given.replace("{account}", _safe(account.name))).expanduser()
    folder = state_folder()
    keep_out_of_others(folder)
    digest = hashlib.sha256(f"{key_of(account)}\n{os.path.realpath(destination)}".encode()).hexdigest()
    return folder / f"{_safe(account.name)}-{digest[:16]}"


def _safe(name: str) -> str:
    """An account's name as a part of a path."""
    return re.sub(r"[^\w@.+-]|^\.", "_", name)


def jobs_of(
    accounts: Sequence[tuple[Account, Settings]],
    destination: str,
    state: str | None,
    import_state: tuple[str, str] | None,
) -> list[Job]:
    """What is to be done; passwords are asked for now. Raises `UsageFault`, `SettingFault`."""
    found = [(account, settings, *destination_of(destination, account)) for account, settings in accounts]
    if len({key_of(account) for account, _ in accounts}) < len(accounts):
        raise UsageFault("sync", "an account is named twice")
    if len(accounts) > 1 and any(mbox for *_, mbox in found) and "{account}" not in destination:
        raise UsageFault("sync", "several accounts into one mbox", "put {account} into the destination")
    if len(accounts) > 1 and state is not None and "{account}" not in state:
        raise UsageFault("--state", "each account needs a file of its own", "put {account} into the name")
    if len(accounts) > 1 and import_state is not None and import_state[0] == "getmail":
        raise UsageFault("--import-state getmail", "each of its files is for one account", "take one at a time")
    jobs = []
    for account, settings, path, mbox in found:
        imported = {} if import_state is None else remembered(import_state[0], Path(import_state[1]), account)
        os.environ["POP3CLI_ACCOUNT"] = account.name  # one command for several accounts has to know which it is
        entrance = prepare(account, settings)
        jobs.append(Job(account, settings, entrance, path, mbox, state_path(account, path, state), imported))
    return jobs


async def sync_all(
    jobs: Sequence[Job],
    wishes: SyncOptions,
    output: Output,
    watch: float | None,
    new_trace: Callable[[], Trace | None] = lambda: None,
) -> ExitStatus:
    """Do all jobs, once or every ``watch`` seconds until a signal comes."""
    loop = asyncio.get_running_loop()
    work = asyncio.ensure_future(_all(jobs, wishes, output, watch, new_trace))

    def end() -> None:
        if wishes.filter is not None:
            wishes.filter.stop()
        work.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    try:
        return await work
    except asyncio.CancelledError:
        return ExitStatus.OK if watch is not None else ExitStatus.INTERRUPTED
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _all(
    jobs: Sequence[Job], wishes: SyncOptions, output: Output, watch: float | None, new_trace: Callable[[], Trace | None]
) -> ExitStatus:
    turns = asyncio.Semaphore(AT_ONCE)

    async def once(job: Job) -> SyncReport:
        async with turns:
            destination = job.opened(wishes.headers_only)
            run = SyncRun(
                key_of(job.account),
                job.log_in,
                destination,
                job.state,
                wishes,
                output.meter,
                imported=job.imported,
                new_trace=new_trace,
            )
            report = await run.run()
        output.tell(job.account.name, report, wishes)
        return report

    async def keep_at(job: Job) -> SyncReport:
        failures = 0
        while True:
            report = await once(job)
            if watch is None or (report.error is not None and report.error.status in _HOPELESS):
                return report
            failures = failures + 1 if report.error is not None else 0
            await asyncio.sleep(max(watch, min(watch * 2.0 ** min(failures, 20), BACK_OFF_MAX)) if failures else watch)

    with output:
        reports = await asyncio.gather(*(keep_at(job) for job in jobs))
    return _status(reports)


def _status(reports: Sequence[SyncReport]) -> ExitStatus:
    found = [status_of(report) for report in reports]
    if len(found) == 1:
        return found[0]
    return ExitStatus.SOME_FAILED if any(found) else ExitStatus.OK
