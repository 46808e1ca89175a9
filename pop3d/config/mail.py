"""``[store]``: where the mail is, and what becomes of it."""

from __future__ import annotations

import string
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pop3d.config.base import Exchangeable, Plugin, Postgres

__all__ = ["StoreConfig"]

_OF_MAILDIR: Final = {
    "path",
    "uidl",
    "utf8_downgrade",
    "sizes_in_names",
    "mark_seen",
    "deleted",
    "retention_days",
    "compressed",
}
_PLACEHOLDERS: Final = ("user", "local", "domain", "home")


class StoreConfig(Exchangeable):
    """``[store]``: where the mail is."""

    _ours: ClassVar = ("maildir", "memory", "postgres")

    backend: Plugin = "maildir"
    path: str = "mail/{user}"
    uidl: Literal["filename", "dovecot", "courier"] = "filename"
    utf8_downgrade: bool = False
    compressed: Literal["read", "refuse"] = "read"
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


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)
