"""`pop3d user test`: a login as the daemon would check it, step by step.

The daemon's own parts decide each step: its authenticator, `pop3d.logins.why_forbidden`, its store. No daemon has to
run, and no failure is counted. A user who is right opens the mailbox, as a login does, and leaves without deleting.
"""

from __future__ import annotations

import asyncio
import getpass
import logging
import os
import pwd
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from pop3core.events import Credential, Password, Token
from pop3d.abuse.addresses import source_of
from pop3d.assembly import users_and_store
from pop3d.auth import Account, Authenticator, AuthError, AuthUnavailable, KnowsUsers, check_user_name
from pop3d.auth.names import UserNames
from pop3d.auth.passwords import PASSWORD_OCTETS_MAX, PROVED_BY, lacks_extra, serves
from pop3d.auth.stored import StoredPasswords
from pop3d.auth.stored_user import StoredUser
from pop3d.auth.users_file import Line, read_lines
from pop3d.commands.configured import configured
from pop3d.commands.whose import become_user
from pop3d.config import Config
from pop3d.errors import CommandError
from pop3d.exit_status import ExitStatus
from pop3d.logins import why_forbidden
from pop3d.observe.log import sanitized
from pop3d.policy import Policy
from pop3d.stores import Maildrop, MaildropBusy, Store, StoreError
from pop3d.stores.maildir.paths import mailbox_path
from pop3d.stores.quota import quota_of

__all__ = ["try_login"]

_TOKEN_OCTETS_MAX: Final = 12 * 1024  # octets of a token, as the engine takes them
_TOKENS: Final = ("oauthbearer", "xoauth2")


class _Stopped(Exception):
    """The steps that follow make no sense; ``status``: what the process ends with."""

    def __init__(self, status: ExitStatus) -> None:
        super().__init__()
        self.status = status


@dataclass(slots=True)
class _Steps:
    """Shows each step when it is done."""

    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))

    def ok(self, name: str, text: str) -> None:
        self._show("ok", "green", name, text)

    def note(self, name: str, text: str) -> None:
        """Neither right nor wrong."""
        self._show("-", "", name, text)

    def failed(self, name: str, text: str) -> None:
        self._show("failed", "bold red", name, text)

    def _show(self, word: str, style: str, name: str, text: str) -> None:
        if self.console.is_terminal:
            self.console.print(Text.assemble((f"{word:<6}", style), f"  {name:<10}  ", sanitized(text)))
        else:
            print(f"{word}\t{name}\t{sanitized(text)}", flush=True)


def try_login(name: str, config: Path | None, *, address: str, clear: bool, password_stdin: bool) -> ExitStatus:
    """Show the steps of a login by ``name`` from ``address`` (empty: from anywhere), in ``clear`` text or behind TLS.

    Exit codes: 0 would be let in, 67 no such user, 75 cannot be known now, 77 refused. Raises `CommandError`.
    """
    settings = configured(config)
    steps = _Steps()
    try:
        with _heard() as heard:
            users, store = users_and_store(settings)
            become_user(settings)
            login = _Login(settings, name, address, clear, steps, users, store, heard, password_stdin=password_stdin)
            asyncio.run(login.run())
    except AuthError as fault:
        raise CommandError(str(fault), ExitStatus.CONFIG) from None
    except AuthUnavailable as fault:
        steps.failed("users", f"{fault}; try again later")
        return ExitStatus.TEMPFAIL
    except _Stopped as fault:
        return fault.status
    steps.ok("login", "would be let in")
    return ExitStatus.OK


@dataclass(slots=True)
class _Login:
    config: Config
    said: str
    address: str
    clear: bool
    steps: _Steps
    users: Authenticator
    store: Store
    heard: list[str]
    password_stdin: bool = field(kw_only=True)

    async def run(self) -> None:
        """Raises `_Stopped`, `pop3d.auth.AuthUnavailable` and `CommandError`."""
        try:
            await self._checked()
        finally:
            await self.users.close()
            if (close := getattr(self.store, "close", None)) is not None:  # Protocol `Closes`
                await close()

    async def _checked(self) -> None:
        name = self._name()
        user = await self._found(name)
        self._mechanisms(user)
        account = await self._proved(name)
        known = account or (user.account if user is not None else None)
        if known is not None:
            self._permitted(known, stop=account is not None)
        if account is None:
            raise _Stopped(ExitStatus.NOPERM)
        self._delay(account)
        await self._mailbox(account)

    def _name(self) -> str:
        auth = self.config.auth
        name = UserNames.of(auth)(self.said)
        try:
            check_user_name(name)
        except ValueError as fault:
            self.steps.failed("name", f"{name!r}: {fault}")
            raise _Stopped(ExitStatus.NOUSER) from None
        rules = f'usernames = "{auth.usernames}"'
        if auth.default_domain:
            rules += f', default_domain = "{auth.default_domain}"'
        self.steps.ok("name", f"{self.said!r} is looked for as {name!r} ({rules})")
        return name

    async def _found(self, name: str) -> StoredUser | None:
        """The user, where what is stored can be looked at. Raises `_Stopped` for one that is known not to be there."""
        users = getattr(self.users, "others", None) or self.users  # beside tokens
        where = f'backend "{self.config.auth.backend}"'
        if isinstance(users, StoredPasswords):
            user = await users.lookup(name)
            if user is None:
                self.steps.failed("user", await self._why_unknown(users, name))
                raise _Stopped(ExitStatus.NOUSER)
            self.steps.ok("user", f"{user.name!r} in {self._where(user.name)}")
            self._secret(user)
            return user
        auth = self.config.auth
        asks_dovecot = auth.backend == "dovecot" and (auth.dovecot is None or auth.dovecot.userdb_socket is None)
        if isinstance(users, KnowsUsers) and auth.backend != "oauth" and not asks_dovecot:
            account = await users.account(name)
            if account is None:
                self.steps.failed("user", f"{where} knows no such user")
                raise _Stopped(ExitStatus.NOUSER)
            home = f", home {account.home}" if account.home else ""
            self.steps.ok("user", f"{account.name!r} is known to {where}{home}")
        else:
            self.steps.note("user", f"{where} does not say who there is; it is asked when somebody logs in")
        return None

    async def _why_unknown(self, users: StoredPasswords, name: str) -> str:
        try:
            await users.account(name)
        except AuthUnavailable as fault:  # more than one has that name, or there are no users at all
            return str(fault)
        if lines := self._lines(name):
            return f"{self._where(name)}: {lines[0].fault}"
        return f"no such user in {self._where('')}"

    def _where(self, called: str) -> str:
        if self.config.auth.backend != "file":
            return "the database, by `query` of [auth.postgres]"
        lines = self._lines(called)  # the first one counts
        return f"the users file {self.config.auth.users}{f', line {lines[0].number}' if lines else ''}"

    def _lines(self, called: str) -> list[Line]:
        if self.config.auth.backend != "file" or not called:
            return []
        try:
            return [line for line in read_lines(self.config.auth.users) if line.name == called]
        except AuthError:
            return []  # it was read before this process became `user`, who cannot

    def _secret(self, user: StoredUser) -> None:
        if user.secret is None:
            self.steps.failed("secret", user.fault or "the secret cannot be used")
        elif lacks_extra(user.secret.scheme):
            self.steps.failed("secret", f"{user.secret.scheme}: cannot be checked without the extra `crypt`")
        else:
            self.steps.ok("secret", f"scheme {user.secret.scheme}")
        told = [f"{key}={value}" if value else key for key, value in user.extra.values.items()]
        if told:
            self.steps.note("fields", ", ".join(told))
        for fault in user.extra.faults:
            self.steps.failed("fields", fault)

    def _mechanisms(self, user: StoredUser | None) -> None:
        """Which of those that are offered can serve the user."""
        can, cannot = list[str](), list[str]()
        for mechanism in self.config.auth.mechanisms:
            served = True
            if user is not None and mechanism not in (*_TOKENS, "external"):
                kind, secret = PROVED_BY.get(mechanism), user.secret
                served = secret is not None and (kind is None or serves(secret, kind))
            (can if served else cannot).append(mechanism)
        text = f"can serve: {', '.join(can) or 'none'}"
        if cannot:
            text += f"; cannot, by what is stored: {', '.join(cannot)}"
        (self.steps.ok if can else self.steps.failed)("mechanisms", text)

    async def _proved(self, name: str) -> Account | None:
        """The account, if the password, or token, is right."""
        by_token = self.config.auth.backend == "oauth"
        what = "token" if by_token else "password"
        secret = await asyncio.to_thread(_secret_of, name, what, from_stdin=self.password_stdin)
        credential: Credential = Password(name, "", secret)
        if by_token:
            mechanism = next(one for one in self.config.auth.mechanisms if one in _TOKENS)
            credential = Token(name, mechanism.upper(), secret)
        self.heard.clear()
        account = await self.users.authenticate(credential, source_of(self.address) if self.address else "")
        if account is None:
            why = "; ".join(self.heard)
            self.steps.failed(what, f"refused{f': {why}' if why else ', as it is not the one that is stored'}")
        else:
            self.steps.ok(what, f"right, of the user {account.name!r}")
        return account

    def _permitted(self, account: Account, *, stop: bool) -> None:
        networks = ", ".join(map(str, account.networks))
        # where no address is given, any that is allowed will do
        address = self.address or (str(account.networks[0].network_address) if account.networks else "")
        if reason := why_forbidden(account, address, secure=not self.clear):
            self.steps.failed("permitted", reason + (f" ({networks})" if networks else ""))
            if stop:
                raise _Stopped(ExitStatus.NOPERM)
            return
        conditions = []
        if networks:
            conditions.append(f"from {networks} only" + ("" if self.address else " (--from ADDRESS tests one)"))
        if account.limits.require_tls:
            conditions.append("with TLS only")
        self.steps.ok("permitted", ", ".join(conditions) or "nothing forbids this login")

    def _delay(self, account: Account) -> None:
        if delay := Policy.of(self.config, [account.limits]).delay_of(account.limits):
            self.steps.note("delay", f"{delay} seconds between two logins; a daemon that runs counts them")

    async def _mailbox(self, account: Account) -> None:
        name = _own_name()
        self.heard.clear()
        try:
            where = mailbox_path(self.config.store.path, account) if self.config.store.backend == "maildir" else ""
            drop = await self.store.open(account, utf8=False)
        except StoreError as fault:
            why = "; ".join(part for part in (fault.text, fault.detail, *self.heard) if part)
            self.steps.failed("mailbox", f"cannot be opened as {name}: {why}")
            if isinstance(fault, MaildropBusy):
                self.steps.note("lock", "`pop3d mailbox` shows who holds it")
            raise _Stopped(ExitStatus.TEMPFAIL) from None
        try:
            self._tell_mailbox(account, drop, where or f'in store "{self.config.store.backend}"', name)
        finally:
            await drop.close()

    def _tell_mailbox(self, account: Account, drop: Maildrop, where: str, name: str) -> None:
        messages, octets = len(drop.messages), drop.messages.octets
        self.steps.ok("mailbox", f"{where}, opened as {name}: {messages} messages, {octets} octets")
        self.steps.ok("lock", "was free")
        store = self.config.store
        quota = quota_of(store.quota_octets, store.quota_messages, account.limits)
        if limits := [f"{n} {unit}" for n, unit in ((quota.messages, "messages"), (quota.octets, "octets")) if n]:
            self.steps.note("quota", f"{' and '.join(limits)}; a full mailbox can be read")


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"#{os.geteuid()}"


def _secret_of(name: str, what: str, *, from_stdin: bool) -> bytes:
    if from_stdin:
        most = _TOKEN_OCTETS_MAX if what == "token" else PASSWORD_OCTETS_MAX
        octets = sys.stdin.buffer.readline(most + 2).rstrip(b"\r\n")
        if len(octets) > most:
            raise CommandError(f"the {what} has more than {most} octets", ExitStatus.DATAERR)
        return octets
    if not sys.stdin.isatty():
        raise CommandError(f"no terminal to ask for the {what} on; use --password-stdin", ExitStatus.USAGE)
    try:
        return getpass.getpass(f"{what.capitalize()} for {name}: ").encode("utf-8", "surrogateescape")
    except EOFError:
        raise CommandError(f"no {what} was given", ExitStatus.USAGE) from None


class _Hearing(logging.Handler):
    """Keeps what the parts of the daemon log: to the client they tell less."""

    def __init__(self, heard: list[str]) -> None:
        super().__init__()
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        self._heard.append(record.getMessage())


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Collects what is logged, which is shown beside the step that it belongs to."""
    log, heard = logging.getLogger("pop3d"), list[str]()
    handler, before = _Hearing(heard), (log.level, log.propagate)
    log.addHandler(handler)
    log.setLevel("INFO")
    log.propagate = False
    try:
        yield heard
    finally:
        log.removeHandler(handler)
        log.level, log.propagate = before
