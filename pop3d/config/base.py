"""What the tables of the configuration have in common."""

from __future__ import annotations

import importlib.util
import ipaddress
from typing import Annotated, Any, ClassVar, Final, Literal, Self, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pop3d.extras import install_line
from pop3d.system.ip_addresses import IpNetwork, unmapped, unmapped_network

__all__ = [
    "ANY",
    "Exchangeable",
    "Host",
    "Model",
    "Network",
    "Plugin",
    "Postgres",
    "checked_conninfo",
    "host_of",
    "is_loopback",
]


class Model(BaseModel):
    """A table: no unknown key, nothing to change later, and no value of its in an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _of_its_kind(cls, value: object, info: ValidationInfo) -> object:
        # pydantic takes "995" for 995, "yes" for true, and false for 0, which for `expire` would cost mail
        kinds = _kinds(cls.model_fields[info.field_name or ""].annotation)
        if isinstance(value, bool):
            if bool not in kinds and kinds & {int, float}:
                raise ValueError("a number is wanted, and not true or false")
        elif bool in kinds:
            raise ValueError("true or false is wanted, in lower case and without quotes")
        elif isinstance(value, str) and str not in kinds and kinds & {int, float}:
            raise ValueError("a number is wanted, without quotes and without a unit")
        elif isinstance(value, float) and int in kinds and float not in kinds:
            raise ValueError("a whole number is wanted")
        return value


def _kinds(annotation: object) -> set[object]:
    """What a value may be in TOML, by the types of a field: bool, int, float and str."""
    if get_origin(annotation) is Literal:
        return {type(value) for value in get_args(annotation)}
    if (inner := get_args(annotation)) and not isinstance(annotation, type):
        return set().union(*map(_kinds, inner))
    return {annotation}


Plugin = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:-]*$", max_length=255)]
"""The name of an entry point, or a dotted path; see `pop3d.plugins`."""


def _network(text: object) -> IpNetwork:
    try:
        if isinstance(text, str):
            return unmapped_network(ipaddress.ip_network(text))
    except ValueError:
        pass
    raise ValueError(
        'a network is like "10.0.0.0/8" or "2001:db8::/64", with no bit set behind the prefix; or an address'
    )


Network = Annotated[IpNetwork, PlainValidator(_network)]

ANY: Final = "*"
"""The host that means all addresses of this machine, of IPv4 and of IPv6."""


def host_of(text: str) -> str:
    """An address as it is written shortest, without brackets; or a name, or `ANY`, which is also what ``""`` means."""
    bracketed = text.startswith("[") and text.endswith("]")
    inner = text[1:-1] if bracketed else text
    address, percent, zone = inner.partition("%")
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        if any(character in text for character in "[]:"):
            raise ValueError(
                'no such address; say one like "192.0.2.1" or "2001:db8::1", a name, or "*" for all of this machine'
            ) from None
        return inner or ANY
    return f"{unmapped(ip)}{percent}{zone}"


Host = Annotated[str, AfterValidator(host_of)]


class Exchangeable(Model):
    """A table whose part may be a plug-in. ``options``: the plug-in's own, which it looks at itself."""

    backend: Plugin
    options: Annotated[dict[str, Any], Field(repr=False)] = {}  # pydantic copies it

    _ours: ClassVar[tuple[str, ...]] = ()
    _for_all: ClassVar[frozenset[str]] = frozenset({"backend", "options"})

    @property
    def built_in(self) -> tuple[str, ...]:
        """Names of ours."""
        return self._ours

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


class Postgres(Model):
    """``[store.postgres]``: which database. ``timeout``: seconds that it may be silent."""

    conninfo: SecretStr  # it may have a password
    timeout: Annotated[float, Field(ge=1, le=600)] = 10

    @field_validator("conninfo")
    @classmethod
    def _is_understood(cls, conninfo: SecretStr) -> SecretStr:
        return checked_conninfo(conninfo)


def checked_conninfo(conninfo: SecretStr) -> SecretStr:
    """A string, or URL, of libpq. Raises ValueError, which does not show it."""
    if importlib.util.find_spec("psycopg") is None:
        raise ValueError(f"psycopg is missing: {install_line('postgres')}")
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        conninfo_to_dict(conninfo.get_secret_value())
    except ProgrammingError:  # its text has the string in it
        raise ValueError('say it as libpq does, such as "host=db.example.org dbname=mail user=pop3d"') from None
    return conninfo


def is_loopback(host: str) -> bool:
    """True for an address, or name, of this machine that no other can reach."""
    try:
        return unmapped(ipaddress.ip_address(host)).is_loopback
    except ValueError:
        return host == "localhost"
