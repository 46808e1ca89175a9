"""The way into a mailbox: connect, verify, choose how to log in, log in.

`prepare` finds all that can be wrong on our side before a connection is made, asks for what is missing, and gives an
`LoginPlan`, by which one session or several get in. How to log in is chosen from what the server announces behind TLS,
the strongest first: SCRAM bound to the channel, SCRAM, and then the mechanisms that say the password, which TLS with a
verified server keeps secret. What was announced and failed is not followed by something weaker: the person decides.

Somebody who can change what the server announces could remove the strong mechanisms from it. Against the removal of
-PLUS alone the server helps: SCRAM tells it that this client could have bound (RFC 5802 §6), and a server that did
announce -PLUS refuses. Against the removal of SCRAM only the setting ``auth`` helps, for who answers has proved by its
certificate to be the server (or ``insecure`` says that nobody need prove it).
"""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from pop3cli.accounts.connect import connect
from pop3cli.accounts.url import Account, Settings, parse_account
from pop3cli.auth.passwords import find_password, known_password, prompt_passphrase
from pop3cli.errors import CommandRefused, LoginRefused, NotValid, SettingFault, UsageFault
from pop3cli.net.connection import TIMEOUT
from pop3cli.net.proxy import dial_by
from pop3cli.net.session import Session
from pop3cli.net.tls import Dial, client_context, end_point
from pop3core.capabilities import Capabilities
from pop3core.events import Greeted
from pop3core.sasl import external, login, oauth, plain, scram
from pop3core.sasl.base import ClientSteps, SaslError
from pop3core.sasl.prep import prepared, saslprep

__all__ = ["MECHANISMS", "LoginPlan", "parse_mechanism", "plan_of", "prepare", "way_to", "with_secret"]

_PLUS: Final = "SCRAM-SHA-256-PLUS"
_SCRAM: Final = "SCRAM-SHA-256"
_USER: Final = "USER"  # USER and PASS, which are no mechanism, under the name that CAPA has for them
_TOKENS: Final = ("OAUTHBEARER", "XOAUTH2")

MECHANISMS: Final = (_PLUS, _SCRAM, "PLAIN", _USER, "LOGIN", "EXTERNAL", *_TOKENS)
"""What the setting ``auth`` may name."""


def parse_mechanism(text: str) -> str:
    """A mechanism by its name, in capitals. Raises `SettingFault`."""
    name = text.upper()
    if name not in MECHANISMS:
        raise SettingFault(f"`auth` {text[:40]}", "no such mechanism", f"one of {', '.join(MECHANISMS).lower()}")
    return name


@dataclass(frozen=True, slots=True)
class LoginPlan:
    """What it takes to get in; a client certificate is shown to this account's server only (RFC 8314 §5.5).

    ``auth``: the mechanism, None for the best there is; ``secret``, ``token``: None for none known.
    """

    account: Account
    tls: ssl.SSLContext = field(repr=False)
    timeout: float = TIMEOUT
    dial: Dial | None = field(default=None, repr=False)
    auth: str | None = None
    has_certificate: bool = False
    secret: bytes | None = field(default=None, repr=False)
    token: bytes | None = field(default=None, repr=False)

    async def connect(self, session: Session) -> Greeted:
        """Connect, behind verified TLS at the end. Raises `MailError`."""
        return await connect(session, self.account, self.tls, self.timeout, self.dial)

    async def log_in(self, session: Session) -> tuple[str, str]:
        """Log in: by what, and what the server said to it.

        Raises `LoginRefused`, `TryLater`, `UsageFault` when nothing is known that the server would take, and what
        `Session.authenticate` raises.
        """
        announced = await _announced(session) if self.auth in (None, _SCRAM) else Capabilities()
        mechanism = self.auth or self._choose(announced, lambda: _binding(session) is not None)
        user = self.account.user or ""
        if mechanism == _USER:
            return _USER, await session.login(user, self._password())
        try:
            return mechanism, await session.authenticate(mechanism, self._steps(mechanism, session, announced))
        except LoginRefused as fault:
            if "binding" in fault.text:  # as pop3d words it; no other mechanism is advised then
                fault.add_note(f"somebody between may have hidden {_PLUS}; do not log in on this connection")
            elif mechanism in (_PLUS, _SCRAM) and self.auth is None:
                fault.add_note(f"by {mechanism}, which needs a verifier on the server; `auth=plain` does not")
            raise

    def _choose(self, announced: Capabilities, bindable: Callable[[], bool]) -> str:
        """The best mechanism for what is known; ``bindable``: whether the channel has a binding, for which the
        certificate has to be read. Raises `LoginRefused`.
        """
        offered = _mechanisms(announced)
        if self.token is not None:
            return self._first_of(_TOKENS, offered, "it takes no tokens of OAuth 2")
        if self.has_certificate and "EXTERNAL" in offered:
            return "EXTERNAL"
        if self.secret is None:
            return self._first_of(("EXTERNAL",), offered, "it takes no client certificate, and no password is known")
        if _can_be_prepared(self.account.user or "", self.secret):
            if _PLUS in offered and bindable():
                return _PLUS
            if _SCRAM in offered:
                return _SCRAM
        if "PLAIN" in offered:
            return "PLAIN"
        # a server that announces nothing at all takes USER and PASS (RFC 1939 §7)
        return "LOGIN" if "LOGIN" in offered and "USER" not in announced else _USER

    def _first_of(self, wanted: tuple[str, ...], offered: list[str], why: str) -> str:
        for name in wanted:
            if name in offered:
                return name
        what = f"{self.account.server} offers {' '.join(offered) or 'no mechanism'}"
        raise LoginRefused(what, why, "choose another way with `auth`", code=None, text="")

    def _steps(self, mechanism: str, session: Session, announced: Capabilities) -> ClientSteps:
        user = self.account.user or ""
        if mechanism in (_PLUS, _SCRAM) and not _can_be_prepared(user, self._password()):
            raise NotValid(f"AUTH {mechanism}", "a character in name or password is not for SCRAM", "use `auth=plain`")
        match mechanism:
            case "SCRAM-SHA-256-PLUS":
                binding = _binding(session)
                if binding is None:
                    why = "the server's certificate has no channel binding"
                    raise NotValid(f"AUTH {_PLUS}", why, "use `auth=scram-sha-256`")
                return scram.client(user, self._password(), _nonce(), channel_binding=binding)
            case "SCRAM-SHA-256":
                # RFC 5802 §6: a client that could bind, and sees no -PLUS announced, MUST say so
                could_bind = _PLUS not in _mechanisms(announced) and _binding(session) is not None
                return scram.client(user, self._password(), _nonce(), could_bind=could_bind)
            case "PLAIN":
                return plain.client(user, self._password())
            case "LOGIN":
                return login.client(user, self._password())
            case "EXTERNAL":
                # the mailbox that was named, and no other that the certificate might open
                return external.client(user)
            case _:
                token = (self.token or self._password()).decode("ascii", "replace")
                bearer: Callable[[], ClientSteps] = lambda: oauth.bearer_client(  # noqa: E731
                    user, token, self.account.host, self.account.port
                )
                return bearer() if mechanism == "OAUTHBEARER" else oauth.xoauth2_client(user, token)

    def _password(self) -> bytes:
        if self.secret is None:
            raise UsageFault(f"login as {self.account.name}", "no password is known", "give `auth` to be asked for it")
        return self.secret


def prepare(account: Account, settings: Settings) -> LoginPlan:
    """All that it takes to get in, found before a connection is made. May ask at the terminal.

    Raises `UsageFault`, `SettingFault`.
    """
    return with_secret(way_to(account, settings), settings)


def plan_of(url: str, tls: ssl.SSLContext, secret: bytes | None = None) -> LoginPlan:
    """The same for a program that has all it takes: an account's URL, and its password. Raises `UsageFault`."""
    return LoginPlan(parse_account(url), tls, secret=secret)


def way_to(account: Account, settings: Settings) -> LoginPlan:
    """The same without a secret: it connects, and does not log in."""
    if settings.insecure and (settings.pins or settings.cacert):
        raise UsageFault("`insecure`", "does not go with `pins` or `cacert`", "those verify the server")
    timeout = settings.timeout or TIMEOUT
    auth = None if settings.auth is None else parse_mechanism(settings.auth)
    has_certificate = settings.client_cert is not None
    if auth == "EXTERNAL" and not has_certificate:
        raise SettingFault("`auth=external`", "there is no client certificate to log in by", "give `client_cert=FILE`")
    tls = client_context(
        settings.cacert,
        pins=settings.pins,
        insecure=settings.insecure,
        client_cert=settings.client_cert,
        client_key=settings.client_key,
        passphrase=prompt_passphrase,
    )
    dial = None if settings.proxy is None else dial_by(settings.proxy, timeout)
    return LoginPlan(account, tls, timeout, dial, auth, has_certificate)


def with_secret(login_plan: LoginPlan, settings: Settings) -> LoginPlan:
    """The same with the account's secret: a token, or a password, which may be asked for. Not for an event loop.

    Raises `UsageFault`, `SettingFault`, and what `pop3cli.auth.token_store.access_token` raises.
    """
    account = login_plan.account
    if account.user is None or login_plan.auth == "EXTERNAL":
        return login_plan
    command, keyring = settings.password_command, settings.keyring
    if settings.oauth is not None and command is None and login_plan.auth in (None, *_TOKENS):
        from pop3cli.auth.token_store import access_token  # with http and all

        return replace(login_plan, token=access_token(account, settings, dial=login_plan.dial))
    if login_plan.auth is None and login_plan.has_certificate:
        # the certificate may well do; whoever wants to be asked says another mechanism
        return replace(login_plan, secret=known_password(account, command, keyring=keyring))
    return replace(login_plan, secret=find_password(account, command, keyring=keyring))


async def _announced(session: Session) -> Capabilities:
    try:
        return await session.capa()
    except CommandRefused:
        return Capabilities()  # RFC 2449 §5: CAPA is optional


def _mechanisms(announced: Capabilities) -> list[str]:
    return [name.upper() for name in announced.get("SASL", ())]


def _can_be_prepared(user: str, password: bytes) -> bool:
    try:
        saslprep(user)
        prepared(password)
    except SaslError:
        return False
    return True


def _nonce() -> str:
    return secrets.token_urlsafe(24)


def _binding(session: Session) -> bytes | None:
    certificate = None if session.tls is None else session.tls.getpeercert(binary_form=True)
    return None if certificate is None else end_point(certificate)
