"""Who may log in.

An `Authenticator` checks what a client proves itself with and says which `Account` that is. It costs the same whether
the user exists or not, and never says which of the two was wrong. One that has what SCRAM or APOP need is a
`KeepsSecrets` as well.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, runtime_checkable

from pop3d.auth.user_limits import NO_LIMITS, UserLimits

if TYPE_CHECKING:  # whoever only delivers mail does without the engine
    from pop3core.answers import NoSecret, PlainSecret, ScramSecret
    from pop3core.events import Credential
    from pop3core.sasl.base import SecretKind
    from pop3d.auth.cannot_serve import CannotServe

__all__ = [
    "Account",
    "AuthError",
    "AuthUnavailable",
    "Authenticator",
    "CannotServe",
    "KeepsSecrets",
    "KnowsLimits",
    "KnowsSpellings",
    "KnowsUsers",
    "Network",
    "TellsTrouble",
    "check_user_name",
]

_NAME_OCTETS_MAX: Final = 255  # what fits into one component of a path


Network: TypeAlias = IPv4Network | IPv6Network


class AuthError(Exception):
    """What users are read from is not usable; one clear line, without secrets."""


class AuthUnavailable(Exception):
    """Credentials cannot be checked now, for no fault of theirs. One clear line for the log, without secrets."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user, as somebody who has proved to be it, or to whom mail is delivered.

    ``home``: from the users file, for ``{home}`` in the path of the mailbox. Two things forbid a login in spite of the
    proof, and `pop3d.logins` sees to them: ``forbidden``, why there is none at all (``""``: there is), and
    ``networks``, the only ones that it may come from (none: from everywhere). Neither keeps mail from being delivered.
    ``limits``: what holds for this user in place of what is configured for all.
    """

    name: str
    home: str | None = None
    networks: tuple[Network, ...] = ()
    forbidden: str = ""
    limits: UserLimits = NO_LIMITS


class Authenticator(Protocol):
    """Checks credentials."""

    async def authenticate(self, credential: Credential, source: str = "") -> Account | None:
        """Whose credential it is; None when it is refused, for whatever reason. Never blocks the event loop.

        ``source``: where it comes from (see `pop3d.abuse.addresses.source_of`); work that waits is done in turn for
        each, and the attribute ``address`` is the client's own, where that is known. `Verified` was checked by the
        engine already, with what `KeepsSecrets.secret` gave or by the client's certificate: only the account is wanted.
        `ProofFailed` is refused, but it takes the time that `Verified` takes, and raises what that raises, so that
        neither tells whether the proof was good. A kind of credential that is not known is refused. Raises
        `AuthUnavailable` when it cannot be known now.
        """
        ...

    async def reload(self) -> None:
        """Read the sources again. Raises `AuthError` for a fault in them, and goes on with what it had."""
        ...

    async def close(self) -> None:
        """Free what it holds."""
        ...


@runtime_checkable
class KeepsSecrets(Protocol):
    """An authenticator that knows more of a password than how to check it."""

    async def secret(self, username: str, kind: SecretKind, server_nonce: str) -> ScramSecret | PlainSecret | NoSecret:
        """What is stored for SCRAM or APOP. An unknown user is answered in the same time as a known one, by a
        `NoSecret` with the same salt and iterations each time, such as users have. A user whose secret does not serve
        it is answered likewise, by a `CannotServe`: that is no failed login. ``server_nonce``: fresh, to be passed on.
        Raises `AuthUnavailable` when it cannot be known now.
        """
        ...


@runtime_checkable
class KnowsSpellings(Protocol):
    """An authenticator that lets a user log in by more than one spelling of the name."""

    def account_name(self, username: str) -> str:
        """What limits of one account go by: the same for all spellings of it, as far as that is known without asking
        anybody. See `pop3d.auth.names.spelled`, which is used where there is no such method.
        """
        ...


@runtime_checkable
class KnowsLimits(Protocol):
    """An authenticator whose users may have limits of their own."""

    def limits_of_users(self) -> Collection[UserLimits]:
        """Each that somebody has, or may have; asked again after `Authenticator.reload`.

        Clients are told before the login what no user goes beyond (RFC 2449 §6.5, §6.7), and that holds.
        """
        ...


@runtime_checkable
class TellsTrouble(Protocol):
    """An authenticator, or a store, that can say whether it works. It is asked every few seconds."""

    async def trouble(self) -> str | None:
        """What keeps it from working now, in one line without secrets; None: nothing. Never blocks the event loop."""
        ...


@runtime_checkable
class KnowsUsers(Protocol):
    """An authenticator that can say who there is, for `pop3d deliver` and its like."""

    async def account(self, name: str) -> Account | None:
        """A user by name, to whom mail is delivered; None when there is no such.

        Raises `AuthUnavailable` when it cannot be known now.
        """
        ...


def check_user_name(name: str) -> None:
    """Raises ValueError, saying why, for a name that is not fit for a path, a log and a users file."""
    if not name:
        raise ValueError("a user name is not empty")
    if len(name.encode("utf-8", "surrogateescape")) > _NAME_OCTETS_MAX:
        raise ValueError(f"a user name has at most {_NAME_OCTETS_MAX} octets")
    if not name.isprintable() or any(character.isspace() for character in name):
        raise ValueError("a user name has no blanks and no control characters")
    if "/" in name or ":" in name:
        raise ValueError('a user name has no "/" and no ":"')
    if name.startswith("."):
        raise ValueError("a user name does not begin with a dot")


def __getattr__(name: str) -> object:
    if name == "CannotServe":
        from pop3d.auth.cannot_serve import CannotServe

        return CannotServe
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
