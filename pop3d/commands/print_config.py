"""`pop3d check --print-config`: what is in force, as a configuration that can be loaded again.

All keys with their values, also those that nobody has set; behind a value that is not the default, what that is.
Secrets are masked. A key that is not set, and has no value or may not stand beside the others (one of Maildir beside
``backend = "postgres"``), is a comment.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import tomlkit
from pydantic import SecretStr, ValidationError
from tomlkit.container import Container
from tomlkit.items import Table

from pop3d.commands.configured import configured
from pop3d.config import Config
from pop3d.config.base import Model

__all__ = ["print_config", "printed"]

_MASK: Final = "***"


def print_config(path: Path | None) -> None:
    """Print the configuration at ``path``, or the one found."""
    print(printed(configured(path)), end="")


def printed(config: Config) -> str:
    """The configuration as TOML."""
    document = tomlkit.document()
    if config.file is not None:
        document.add(tomlkit.comment(f"in force by {json.dumps(str(config.file.absolute()))}"))
    base = config.file.absolute().parent if config.file is not None else Path.cwd()
    _fill(document, config, base)
    return tomlkit.dumps(document)


def _fill(table: Container | Table, model: Model, base: Path) -> None:
    """Values first: in TOML, what stands behind a table's name belongs to it."""
    live = _live(model, base)
    values, tables = dict[str, Any](), dict[str, Any]()
    for key, value in model:
        (tables if _is_table(value) or isinstance(value, Mapping) else values)[key] = value
    for key, value in values.items():
        shown, default = _plain(value), _default(model, key, base)
        if value is None or key not in live:
            table.add(tomlkit.comment(f"{key} is not set" if value is None else f"{key} = {json.dumps(shown)}"))
            continue
        item = tomlkit.item(shown)
        if default and shown not in default:
            item.comment(f"default: {json.dumps(default[0])}" if default[0] is not None else "default: not set")
        table.add(key, item)
    for key, value in tables.items():
        if key not in live:
            continue
        if isinstance(value, Mapping):
            table.add(key, tomlkit.item(_plain(value)))
        elif isinstance(value, Model):
            _fill(inner := tomlkit.table(), value, base)
            table.add(key, inner)
        else:
            several = tomlkit.aot()
            for one in value:
                _fill(inner := tomlkit.table(), one, base)
                several.append(inner)
            table.add(key, several)


def _is_table(value: object) -> bool:
    return isinstance(value, Model) or (isinstance(value, tuple) and any(isinstance(one, Model) for one in value))


def _live(model: Model, base: Path) -> dict[str, Any]:
    """Keys that can stand in this table together, with their values: those that are not at their default, and of the
    others all that may.
    """
    given = {key: _as_read(value, base) for key, value in model if value is not None and value != {}}
    live = {key: value for key, value in given.items() if not _is_default(model, key, base)}
    for key, value in given.items():
        if key not in live:
            try:
                type(model).model_validate(live | {key: value})
            except ValidationError:
                continue
            live[key] = value
    return live


def _as_read(value: Any, base: Path) -> Any:
    """As `tomllib` would read it."""
    if isinstance(value, Model):
        return _live(value, base)
    if _is_table(value):
        return [_live(one, base) for one in value]
    return _plain(value)


def _is_default(model: Model, key: str, base: Path) -> bool:
    value = getattr(model, key)
    if isinstance(value, Model):
        return bool(value == type(model).model_fields[key].default)
    return not _is_table(value) and _plain(value) in _default(model, key, base)


def _default(model: Model, key: str, base: Path) -> list[object]:
    """The default as the file would say it, and as it is understood: a path below the file's folder. Empty: none."""
    field = type(model).model_fields[key]
    if field.is_required():
        return []
    default = _plain(field.get_default(call_default_factory=True))
    return [default, os.path.join(base, default)] if isinstance(default, str) else [default]


def _plain(value: Any) -> Any:
    """As TOML has it, without secrets."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, SecretStr):
        return _masked(value.get_secret_value())
    if isinstance(value, Mapping):  # a plug-in's: what in it is secret, only the plug-in knows
        return {str(key): _MASK for key in value}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return str(value)


def _masked(conninfo: str) -> str:
    """A connection string without what is secret in it."""
    from psycopg.conninfo import conninfo_to_dict, make_conninfo  # of an extra, which the configuration has looked for

    parts = conninfo_to_dict(conninfo)
    for key in parts:
        if "password" in key:
            parts[key] = _MASK
    return make_conninfo("", **parts)
