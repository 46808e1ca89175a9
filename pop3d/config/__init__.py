"""The configuration: a TOML file, validated whole, every fault found at once.

Each key is a field, here or in the module of its table; `docs/configuration.md` says what it means. A key that is not
known is a fault that names the closest one, so that nothing is ignored in silence. Paths are relative to the file and
come out absolute.
"""

from __future__ import annotations

import codecs
import importlib.util
import socket
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from pop3d.config.base import Model, Postgres, is_loopback
from pop3d.config.faults import described, toml_fault
from pop3d.config.listening import Certificates, Listen, Sni, Tls
from pop3d.config.lmtp import Lmtp
from pop3d.config.mail import StoreConfig, are_one_mailbox, lead_to_one_mailbox
from pop3d.config.running import Limits, Log, Metrics
from pop3d.config.users import Auth, Dovecot, OAuth, Pam, PostgresUsers
from pop3d.extras import install_line
from pop3d.system.access import let_us_read
from pop3d.system.ownership import Owners

__all__ = [
    "Auth",
    "Certificates",
    "Config",
    "ConfigError",
    "Dovecot",
    "Limits",
    "Listen",
    "Lmtp",
    "Log",
    "Metrics",
    "OAuth",
    "Pam",
    "Postgres",
    "PostgresUsers",
    "Sni",
    "StoreConfig",
    "Tls",
    "are_one_mailbox",
    "described",
    "find",
    "is_loopback",
    "load",
    "validated",
]

PLACES: Final = (Path("pop3d.toml"), Path("/etc/pop3d/pop3d.toml"))
"""Where a configuration is looked for when none is named."""


class ConfigError(Exception):
    """A configuration cannot be used. ``faults``: one line each, saying file, key, what is wrong and what to do."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Config(Model):
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
    lmtp: Lmtp = Lmtp()
    limits: Limits = Limits()
    log: Log = Log()
    metrics: Metrics | None = None

    _file: Path | None = PrivateAttr(default=None)
    _found: dict[str, Any] = PrivateAttr(default_factory=dict)
    _trusted: Owners | None = PrivateAttr(default=None)
    _owner: tuple[int, int] | None = PrivateAttr(default=None)

    @property
    def file(self) -> Path | None:
        """What it was read from, as it was named; None when it was not."""
        return self._file

    @property
    def found(self) -> dict[str, Any]:
        """What stands in the file, secrets too; empty when it was read from none."""
        return self._found

    @property
    def trusted(self) -> Owners | None:
        """Who may have written what root obeys, besides what is `user`'s own; None for a process that is not root's."""
        return self._trusted

    @property
    def owner(self) -> tuple[int, int] | None:
        """User and group whose own this file is, where root obeys it nevertheless: root reads certificates, keys and
        users for him and binds ports, and does all else with his rights (`pop3d.system.ownership.acting`). None: no
        such.
        """
        return self._owner

    @property
    def files(self) -> list[tuple[str, Path]]:
        """What is read, or made, before the process becomes `user`: key and path. It may not be there."""
        files = [("state", self.state)]
        if self.auth.backend == "file":
            files.append(("auth.users", self.auth.users))
        if (oauth := self.auth.oauth) is not None:
            files += [("auth.oauth", file) for file in oauth.files]
        if self.auth.backend == "dovecot":
            # of the sockets, the folders: who may connect is no fault, but who could put others there gets passwords
            asked = self.auth.dovecot or Dovecot()
            files += [("auth.dovecot", one.parent) for one in (asked.socket, asked.userdb_socket) if one is not None]
        if self.tls is not None:
            files += [("tls", file) for file in self.tls.files]
        return list(dict.fromkeys(files))  # two names may share a file

    @property
    def has_lmtp(self) -> bool:
        """Whether an MTA may hand mail over by LMTP."""
        return any(listen.protocol == "lmtp" for listen in self.listen)

    @model_validator(mode="after")
    def _lmtp_knows_users_and_their_mail(self) -> Config:
        if not self.has_lmtp:
            if "lmtp" in self.model_fields_set:
                raise ValueError('[lmtp] is for a [[listen]] with protocol = "lmtp"; add one, or remove the table')
            return self
        if self.store.backend not in ("maildir", "postgres"):
            raise ValueError(
                f'protocol = "lmtp" delivers into a Maildir or PostgreSQL, and the store is "{self.store.backend}"; '
                "remove that [[listen]]"
            )
        asked = self.auth.dovecot
        unknown = self.auth.backend == "dovecot" and (asked is None or asked.userdb_socket is None)
        if self.auth.backend in ("pam", "oauth") or unknown:
            remedy = "set `userdb_socket` in [auth.dovecot]" if unknown else "let the MTA write the Maildirs itself"
            raise ValueError(
                'protocol = "lmtp" has to know who there is, and `auth.backend` = '
                f'"{self.auth.backend}" cannot tell; {remedy}'
            )
        return self

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
        templates = self.store.path + self.store.deleted + self.store.control
        if "{home}" not in templates or self.auth.backend == "file":
            return self
        if self.auth.backend != "dovecot":
            raise ValueError("{home} comes from the users file, and there is none; use {user} in the path")
        if self.auth.dovecot is None or self.auth.dovecot.userdb_socket is None:
            raise ValueError("{home} comes from Dovecot's userdb: set `userdb_socket` in [auth.dovecot]")
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
            raise ValueError(f"uvloop is missing: {install_line('uvloop')}")
        return loop

    @model_validator(mode="after")
    def _certificate_for_tls(self) -> Config:
        # RFC 8314 §4
        if self.tls is None and any(listen.tls != "none" for listen in self.listen):
            raise ValueError("[tls] is missing: name certificate and private_key (`pop3d cert create` makes them)")
        return self


def find(path: Path | None) -> Path:
    """``path``, or the first of `PLACES` that is there. Raises `ConfigError`."""
    if path is not None:
        return path
    for place in PLACES:
        try:
            there = place.exists()
        except PermissionError:  # in a folder that this user may not look into
            there = place.is_absolute()  # the fault of the last place is worth telling
        if there:
            return place
    raise ConfigError([f"no configuration: looked for {' and '.join(map(str, PLACES))}; name one with --config FILE"])


def load(path: Path, trusted: Owners | None = None, owner: tuple[int, int] | None = None) -> Config:
    """Reads and validates a file. ``trusted`` and ``owner``: see `Config`. Raises `ConfigError` with all faults."""
    try:
        octets = path.read_bytes()
    except PermissionError as fault:
        raise ConfigError([f"{path}: {fault.strerror}; {let_us_read(path)}"]) from None
    except OSError as fault:
        raise ConfigError([f"{path}: {fault.strerror}; name a readable file with --config FILE"]) from None
    try:
        # an editor of Windows begins UTF-8 with a byte order mark
        found = tomllib.loads(octets.removeprefix(codecs.BOM_UTF8).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise ConfigError([f"{path}: {toml_fault(fault, octets)}"]) from None
    return _made(found, path, trusted, owner)


def validated(found: dict[str, Any], like: Config) -> Config:
    """What stands in ``found``, as if it stood in the file of ``like``. Raises `ConfigError`."""
    assert like.file is not None
    return _made(found, like.file, like.trusted, like.owner)


def _made(found: dict[str, Any], path: Path, trusted: Owners | None, owner: tuple[int, int] | None) -> Config:
    try:
        config = Config.model_validate(found)
    except ValidationError as fault:
        raise ConfigError([f"{path}: {text}" for text in described(fault, of=Config)]) from None
    config = _absolute(config, path.absolute().parent)
    if config.store.deleted and lead_to_one_mailbox(config.store.path, config.store.deleted):
        what = "is the mailbox itself, or another user's: messages would be deleted where they are kept"
        raise ConfigError([f'{path}: `store.deleted`: it {what}; take a folder of its own, such as "deleted/{{user}}"'])
    config._file, config._found, config._trusted, config._owner = path, found, trusted, owner
    return config


def _absolute(config: Config, base: Path) -> Config:
    tls = config.tls
    if tls is not None:
        sni = tuple(one.model_copy(update=_files(one, base)) for one in tls.sni)
        tls = tls.model_copy(update={**_files(tls, base), "sni": sni})
    oauth, dovecot = config.auth.oauth, config.auth.dovecot
    return config.model_copy(
        update={
            "state": base / config.state,
            "listen": tuple(listen.model_copy(update=_files(listen, base)) for listen in config.listen),
            "tls": tls,
            "log": config.log.model_copy(update=_files(config.log, base)),
            "auth": config.auth.model_copy(
                update={
                    **_files(config.auth, base),
                    "oauth": oauth and oauth.model_copy(update=_keys(oauth, base)),
                    "dovecot": dovecot and dovecot.model_copy(update=_files(dovecot, base)),
                }
            ),
            "store": config.store.model_copy(
                update={
                    "path": _under(base, config.store.path),
                    "deleted": config.store.deleted and _under(base, config.store.deleted),
                    "control": config.store.control and _under(base, config.store.control),
                }
            ),
        }
    )


def _files(model: Model, base: Path) -> dict[str, Path]:
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
