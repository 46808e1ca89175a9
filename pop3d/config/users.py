"""``[auth]`` and its tables: who may log in, and how that is found out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator

from pop3d.config.base import Exchangeable, Model, Network, Plugin, Postgres, checked_conninfo, is_loopback

__all__ = ["Auth", "Dovecot", "OAuth", "Pam", "PostgresUsers"]

Text = Annotated[str, Field(min_length=1, max_length=2048)]


class OAuth(Model):
    """``[auth.oauth]``: whose tokens are believed, and how they are checked."""

    issuer: Text | None = None
    audience: Text | None = None
    jwks: Text | None = None
    introspection: Text | None = None
    client_id: Text | None = None
    client_secret_file: Path | None = None
    user_claim: Text = "email"
    scope: Text | None = None
    leeway_seconds: Annotated[int, Field(ge=0, le=300)] = 30

    @property
    def files(self) -> list[Path]:
        """All that is read for it, at the start and on SIGHUP."""
        files = [] if self.client_secret_file is None else [self.client_secret_file]
        return [*files, Path(self.jwks)] if self.jwks is not None and "://" not in self.jwks else files

    @field_validator("jwks", "introspection")
    @classmethod
    def _nobody_listens(cls, place: str | None, info: ValidationInfo) -> str | None:
        if place is None or (info.field_name == "jwks" and "://" not in place):
            return place
        if not _is_private(place):
            raise ValueError("use an https:// URL without user and fragment; http:// is for loopback")
        return place

    @model_validator(mode="after")
    def _can_be_checked(self) -> OAuth:
        if (self.jwks is None) is (self.introspection is None):
            raise ValueError("tokens are checked by `jwks` or by `introspection`; give one of them")
        # a token that was made for another program must not open a mailbox
        if self.jwks is not None and (self.issuer is None or self.audience is None):
            raise ValueError("with `jwks`, `issuer` and `audience` are needed: whose tokens, made for whom")
        if self.introspection is not None and self.audience is None and self.scope is None:
            raise ValueError("with `introspection`, `audience` or `scope` is needed: tokens made for whom")
        of_introspection = {self.client_id is None, self.client_secret_file is None, self.introspection is None}
        if len(of_introspection) > 1:
            raise ValueError("`introspection`, `client_id` and `client_secret_file` go together")
        return self


_OURS: Final = {
    "add_user": "insert into pop3_users (name, password) values (%(user)s, %(password)s)",
    "set_password": "update pop3_users set password = %(password)s where name = %(user)s",
    "remove_user": "delete from pop3_users where name = %(user)s",
    "list_users": "select name, password from pop3_users order by name",
}
"""Statements of `pop3d user` for our own table."""


class PostgresUsers(Postgres):
    """``[auth.postgres]``: which database, how a user is found in it, and how `pop3d user` edits it."""

    query: str = "select password, home from pop3_users where name = %(user)s"
    admin_conninfo: SecretStr | None = None  # it may have a password
    add_user: Text | None = None
    set_password: Text | None = None
    remove_user: Text | None = None
    list_users: Text | None = None

    @field_validator("query", "add_user", "set_password", "remove_user")
    @classmethod
    def _asks_for_a_user(cls, statement: str | None, info: ValidationInfo) -> str | None:
        if statement is not None and "%(user)s" not in statement:
            what = "query" if info.field_name == "query" else "statement"
            raise ValueError(f"the {what} has no %(user)s, where the user's name belongs")
        if (
            statement is not None
            and info.field_name in ("add_user", "set_password")
            and "%(password)s" not in statement
        ):
            raise ValueError("the statement has no %(password)s, where the {SCHEME}secret belongs")
        return statement

    @field_validator("admin_conninfo")
    @classmethod
    def _admin_is_understood(cls, conninfo: SecretStr | None) -> SecretStr | None:
        return None if conninfo is None else checked_conninfo(conninfo)

    @property
    def statements(self) -> dict[str, str | None]:
        """What `pop3d user` does, by key; None where the table is none of ours and nothing says how."""
        ours = _OURS if re.search(r"\bpop3_users\b", self.query) else {}
        return {key: getattr(self, key) or ours.get(key) for key in _OURS}


class Pam(Model):
    """``[auth.pam]``: which service of PAM is asked."""

    service: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$")] = "pop3"


class Dovecot(Model):
    """``[auth.dovecot]``: at which sockets Dovecot is asked. ``timeout``: seconds that one login may take there."""

    socket: Path = Path("/run/dovecot/auth-client")
    userdb_socket: Path | None = None
    timeout: Annotated[float, Field(ge=1, le=600)] = 10


_TOKENS: Final = {"oauthbearer", "xoauth2"}
_SERVES: Final = {"oauth": _TOKENS, "pam": {"plain", "login"}, "dovecot": {"plain", "login"}}
"""Mechanisms of the backends that cannot serve all; [auth.oauth] serves tokens beside any."""


class Auth(Exchangeable):
    """``[auth]``: who may log in."""

    _ours: ClassVar = ("file", "pam", "postgres", "oauth", "dovecot")
    _for_all: ClassVar = frozenset(
        {"backend", "options", "mechanisms", "oauth", "trusted_networks", "usernames", "default_domain"}
    )

    backend: Plugin = "file"
    users: Path = Path("users")
    mechanisms: tuple[
        Literal["plain", "login", "apop", "scram-sha-256", "scram-sha-256-plus", "external", "oauthbearer", "xoauth2"],
        ...,
    ] = ("plain",)
    usernames: Literal["as-is", "lower-domain", "lower"] = "lower-domain"
    default_domain: Annotated[str, Field(pattern=r"^[^\s@/:\x00-\x1f\x7f]*$", max_length=253)] = ""
    latin1_passwords: bool = False
    trusted_networks: tuple[Network, ...] = ()
    oauth: OAuth | None = None
    postgres: PostgresUsers | None = None
    pam: Pam | None = None
    dovecot: Dovecot | None = None

    @field_validator("trusted_networks")
    @classmethod
    def _not_everybody(cls, networks: tuple[Network, ...]) -> tuple[Network, ...]:
        if any(not network.prefixlen for network in networks):
            raise ValueError("every address would be trusted; name those of the webmail, the fetcher or the proxy")
        return networks

    @field_validator("mechanisms")
    @classmethod
    def _some(cls, mechanisms: tuple[str, ...]) -> tuple[str, ...]:
        if not mechanisms:
            # RFC 1939 §4: at least one way of logging in
            raise ValueError('nobody could log in; say mechanisms = ["plain"]')
        return mechanisms

    @model_validator(mode="after")
    def _database_is_named(self) -> Auth:
        if (self.backend == "postgres") is not (self.postgres is not None):
            raise ValueError('`backend = "postgres"` and the table [auth.postgres] go together; give both, or none')
        return self

    @model_validator(mode="after")
    def _backend_serves_them(self) -> Auth:
        served = _SERVES.get(self.backend)
        if served is not None and (others := set(self.mechanisms) - served - _TOKENS):
            raise ValueError(
                f'backend = "{self.backend}" cannot serve {", ".join(sorted(others))}; '
                f"say mechanisms = {json.dumps(sorted(served))}"
            )
        if self.pam is not None and self.backend != "pam":
            raise ValueError('[auth.pam] is for backend = "pam"; remove it, or say so')
        if self.dovecot is not None and self.backend != "dovecot":
            raise ValueError('[auth.dovecot] is for backend = "dovecot"; remove it, or say so')
        return self

    @model_validator(mode="after")
    def _tokens_can_be_checked(self) -> Auth:
        if self.backend == "dovecot":
            if self.oauth is not None:  # who may not log in there could, with a token that Dovecot never saw
                raise ValueError('with backend = "dovecot" tokens are checked by Dovecot; remove [auth.oauth]')
        elif (self.oauth is not None) is not bool(_TOKENS & set(self.mechanisms)):
            raise ValueError(
                "the mechanisms oauthbearer and xoauth2 go with the table [auth.oauth]; give both, or none"
            )
        return self


def _is_private(text: str) -> bool:
    """Whether nobody listens to what is asked at this URL."""
    try:
        url = urlsplit(text)
        host, _ = url.hostname or "", url.port
    except ValueError:
        return False
    if not text.isascii() or not text.isprintable() or " " in text or url.username is not None or url.fragment:
        return False
    return bool(host) and (url.scheme == "https" or (url.scheme == "http" and is_loopback(host)))
