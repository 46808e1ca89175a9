"""`pop3d import --all`: the mail of all users of another site, one user after the other."""

from __future__ import annotations

import os
import stat
import string
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import quote

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pop3d.auth import Account, check_user_name
from pop3d.auth.passwd_file import entry_of
from pop3d.commands.configured import configured
from pop3d.commands.finding import counted
from pop3d.commands.import_mail import GO_ON, bring, complain, details_of, interruptible, messages
from pop3d.commands.import_source import ImportOptions, Opener, is_url, opener_of, source_password
from pop3d.commands.recipient import check_store
from pop3d.commands.whose import become_user, known_accounts, prepare_state, unknown
from pop3d.config import Config
from pop3d.errors import CommandError
from pop3d.exit_status import ExitStatus
from pop3d.imports.run import ImportTally
from pop3d.observe.log import sanitized

__all__ = ["OtherUser", "import_all", "other_users"]

_FIELDS: Final = frozenset({"user", "local", "domain", "home"})
_HOME: Final = 5  # of the fields of a passwd-file
_ROWS_MAX: Final = 40  # of the table at the end, which is for a person; lines go on

Show = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class OtherUser:
    """A user of the other site. ``home``: empty where there is none."""

    name: str
    home: str = ""

    def fill(self, template: str, *, quoted: bool = False) -> str:
        """A template with what is known of the user. Raises ValueError. ``quoted``: for a URL."""
        local, _, domain = self.name.partition("@")
        values = {"user": self.name, "local": local, "domain": domain, "home": self.home}
        for name in ("domain", "home"):
            if not values[name] and f"{{{name}}}" in template:
                raise ValueError(f"there is no {name} for {{{name}}}")
        return template.format_map({name: quote(value, safe="") if quoted else value for name, value in values.items()})


@dataclass(slots=True)
class _Outcome:
    """What became of a user's import. ``why``: it failed."""

    user: str
    tally: ImportTally
    why: str = ""

    @property
    def failed(self) -> bool:
        return bool(self.why or self.tally.failed)


def other_users(path: Path) -> list[OtherUser]:
    """The users of a passwd-file, each once. Raises `CommandError`."""
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as fault:
        raise CommandError(f"{path}: {fault.strerror}; name a passwd-file", ExitStatus.DATAERR) from None
    found: dict[str, OtherUser] = {}
    for line in text.split("\n"):  # and at nothing else: whoever writes his own gecos field begins no line
        fields = entry_of(line)[1].strip().split(":")
        if fields[0]:
            home = fields[_HOME] if len(fields) > _HOME else ""
            found.setdefault(fields[0], OtherUser(fields[0], home))
    if not found:
        raise CommandError(f"{path}: there are no users in it; name a passwd-file", ExitStatus.DATAERR)
    return [*found.values()]


def import_all(
    users_file: Path, template: str, config_path: Path | None, options: ImportOptions, passwords: Path | None
) -> ExitStatus:
    """Import for each user of a passwd-file. One who fails stops nobody else. Raises `CommandError`."""
    for text in (template, options.control or ""):
        _check_template(text)
    config = configured(config_path)
    check_store(config)
    users = other_users(users_file)
    secret_of = _secrets(template, options, passwords)
    accounts = known_accounts(config, [user.name for user in users])
    jobs = [
        _Job(config, user, account, template, options, secret_of) for user, account in zip(users, accounts, strict=True)
    ]
    prepare_state(config)
    become_user(config)
    outcomes: list[_Outcome] = []
    interrupted = False
    with interruptible(), _progress(len(jobs)) as (begin, show):
        try:
            for job in jobs:
                begin(job.user.name)
                outcomes.append(job.run(show))
                _tell(outcomes[-1])
        except KeyboardInterrupt:
            interrupted = True
    _summarize(outcomes, len(jobs))
    if interrupted:
        complain(f"interrupted; {GO_ON}")
        return ExitStatus.INTERRUPTED
    return ExitStatus.SOME_FAILED if any(outcome.failed for outcome in outcomes) else ExitStatus.OK


def _check_template(template: str) -> None:
    try:
        fields = {name for _, name, form, convert in string.Formatter().parse(template) if name is not None}
    except ValueError as fault:
        raise CommandError(f"the template {template!r}: {fault}", ExitStatus.USAGE) from None
    if unknown_fields := fields - _FIELDS:
        what = f"{{{min(unknown_fields)}}} is none of {{user}}, {{local}}, {{domain}} and {{home}}"
        raise CommandError(f"the template {template!r}: {what}", ExitStatus.USAGE)
    if template and not fields:
        raise CommandError(f"the template {template!r} is the same for all users; use {{user}}", ExitStatus.USAGE)


def _secrets(template: str, options: ImportOptions, passwords: Path | None) -> Callable[[str], bytes]:
    """What gives a user's password on the other server: a file of them, or one that opens all, of a master user."""
    if not is_url(template):
        return lambda _: b""
    if passwords is None:
        one = source_password(template, options)
        return lambda _: one
    try:
        if stat.S_IMODE(os.stat(passwords).st_mode) & 0o077:
            raise CommandError(f"{passwords}: others may read it; chmod 600 it", ExitStatus.CONFIG)
        lines = passwords.read_bytes().splitlines()
    except OSError as fault:
        raise CommandError(f"{passwords}: {fault.strerror}", ExitStatus.CONFIG) from None
    known = {name: secret for name, colon, secret in (line.partition(b":") for line in lines) if colon}

    def secret_of(user: str) -> bytes:
        try:
            return known[user.encode("utf-8", "surrogateescape")]
        except KeyError:
            raise CommandError(f"{passwords} has no password for this user", ExitStatus.DATAERR) from None

    return secret_of


class _Job:
    """One user's import. What root alone may read is read when it is made."""

    def __init__(
        self,
        config: Config,
        user: OtherUser,
        account: Account | None,
        template: str,
        options: ImportOptions,
        secret_of: Callable[[str], bytes],
    ) -> None:
        self.user = user
        self._config, self._account, self._options = config, account, options
        self._opener: Opener | None = None
        self._why = ""
        try:
            check_user_name(user.name)  # it becomes a part of a path
            if account is None:
                raise unknown(config, user.name)
            if options.control:
                self._options = replace(options, control=user.fill(options.control))
            source = user.fill(template, quoted=is_url(template))
            self._opener = opener_of(source, self._options, lambda: secret_of(user.name))
        except (ValueError, CommandError) as fault:
            self._why = str(fault)

    def run(self, show: Show) -> _Outcome:
        """Do it. Raises KeyboardInterrupt."""
        outcome = _Outcome(self.user.name, ImportTally(), self._why)
        if self._opener is not None and self._account is not None:
            try:
                bring(self._config, self._account, self._opener, self._options, outcome.tally, show)
            except CommandError as fault:
                outcome.why = str(fault)
        return outcome


def _tell(outcome: _Outcome) -> None:
    """A line for each user, as it ends; on a terminal only for what went wrong."""
    tally = outcome.tally
    lines = [
        *tally.remarks,
        *(f"not imported: {line}" for line in tally.failed),
        *([outcome.why] if outcome.why else ()),
    ]
    complain(*(f"{outcome.user}: {line}" for line in lines))
    if not sys.stdout.isatty() and (tally.imported or not outcome.why):
        print(f"{sanitized(outcome.user)}: imported {messages(tally.imported)}{details_of(tally)}", flush=True)


def _summarize(outcomes: list[_Outcome], users: int) -> None:
    failed = [outcome for outcome in outcomes if outcome.failed]
    if sys.stdout.isatty():
        table = Table(
            "user", "imported", "before", "failed", "new ids", "why", box=None, header_style="bold", pad_edge=False
        )
        shown = sorted(outcomes, key=lambda outcome: not outcome.failed)[:_ROWS_MAX]
        for one in shown:
            tally = one.tally
            numbers = (tally.imported, tally.before, len(tally.failed), tally.invalid + tally.double)
            table.add_row(sanitized(one.user), *map(str, numbers), sanitized(one.why))
        Console(markup=False, highlight=False).print(table)
        if len(outcomes) > len(shown):
            print(f"and {counted(len(outcomes) - len(shown), 'more user')}")
    imported = sum(outcome.tally.imported for outcome in outcomes)
    print(
        f"imported {messages(imported)} for {len(outcomes) - len(failed)} of {counted(users, 'user')}"
        + (f"; {len(failed)} failed: {', '.join(sanitized(outcome.user) for outcome in failed[:10])}" if failed else "")
        + (" ..." if len(failed) > 10 else "")
    )


@contextmanager
def _progress(users: int) -> Iterator[tuple[Callable[[str], None], Show]]:
    """Two bars on a terminal, of users and of the messages of one; nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield (lambda _: None), (lambda _, __: None)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        all_users = bar.add_task("users", total=users)
        one = bar.add_task("", total=None)
        started = 0

        def begin(user: str) -> None:
            nonlocal started
            bar.update(all_users, completed=started)
            bar.reset(one, description=sanitized(user), total=None)
            started += 1

        yield begin, lambda done, total: bar.update(one, completed=done, total=total)
