"""`pop3d user test`: a login as the daemon would check it, step by step.

The daemon's own parts decide each step: its authenticator, `pop3d.logins.why_forbidden`, its store. No daemon has to
run, and no failure is counted. A user who is right opens the mailbox, as a login does, and leaves without deleting.
"""

from __future__ import annotations

import asyncio
import os
import pwd
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pop3core.events import Credential, Password, Token
from pop3d.abuse.addresses import source_of
from pop3d.assembly import users_and_store
from pop3d.auth import Account, Authenticator, AuthError, AuthUnavailable, KnowsUsers, check_user_name
from pop3d.auth.names import UserNames
from pop3d.auth.passwords import PROVED_BY, lacks_extra, serves
from pop3d.auth.stored import StoredPasswords
from pop3d.auth.stored_user import StoredUser
from pop3d.auth.users_file import Line, read_lines
from pop3d.commands.configured import configured
from pop3d.commands.login_steps import LoginSteps, overheard, secret_asked_for
from pop3d.commands.whose import become_user
from pop3d.config import Config
from pop3d.errors import CommandError
from pop3d.exit_status import ExitStatus
from pop3d.logins import why_forbidden
from pop3d.policy import Policy
from pop3d.stores import Maildrop, MaildropBusy, Store, StoreError
from pop3d.stores.maildir.paths import mailbox_path
from pop3d.stores.quota import quota_of

__all__ = ["try_login"]

_TOKENS: Final = ("oauthbearer", "xoauth2")


class _Stopped(Exception):
    """The steps that follow make no sense; ``status``: what the process ends with."""

    def __init__(self, status: ExitStatus) -> None:
        super().__init__()
        self.status = status


def try_login(name: str, config: Path | None, *, address: str, clear: bool, password_stdin: bool) -> ExitStatus:
    """Show the steps of a login by ``name`` from ``address`` (empty: from anywhere), in ``clear`` text or behind TLS.

    Exit codes: 0 would be let in, 67 no such user, 75 cannot be known now, 77 refused. Raises `CommandError`.
    """
    settings = configured(config)
    steps = LoginSteps()
    try:
        with overheard() as heard:
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
    steps: LoginSteps
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
        secret = await asyncio.to_thread(secret_asked_for, name, what, from_stdin=self.password_stdin)
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
