"""Who is let in: the way from the greeting to TRANSACTION, as a machine of its own.

It owns what a login needs to know, and what comes of it: whether the connection is behind TLS and what TLS has proved,
which commands and mechanisms can be used on it as it is, the name that USER gave, the AUTH exchange or APOP under way,
who is logged in, and the count of refused credentials (`Summary.auth_failures`).

A command, a line of an exchange or the driver's answer goes in; one `Step` comes out, and the server does it: it sends
a challenge, puts a question, says that the credential was refused, or begins TRANSACTION. The machine touches nothing
else: it knows neither framing nor output, neither the session's state nor its language, and hands the maildrop's
listing on unread.

A proof that was checked here and a password that the driver checks are refused alike, and counted in one place.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NoReturn, TypeAlias

from pop3core import answers as a
from pop3core.capabilities import server_capabilities
from pop3core.commands import Apop, Auth, Command, Pass, Stls
from pop3core.errors import LocalProtocolError
from pop3core.events import Credential, LoginRequested, Password, ProofFailed, SecretRequested, Verified
from pop3core.replies import Code
from pop3core.sasl import MECHANISMS, Mechanism, SaslError
from pop3core.sasl.base import Challenge, SecretWanted, Tls, VerdictWanted
from pop3core.sasl.exchange import Exchange, Failed
from pop3core.sasl.exchange import Step as ExchangeStep
from pop3core.sasl.prep import prepared
from pop3core.settings import ServerConfig, Summary, check_policy
from pop3core.syntax import BadCommand
from pop3core.table import AFTER, Home, Rule, State

__all__ = ["Login", "LoginRefusal", "NoCredential", "Step"]

_TIMESTAMP = re.compile(r"<[\x21-\x3b\x3d\x3f-\x7e]{1,200}>")  # RFC 1939 §7 APOP, RFC 2449 §3: a msg-id of RFC 822


@dataclass(frozen=True, slots=True)
class LoginRefusal:
    """No: say -ERR with ``text`` and ``code``; it was the ``last`` that this connection may try.

    ``challenge``: what a mechanism says of its failure before; the -ERR follows the client's answer to it.
    """

    text: str
    code: Code
    last: bool = False
    challenge: bytes | None = None


@dataclass(frozen=True, slots=True)
class NoCredential:
    """AUTH led to nothing that could be refused: say -ERR with ``text`` and ``values``, as to a bad command.

    ``granted``: the driver had let the client in already, so the session ends.
    """

    text: str
    values: Mapping[str, object] = field(default_factory=dict)
    granted: bool = False


Step: TypeAlias = Challenge | LoginRequested | SecretRequested | LoginRefusal | NoCredential | a.LoginAccepted
"""What the server does next: send, ask, say that it was refused or came to nothing, or begin TRANSACTION."""


class Login:
    """One connection's login. Its attributes are for reading, but for ``named`` and ``utf8``."""

    __slots__ = (
        "_apop",
        "_config",
        "_granted",
        "_summary",
        "exchange",
        "expire",
        "login_delay",
        "mechanism",
        "named",
        "open",
        "secure",
        "timestamp",
        "tls",
        "username",
        "utf8",
    )

    def __init__(self, config: ServerConfig, summary: Summary, timestamp: str | None) -> None:
        """``summary``: told how the user logged in and what was refused; ``timestamp``: the greeting's, for APOP."""
        if timestamp is not None and not _TIMESTAMP.fullmatch(timestamp):
            raise LocalProtocolError("a timestamp is like <1896.697170952@mail.example.org>")
        self._config, self._summary, self.timestamp = config, summary, timestamp
        self.secure = False
        """The connection is behind TLS."""
        self.tls = Tls()
        """What TLS has proved."""
        self.open = self._opened()
        """The commands that are offered, and at home on this connection as it is now."""
        self.named = ""
        """USER's argument."""
        self.utf8 = False
        """The client has said UTF8."""
        self.mechanism: Mechanism | None = None
        """Of the last AUTH, unless another kind of login was tried since."""
        self.exchange: Exchange | LoginRefusal | None = None
        """While it is there the next line is no command: it answers a challenge, or takes note of a refusal."""
        self._granted: a.LoginAccepted | None = None  # waits for the client's last answer in the exchange
        self._apop: Apop | None = None  # waits for the user's secret
        self.expire, self.login_delay = config.expire, config.login_delay
        """The arguments of these capabilities, empty for none."""
        self.username: str | None = None
        """Who is logged in; None before."""

    # --- what can be used here ---

    def tls_established(self, answer: a.TlsEstablished) -> None:
        """The connection is behind TLS now: what the client said before is forgotten (RFC 2595 §4)."""
        self.secure = True
        self.open = self._opened()
        tls = Tls(answer.channel_binding, identity=answer.identity, tls_exporter=answer.tls_exporter)
        offered = "SCRAM-SHA-256-PLUS" in self._config.mechanisms and bool(tls.bindings)
        self.tls = replace(tls, binding_offered=offered)
        self.named = ""

    def _opened(self) -> frozenset[type[Command]]:
        # RFC 2595 §2.2, §2.3: no login in clear text, unless that is relaxed
        abroad = Home.PLAIN if self.secure else None if self._config.allow_plaintext else Home.TLS
        return self._config.offered(apop=self.timestamp is not None, abroad=abroad)

    def refuse(self, rule: Rule) -> NoReturn:
        """Raises `BadCommand`: why a command is not among the `open` ones.

        Known at the keyword, before any secret is looked at (RFC 8314 §4.1).
        """
        if rule.command not in self._config.offered(apop=self.timestamp is not None):
            raise BadCommand("{keyword} is not offered here", keyword=rule.keyword)
        if rule.home is Home.TLS:
            raise BadCommand(self._needs_tls, keyword=rule.keyword)
        raise BadCommand("{keyword} is not valid behind TLS", keyword=rule.keyword)

    @property
    def _plaintext_allowed(self) -> bool:
        return self.secure or self._config.allow_plaintext

    @property
    def _needs_tls(self) -> str:
        # RFC 8314 §4.1: no password in clear text, and who tries hears how to do better
        return f"{{keyword}} needs TLS first: {'say STLS, or ' if self._config.stls else ''}connect to port 995"

    def _is_usable(self, mechanism: Mechanism) -> bool:
        """Whether a mechanism works on this connection as it is now: what is announced can be used.

        RFC 2595 §6, RFC 5034 §4: no password in clear text before TLS.
        """
        return (
            (not mechanism.plaintext or self._plaintext_allowed)
            and (not mechanism.channel_binding or bool(self.tls.bindings))
            and (not mechanism.identity or self.tls.identity is not None)
        )

    def capabilities(self, state: State) -> tuple[str, ...]:
        """What CAPA lists in ``state``."""
        # RFC 2449 §5, RFC 5034 §3: the same in both states; but for what differs by user, and for STLS, which is
        # announced where it would work (RFC 2595 §4, RFC 8314 §4). RFC 2449 §6.2: USER exactly where it is taken.
        config = self._config
        return server_capabilities(
            passwords="PLAIN" in config.mechanisms and self._plaintext_allowed,
            mechanisms=[name for name in config.mechanisms if self._is_usable(MECHANISMS[name])],
            stls=Stls in self.open and Stls in AFTER[state] and not self.utf8,
            utf8=config.utf8,
            languages=bool(config.languages),
            expire=self.expire,
            login_delay=self.login_delay,
        )

    # --- what the client says ---

    def begin(self, command: Pass | Apop | Auth) -> Step:
        """PASS behind USER, APOP, or AUTH: a credential, or the beginning of an exchange that ends in one."""
        if isinstance(command, Auth):
            return self._auth(command)
        self.mechanism = None
        if isinstance(command, Pass):
            return self._check(Password(self.named, "", command.password))
        self._apop = command
        return SecretRequested(command.name, "APOP")

    def _auth(self, command: Auth) -> Step:
        # RFC 5034 §4: a mechanism that is not there is -ERR; behind a failure another one may be tried (§6)
        self.mechanism = mechanism = MECHANISMS.get(command.mechanism)
        if mechanism is None or mechanism.name not in self._config.mechanisms:
            return NoCredential("this mechanism is not offered")
        if mechanism.plaintext and not self._plaintext_allowed:
            return NoCredential(self._needs_tls, {"keyword": f"AUTH {mechanism.name}"})
        if not self._is_usable(mechanism):
            return NoCredential("this mechanism is not offered")
        self.exchange = exchange = Exchange(mechanism, self.tls)
        return self._follow(exchange.begin(command.initial))

    def respond(self, line: bytes) -> Step:
        """A line behind a challenge."""
        if isinstance(self.exchange, LoginRefusal):
            return self._noted(self.exchange)
        assert self.exchange is not None
        return self._follow(self.exchange.respond(line))

    def too_long(self, octets_max: int) -> Step:
        """A line behind a challenge that had more than ``octets_max`` octets."""
        if isinstance(self.exchange, LoginRefusal):
            return self._noted(self.exchange)
        return self._without("a command has at most {octets} octets", octets=octets_max)

    # --- what the driver says ---

    def answer(self, question: LoginRequested | SecretRequested, answer: a.ServerAnswer) -> Step:
        """The driver's answer. Raises `LocalProtocolError` for one that does not fit, and changes nothing then."""
        match question, answer:
            case LoginRequested(credential), a.LoginAccepted() if not isinstance(credential, ProofFailed):
                check_policy(answer.expire, answer.login_delay)
                if self.exchange is None:
                    return self._accepted(credential, answer)
                # RFC 5802 §3: the server proves itself too, and only to whom it lets in
                self._granted = answer
                return self._given(b"")
            case LoginRequested(), a.LoginRejected(code, text):
                return self._rejected(code, text)
            case SecretRequested(), a.LoginRejected(code, text) if code is not None:  # without one: nothing was refused
                return self._rejected(code, text)
            case SecretRequested(_, "APOP"), a.PlainSecret() | a.NoSecret():
                return self._apop_proof(answer)
            case SecretRequested(_, "SCRAM-SHA-256"), a.ScramSecret() | a.NoSecret():
                return self._given(answer)
        raise LocalProtocolError(f"{type(answer).__name__} is no answer to {type(question).__name__}")

    # --- what comes of it ---

    def _check(self, credential: Credential) -> LoginRequested:
        return LoginRequested(credential, self.utf8)

    def _given(self, answer: bytes | a.ScramSecret | a.NoSecret) -> Step:
        assert isinstance(self.exchange, Exchange)
        return self._follow(self.exchange.given(answer))

    def _follow(self, step: ExchangeStep) -> Step:
        """What an exchange wants next, or what came of it."""
        match step:
            case Challenge():
                return step
            case SecretWanted(username, kind):
                return SecretRequested(username, kind)
            case VerdictWanted(credential):
                return self._check(credential)
            case Failed(text):
                return self._without(text)
            case credential:
                self.exchange = None
                return self._check(credential) if self._granted is None else self._accepted(credential, self._granted)

    def _without(self, text: str, **values: object) -> NoCredential:
        """The exchange under way ends without a login."""
        self.exchange = None
        return NoCredential(text, values, granted=self._granted is not None)

    def _apop_proof(self, answer: a.PlainSecret | a.NoSecret) -> Step:
        command, self._apop = self._apop, None
        assert command is not None
        assert self.timestamp is not None
        try:
            # RFC 6856 §2.2: what both sides compute with is prepared
            secret = prepared(answer.secret) if isinstance(answer, a.PlainSecret) else None
        except SaslError:
            secret = None
        # RFC 1939 §7 APOP: MD5 of the timestamp, angle brackets included, and the shared secret
        digest = hashlib.md5(self.timestamp.encode() + (secret or b""), usedforsecurity=False).hexdigest()
        good = hmac.compare_digest(digest, command.digest) and secret is not None
        return self._check(Verified(command.name, "", "APOP") if good else ProofFailed(command.name, "APOP"))

    def _accepted(self, credential: Credential, answer: a.LoginAccepted) -> a.LoginAccepted:
        self.username = getattr(credential, "authzid", "") or credential.username
        named: str = getattr(credential, "mechanism", "USER")  # USER and PASS have none, nor has AUTH PLAIN
        self._summary.mechanism = self.mechanism.name if self.mechanism is not None else named
        # RFC 2449 §6.5, §6.7: now for this user, so without the token that says "differs by user"
        self.expire = (answer.expire or self.expire).removesuffix(" USER")
        self.login_delay = (answer.login_delay or self.login_delay).removesuffix(" USER")
        return answer

    def _rejected(self, code: Code | None, text: str) -> LoginRefusal:
        self.exchange = self._apop = None
        if code is not None:
            return LoginRefusal(text, code)
        # RFC 3206 §5, §6: AUTH says that the credential was refused, always, and nothing else says so
        self._summary.auth_failures += 1
        refused = LoginRefusal(text, "AUTH", self._summary.auth_failures >= self._config.limits.auth_failures_max)
        if self.mechanism is None or self.mechanism.failure is None:
            return refused
        self.exchange = refused
        return replace(refused, challenge=self.mechanism.failure)

    def _noted(self, refused: LoginRefusal) -> LoginRefusal:
        # whatever the line was, the client has taken note of the failure (RFC 7628 §3.2.3)
        self.exchange = None
        return refused
