"""The configuration: a TOML file, validated whole, every fault found at once.

Each key is a field below; `docs/configuration.md` says what it means. A key that is not known is a fault that names the
closest one, so that nothing is ignored in silence.
Paths are relative to the file and come out absolute.
"""

from __future__ import annotations

import difflib
import importlib.util
import ipaddress
import json
import re
import socket
import string
import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

__all__ = [
    "Auth",
    "Certificates",
    "Config",
    "ConfigError",
    "Limits",
    "Listen",
    "Log",
    "Metrics",
    "OAuth",
    "Pam",
    "Postgres",
    "PostgresUsers",
    "Sni",
    "StoreConfig",
    "Tls",
    "described",
    "find",
    "is_loopback",
    "load",
]

PLACES: Final = (Path("pop3d.toml"), Path("/etc/pop3d/pop3d.toml"))
"""Where a configuration is looked for when none is named."""

_SERVER_NAME: Final = re.compile(r"(\*\.)?[a-zA-Z0-9_-]{1,63}(\.[a-zA-Z0-9_-]{1,63})*")
_OF_MAILDIR: Final = {"path", "uidl", "utf8_downgrade", "sizes_in_names", "mark_seen", "deleted", "retention_days"}
_PLACEHOLDERS: Final = ("user", "local", "domain", "home")


class ConfigError(Exception):
    """A configuration cannot be used. ``faults``: one line each, saying file, key, what is wrong and what to do."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _network(text: object) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        if isinstance(text, str):
            return ipaddress.ip_network(text)
    except ValueError:
        pass
    raise ValueError(
        'a network is like "10.0.0.0/8" or "2001:db8::/64", with no bit set behind the prefix; or an address'
    )


Network = Annotated[ipaddress.IPv4Network | ipaddress.IPv6Network, PlainValidator(_network)]
Seconds = Annotated[float, Field(ge=1, le=86_400)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class Listen(_Model):
    """``[[listen]]``: where to accept connections."""

    host: str = "0.0.0.0"  # noqa: S104  # a mail server is there for others
    port: Annotated[int, Field(ge=0, le=65_535)] = 995  # RFC 8314 §7.1
    tls: Literal["implicit", "starttls", "none"] = "implicit"  # RFC 8314 §1.1, §4: preferred
    insecure: bool = False
    proxy_protocol: bool = False
    trusted_proxies: tuple[Network, ...] = ()
    reuse_port: bool = False

    @model_validator(mode="after")
    def _clear_text_stays_at_home(self) -> Listen:
        # RFC 2595 §2.3, RFC 8314 §4
        if self.tls == "none" and not self.insecure and not is_loopback(self.host):
            raise ValueError(
                'tls = "none" off loopback would send passwords in clear text; '
                'use "implicit" or "starttls", or say insecure = true'
            )
        return self

    @field_validator("reuse_port")
    @classmethod
    def _system_has_it(cls, reuse_port: bool) -> bool:
        if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
            raise ValueError("this system lets one process only listen on a port; remove it")
        return reuse_port

    @model_validator(mode="after")
    def _proxies_are_named(self) -> Listen:
        if self.proxy_protocol and not self.trusted_proxies:
            raise ValueError(
                "`proxy_protocol` lets a peer say whose connection it is; "
                'name the proxies that may: trusted_proxies = ["192.0.2.1/32"]'
            )
        return self


class Certificates(_Model):
    """A certificate and its key, and perhaps RSA ones beside them."""

    certificate: Path
    private_key: Path
    certificate_rsa: Path | None = None
    private_key_rsa: Path | None = None

    @model_validator(mode="after")
    def _rsa_is_whole(self) -> Self:
        if (self.certificate_rsa is None) is not (self.private_key_rsa is None):
            raise ValueError("`certificate_rsa` and `private_key_rsa` go together; give both, or none")
        return self

    @property
    def pairs(self) -> list[tuple[Path, Path]]:
        """Certificate and key; and the RSA ones."""
        pairs = [(self.certificate, self.private_key)]
        if self.certificate_rsa is not None and self.private_key_rsa is not None:
            pairs.append((self.certificate_rsa, self.private_key_rsa))
        return pairs


class Sni(Certificates):
    """``[[tls.sni]]``: what is shown to clients that ask for one of these names."""

    hosts: Annotated[tuple[str, ...], Field(min_length=1)]

    @field_validator("hosts")
    @classmethod
    def _names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not _SERVER_NAME.fullmatch(host) or len(host) > 255:
                raise ValueError(
                    'a name is like "mail.example.org" or "*.example.org", in ASCII (an international one as xn--...)'
                )
        return tuple(host.lower() for host in hosts)


class Tls(Certificates):
    """``[tls]``: what the listeners with TLS show."""

    minimum_version: Literal["1.2", "1.3"] = "1.2"
    client_ca: Path | None = None
    client_name: Literal["email", "cn", "dns"] = "email"
    sni: tuple[Sni, ...] = ()

    @property
    def files(self) -> list[Path]:
        """All that is read for it."""
        paths = [path for certificates in (self, *self.sni) for pair in certificates.pairs for path in pair]
        return paths if self.client_ca is None else [*paths, self.client_ca]

    @field_validator("sni")
    @classmethod
    def _each_name_once(cls, sni: tuple[Sni, ...]) -> tuple[Sni, ...]:
        seen: set[str] = set()
        for host in (host for one in sni for host in one.hosts):
            if host in seen:
                raise ValueError(f"the name {host} stands there twice; leave one")
            seen.add(host)
        return sni


Plugin = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:-]*$", max_length=255)]
"""The name of an entry point, or a dotted path; see `pop3d.plugins`."""


class _Exchangeable(_Model):
    """A table whose part may be a plug-in. ``options``: the plug-in's own, which it looks at itself."""

    backend: Plugin
    options: Annotated[dict[str, Any], Field(repr=False)] = {}  # pydantic copies it

    _ours: ClassVar[tuple[str, ...]] = ()
    _for_all: ClassVar[frozenset[str]] = frozenset({"backend", "options"})

    @property
    def is_plugin(self) -> bool:
        """Whether ``backend`` is none of ours."""
        return self.backend not in self._ours

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        if self.options and not self.is_plugin:
            raise ValueError(
                f'`options` are those of a plug-in, which `backend` = "{self.backend}" is not; remove them'
            )
        others = sorted(self.model_fields_set - self._for_all)
        if others and self.is_plugin:
            raise ValueError(f"`{others[0]}` means nothing to a plug-in, whose keys are `options`; remove it")
        return self


Text = Annotated[str, Field(min_length=1, max_length=2048)]


class OAuth(_Model):
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


class Postgres(_Model):
    """``[store.postgres]``: which database."""

    conninfo: SecretStr  # it may have a password

    @field_validator("conninfo")
    @classmethod
    def _is_understood(cls, conninfo: SecretStr) -> SecretStr:
        if importlib.util.find_spec("psycopg") is None:
            raise ValueError("psycopg is missing: pip install 'pop3core[postgres]'")
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict

        try:
            conninfo_to_dict(conninfo.get_secret_value())
        except ProgrammingError:  # its text has the string in it
            raise ValueError('say it as libpq does, such as "host=db.example.org dbname=mail user=pop3d"') from None
        return conninfo


class PostgresUsers(Postgres):
    """``[auth.postgres]``: which database, and how a user is found in it."""

    query: str = "select password, home from pop3_users where name = %(user)s"

    @field_validator("query")
    @classmethod
    def _asks_for_a_user(cls, query: str) -> str:
        if "%(user)s" not in query:
            raise ValueError("the query has no %(user)s, where the user's name belongs")
        return query


class Pam(_Model):
    """``[auth.pam]``: which service of PAM is asked."""

    service: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$")] = "pop3"


_TOKENS: Final = {"oauthbearer", "xoauth2"}
_SERVES: Final = {"oauth": _TOKENS, "pam": {"plain", "login"}}
"""Mechanisms of the backends that cannot serve all; [auth.oauth] serves tokens beside any."""


class Auth(_Exchangeable):
    """``[auth]``: who may log in."""

    _ours: ClassVar = ("file", "pam", "postgres", "oauth")
    _for_all: ClassVar = frozenset({"backend", "options", "mechanisms", "oauth"})

    backend: Plugin = "file"
    users: Path = Path("users")
    mechanisms: tuple[
        Literal["plain", "login", "apop", "scram-sha-256", "scram-sha-256-plus", "external", "oauthbearer", "xoauth2"],
        ...,
    ] = ("plain",)
    latin1_passwords: bool = False
    oauth: OAuth | None = None
    postgres: PostgresUsers | None = None
    pam: Pam | None = None

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
        return self

    @model_validator(mode="after")
    def _tokens_can_be_checked(self) -> Auth:
        if (self.oauth is not None) is not bool(_TOKENS & set(self.mechanisms)):
            raise ValueError(
                "the mechanisms oauthbearer and xoauth2 go with the table [auth.oauth]; give both, or none"
            )
        return self


class StoreConfig(_Exchangeable):
    """``[store]``: where the mail is."""

    _ours: ClassVar = ("maildir", "memory", "postgres")

    backend: Plugin = "maildir"
    path: str = "mail/{user}"
    uidl: Literal["filename", "dovecot", "courier"] = "filename"
    utf8_downgrade: bool = False
    sizes_in_names: bool = False
    mark_seen: bool = False
    deleted: str = ""
    quota_octets: Annotated[int, Field(ge=0)] = 0
    quota_messages: Annotated[int, Field(ge=0)] = 0
    retention_days: Annotated[float, Field(gt=0, le=36_500)] | None = None
    postgres: Postgres | None = None

    @field_validator("path", "deleted")
    @classmethod
    def _names_a_user(cls, path: str, info: ValidationInfo) -> str:
        if info.field_name == "deleted" and not path:
            return path
        try:
            names = [name for _, name, form, convert in string.Formatter().parse(path) if name is not None]
        except ValueError as fault:
            raise ValueError(f"{fault}; placeholders are {_listed(_PLACEHOLDERS)}") from None
        if unknown := [name for name in names if name not in _PLACEHOLDERS]:
            raise ValueError(f"unknown placeholder {{{unknown[0]}}}; there are {_listed(_PLACEHOLDERS)}")
        if not {"user", "local", "home"} & set(names):
            raise ValueError("all users would share one mailbox; use {user}, {local} or {home} in it")
        if "local" in names and not {"user", "domain", "home"} & set(names):
            raise ValueError("users of two domains would share one mailbox; use {domain} beside {local}, or {user}")
        return path

    @model_validator(mode="after")
    def _database_is_named(self) -> StoreConfig:
        if (self.backend == "postgres") is not (self.postgres is not None):
            raise ValueError('`backend = "postgres"` and the table [store.postgres] go together; give both, or none')
        if self.backend == "postgres" and (set_ := self.model_fields_set & _OF_MAILDIR):
            raise ValueError(f"`{min(set_)}` is of Maildir, not of PostgreSQL; remove it")
        return self

    @model_validator(mode="after")
    def _retention_is_of_what_is_kept(self) -> StoreConfig:
        if self.retention_days is not None and not self.deleted:
            raise ValueError('`retention_days` is for `deleted`, such as "deleted/{user}", which is not set')
        return self


class Limits(_Model):
    """``[limits]``: what clients may cost. Times in seconds."""

    connections: Count = 10_000
    connections_per_ip: Count = 100
    unauthenticated: Count = 1_000
    unauthenticated_per_ip: Count = 50
    handshake_timeout: Seconds = 10
    login_timeout: Seconds = 45
    write_timeout: Seconds = 60
    idle_timeout: Seconds = 600  # RFC 1939 §3: at least ten minutes
    bad_commands: Count = 20
    max_auth_failures: Count = 3
    auth_penalty: Annotated[float, Field(ge=0, le=60)] = 2.0
    auth_penalty_max: Annotated[float, Field(ge=0, le=60)] = 15.0
    auth_failures_per_account: Count = 30
    auth_failures_total: Count = 600

    @model_validator(mode="after")
    def _penalties_grow(self) -> Limits:
        if self.auth_penalty_max < self.auth_penalty:
            raise ValueError("`auth_penalty_max` is less than `auth_penalty`, where penalties begin")
        return self


class Log(_Model):
    """``[log]``: what is told, and how."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Metrics(_Model):
    """``[metrics]``: where Prometheus may ask."""

    listen: str = "127.0.0.1:9195"

    @field_validator("listen")
    @classmethod
    def _host_and_port(cls, listen: str) -> str:
        host, _, port = listen.rpartition(":")
        if not host or (":" in host) != (host[0] == "[" and host[-1] == "]"):
            raise ValueError('say host and port, such as "127.0.0.1:9195" or "[::1]:9195"')
        if not port.isascii() or not port.isdecimal() or int(port) > 65_535:
            raise ValueError("a port is a number up to 65535")
        return listen

    @model_validator(mode="after")
    def _extra_is_installed(self) -> Metrics:
        if importlib.util.find_spec("prometheus_client") is None:
            raise ValueError("prometheus-client is missing: pip install 'pop3core[metrics]'")
        return self

    @property
    def host(self) -> str:
        """Where to listen, without brackets."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """0: any that is free."""
        return int(self.listen.rpartition(":")[2])


class Config(_Model):
    """The whole file."""

    hostname: str = Field(default_factory=socket.gethostname)
    user: str | None = None
    group: str | None = None
    state: Path = Path("state")
    drain_timeout: Annotated[float, Field(ge=0, le=3_600)] = 10
    loop: Literal["asyncio", "uvloop"] = "asyncio"
    listen: Annotated[tuple[Listen, ...], Field(min_length=1)]
    tls: Tls | None = None
    auth: Auth = Auth()
    store: StoreConfig = StoreConfig()
    limits: Limits = Limits()
    log: Log = Log()
    metrics: Metrics | None = None

    _file: Path | None = PrivateAttr(default=None)

    @property
    def file(self) -> Path | None:
        """What it was read from, as it was named; None when it was not."""
        return self._file

    @model_validator(mode="after")
    def _certificates_of_clients(self) -> Config:
        # RFC 8314 §4.2: certificates are asked for where they are enough to log in, and EXTERNAL is there then
        if "external" in self.auth.mechanisms and (self.tls is None or self.tls.client_ca is None):
            raise ValueError(
                "the mechanism external is a login by client certificate: name who signs them, `client_ca` in [tls]"
            )
        return self

    @model_validator(mode="after")
    def _one_certificate_to_bind_to(self) -> Config:
        pairs = [] if self.tls is None else [self.tls.pairs, *(sni.pairs for sni in self.tls.sni)]
        if "scram-sha-256-plus" in self.auth.mechanisms and any(len(one) > 1 for one in pairs):
            raise ValueError(
                "scram-sha-256-plus binds a login to the certificate that was shown, and with `certificate_rsa` that "
                "cannot be known; remove one of the two"
            )
        return self

    @model_validator(mode="after")
    def _homes_are_known(self) -> Config:
        if self.auth.backend != "file" and "{home}" in self.store.path + self.store.deleted:
            raise ValueError("{home} comes from the users file, and there is none; use {user} in the path")
        return self

    @field_validator("hostname")
    @classmethod
    def _fit_for_a_greeting(cls, hostname: str) -> str:
        # RFC 2449 §4: the greeting is a reply, so 512 octets at most; a host name has 253
        if not hostname.isascii() or not hostname.isprintable() or " " in hostname or len(hostname) > 253:
            raise ValueError("a host name is at most 253 ASCII characters without blanks")
        return hostname

    @field_validator("loop")
    @classmethod
    def _loop_is_installed(cls, loop: str) -> str:
        if loop == "uvloop" and importlib.util.find_spec("uvloop") is None:
            raise ValueError("uvloop is missing: pip install 'pop3core[uvloop]'")
        return loop

    @model_validator(mode="after")
    def _certificate_for_tls(self) -> Config:
        if self.tls is None and any(listen.tls != "none" for listen in self.listen):
            raise ValueError("[tls] is missing: name certificate and private_key (`pop3d cert create` makes them)")
        return self


def find(path: Path | None) -> Path:
    """``path``, or the first of `PLACES` that is there. Raises `ConfigError`."""
    if path is not None:
        return path
    for place in PLACES:
        if place.exists():
            return place
    raise ConfigError([f"no configuration: looked for {' and '.join(map(str, PLACES))}; name one with --config FILE"])


def load(path: Path) -> Config:
    """Reads and validates a file. Raises `ConfigError` with all faults."""
    try:
        with path.open("rb") as file:
            found = tomllib.load(file)
    except OSError as fault:
        raise ConfigError([f"{path}: {fault.strerror}; name a readable file with --config FILE"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise ConfigError([f"{path}: not TOML: {fault}"]) from None
    try:
        config = Config.model_validate(found)
    except ValidationError as fault:
        raise ConfigError([f"{path}: {text}" for text in described(fault)]) from None
    config = _absolute(config, path.absolute().parent)
    config._file = path
    return config


def described(fault: ValidationError, *above: str) -> list[str]:
    """The faults of a table, a line each. ``above``: the table's name."""
    return [_described(error, above) for error in fault.errors()]


def _absolute(config: Config, base: Path) -> Config:
    tls = config.tls
    if tls is not None:
        sni = tuple(one.model_copy(update=_files(one, base)) for one in tls.sni)
        tls = tls.model_copy(update={**_files(tls, base), "sni": sni})
    oauth = config.auth.oauth
    return config.model_copy(
        update={
            "state": base / config.state,
            "tls": tls,
            "auth": config.auth.model_copy(
                update={**_files(config.auth, base), "oauth": oauth and oauth.model_copy(update=_keys(oauth, base))}
            ),
            "store": config.store.model_copy(
                update={
                    "path": _under(base, config.store.path),
                    "deleted": config.store.deleted and _under(base, config.store.deleted),
                }
            ),
        }
    )


def _files(model: _Model, base: Path) -> dict[str, Path]:
    """Its fields that are paths, below a folder."""
    return {name: base / value for name, value in model if isinstance(value, Path)}


def _keys(oauth: OAuth, base: Path) -> dict[str, Any]:
    jwks = oauth.jwks
    return {**_files(oauth, base), "jwks": str(base / jwks) if jwks is not None and "://" not in jwks else jwks}


def _under(base: Path, template: str) -> str:
    """A template below a folder whose own name may have braces in it. One that begins with {home} is absolute."""
    if template.startswith(("/", "{home}")):
        return template
    return str(base).replace("{", "{{").replace("}", "}}") + "/" + template


def _described(error: Any, above: tuple[str, ...]) -> str:
    """A fault as one line."""
    keys = [*above, *(part for part in error["loc"] if isinstance(part, str))]
    name = ".".join(keys)
    if error["type"] == "extra_forbidden":
        return f"unknown key `{name}`{'; remove it' if above else _closest(keys)}"
    if error["type"] == "missing":
        return f"`{name}` is missing" + ("; at least one [[listen]] is needed" if name == "listen" else "")
    text = error["msg"].removeprefix("Value error, ")
    text = text[:1].lower() + text[1:]
    return f"`{name}`: {text}" if name else text


def _closest(keys: list[str]) -> str:
    models: dict[str, type[BaseModel]] = {
        "listen": Listen, "tls": Tls, "tls.sni": Sni, "auth": Auth, "auth.oauth": OAuth, "auth.pam": Pam,
        "auth.postgres": PostgresUsers, "store": StoreConfig, "store.postgres": Postgres,
        "limits": Limits, "log": Log, "metrics": Metrics,
    }  # fmt: skip
    model = models.get(".".join(keys[:-1]), Config)
    close = difflib.get_close_matches(keys[-1], model.model_fields, n=1)
    return f"; did you mean `{close[0]}`?" if close else ""


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)


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


def is_loopback(host: str) -> bool:
    """True for an address, or name, of this machine that no other can reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
