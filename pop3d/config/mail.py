"""``[store]``: where the mail is, and what becomes of it."""

from __future__ import annotations

import math
import os.path
import string
from itertools import product
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pop3d.config.base import Exchangeable, Plugin, Postgres
from pop3d.uidl_format import UidSource

__all__ = ["StoreConfig", "are_one_mailbox", "lead_to_one_mailbox"]

_OF_MAILDIR: Final = {
    "path",
    "uidl",
    "control",
    "utf8_downgrade",
    "sizes_in_names",
    "mark_seen",
    "deleted",
    "retention_days",
    "compressed",
}
_PLACEHOLDERS: Final = ("user", "local", "domain", "home")
_SAMPLES: Final = (  # what takes the placeholders' place: a user with a domain, and one without
    {"user": "u@d", "local": "u", "domain": "d", "home": "/{home}"},
    {"user": "u", "local": "u", "home": "/{home}"},
)


class StoreConfig(Exchangeable):
    """``[store]``: where the mail is."""

    _ours: ClassVar = ("maildir", "memory", "postgres")

    backend: Plugin = "maildir"
    path: str = "mail/{user}"
    uidl: str = "filename"
    control: str = ""
    utf8_downgrade: bool = False
    compressed: Literal["read", "refuse"] = "read"
    sizes_in_names: bool = False
    mark_seen: bool = False
    deleted: str = ""
    quota_octets: Annotated[int, Field(ge=0)] = 0
    quota_messages: Annotated[int, Field(ge=0)] = 0
    retention_days: Annotated[float, Field(gt=0, le=36_500)] | None = None
    expire: Literal["never"] | int = "never"
    postgres: Postgres | None = None

    @field_validator("uidl")
    @classmethod
    def _whose_ids(cls, uidl: str) -> str:
        UidSource.of(uidl)
        return uidl

    @field_validator("expire", mode="before")
    @classmethod
    def _days(cls, expire: object) -> object:
        days = isinstance(expire, int) and not isinstance(expire, bool) and 0 <= expire <= 36_500
        if expire != "never" and not days:
            raise ValueError('say "never", or days as a whole number up to 36500: expire = 30')
        return expire

    @field_validator("path", "deleted", "control")
    @classmethod
    def _names_a_user(cls, path: str, info: ValidationInfo) -> str:
        if info.field_name in ("deleted", "control") and not path:
            return path
        try:
            names = [name for _, name, form, convert in string.Formatter().parse(path) if name is not None]
        except ValueError as fault:
            raise ValueError(f"{fault}; placeholders are {_listed(_PLACEHOLDERS)}") from None
        if unknown := [name for name in names if name not in _PLACEHOLDERS]:
            raise ValueError(f"unknown placeholder {{{unknown[0]}}}; there are {_listed(_PLACEHOLDERS)}")
        if path.startswith("~"):
            raise ValueError(
                '"~" means nothing here; use {home}, which comes from the users file, or a path with {user}'
            )
        if not {"user", "local", "home"} & set(names):
            meant = "; {user} stands for Dovecot's %u" if "%" in path else ""
            raise ValueError(f"all users would share one mailbox; use {{user}}, {{local}} or {{home}} in it{meant}")
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
    def _control_is_of_dovecot(self) -> StoreConfig:
        if self.control and not self.uidl.startswith("dovecot"):
            raise ValueError('`control` says where Dovecot has its lists, and is for `uidl = "dovecot"`')
        return self

    @model_validator(mode="after")
    def _ages_are_known(self) -> StoreConfig:
        if self.backend == "memory" and self.expire != "never":
            raise ValueError('`expire` is of Maildir and of PostgreSQL; backend = "memory" keeps nothing anyway')
        return self

    @property
    def expire_days(self) -> float | None:
        """Days; `math.inf` for ever, None for a store that knows no ages of messages."""
        if self.backend not in ("maildir", "postgres"):
            return None
        return math.inf if self.expire == "never" else self.expire

    @model_validator(mode="after")
    def _retention_is_of_what_is_kept(self) -> StoreConfig:
        if self.retention_days is not None and not self.deleted:
            raise ValueError('`retention_days` is for `deleted`, such as "deleted/{user}", which is not set')
        return self


def are_one_mailbox(path: str, deleted: str) -> bool:
    """Whether two Maildirs are the same folder, or one lies in ``cur``, ``new`` or ``tmp`` of the other.

    By their paths alone, absolute or below one folder: what links make of them shows only when they are opened.
    """
    one, other = os.path.normpath(path), os.path.normpath(deleted)
    return one == other or any(
        f"{inner}/".startswith(f"{outer}/{folder}/")
        for inner, outer in ((one, other), (other, one))
        for folder in ("cur", "new", "tmp")
    )


def lead_to_one_mailbox(path: str, deleted: str) -> bool:
    """Whether two templates do that for any user, or any two. Where homes are is not known here."""
    return any(are_one_mailbox(one, other) for one, other in product(_filled(path), _filled(deleted)))


def _filled(template: str) -> list[str]:
    # no user without a domain has a mailbox where the template asks for one
    return [template.format(**sample) for sample in _SAMPLES if "domain" in sample or "{domain}" not in template]


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)
