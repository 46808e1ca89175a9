"""What of a configuration changes while the daemon runs (SIGHUP), and what needs a restart.

`EFFECTS` is the one table of that; `docs/configuration.md` shows it. A key has the effect of the longest entry that it
begins with, so a key that is added to a table of the configuration has its table's.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

from pop3d.config import Config, ConfigError, validated
from pop3d.config.base import Model

__all__ = ["EFFECTS", "Change", "Effect", "change", "effect_of"]


class Effect(Enum):
    """Of a key that has another value than before."""

    AT_ONCE = "at once"
    CONNECTIONS = "for connections that begin then"
    RESTART = "after a restart"


EFFECTS: Final[Mapping[str, Effect]] = MappingProxyType(
    {
        "hostname": Effect.CONNECTIONS,
        "user": Effect.RESTART,  # root was given up
        "group": Effect.RESTART,
        "state": Effect.RESTART,  # only root could give a new one to `user`
        "drain_timeout": Effect.AT_ONCE,
        "loop": Effect.RESTART,
        "listen": Effect.RESTART,  # ports below 1024 were bound by root
        "listen.trusted_proxies": Effect.CONNECTIONS,
        "tls": Effect.CONNECTIONS,
        "auth": Effect.CONNECTIONS,
        "auth.backend": Effect.RESTART,
        "auth.options": Effect.RESTART,  # a plug-in is made once, before root is given up
        "store": Effect.CONNECTIONS,
        "store.backend": Effect.RESTART,
        "store.options": Effect.RESTART,
        "lmtp": Effect.CONNECTIONS,
        "limits": Effect.CONNECTIONS,
        "log": Effect.AT_ONCE,
        "log.file": Effect.RESTART,  # opened before root is given up; SIGUSR1 opens it again by its name
        "metrics": Effect.RESTART,
    }
)
"""By key, or by table for all its keys that have no entry of their own."""


@dataclass(frozen=True, slots=True)
class Change:
    """From one configuration to the next. ``config``: what is in force then.

    ``changed``: keys that have another value in it; ``restart``: keys that keep the old one until a restart. A table
    that was added or removed stands there by its name.
    """

    config: Config
    changed: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()

    def touches(self, table: str, *but: str) -> bool:
        """Whether a key in ``table`` has changed, other than those of ``but``."""
        return any(key == table or key.startswith(f"{table}.") for key in self.changed if key not in but)


def effect_of(key: str) -> Effect:
    """What a change of a key does; ``key``: dotted, as ``auth.oauth.issuer``. Raises KeyError."""
    parts = key.split(".")
    for count in range(len(parts), 0, -1):
        if (found := EFFECTS.get(".".join(parts[:count]))) is not None:
            return found
    raise KeyError(key)


def change(old: Config, new: Config) -> Change:
    """What comes of it when ``new`` takes the place of ``old``, which is in force."""
    before, after = dict(_values(old)), dict(_values(new))
    differ = {key for key in before.keys() | after.keys() if before.get(key, ...) != after.get(key, ...)}
    differ = {key for key in differ if not any(key.startswith(f"{other}.") for other in differ)}
    other_backends = {key for key in differ if key in ("auth.backend", "store.backend")}
    restart = {key for key in differ if _effect(key, new, other_backends) is Effect.RESTART}
    if "listen" in restart:
        differ.discard("listen.trusted_proxies")  # they belong to a listener, and those are others then
    changed = differ - restart
    if not restart:
        return Change(new, tuple(sorted(changed)))
    found = copy.deepcopy(new.found)
    for key in restart:
        _keep(found, old.found, key.split("."))
    try:
        config = validated(found, new)
    except ConfigError:  # what may change now fits only to what may not
        return Change(old, restart=tuple(sorted(differ)))
    return Change(config, tuple(sorted(changed)), tuple(sorted(restart)))


def _effect(key: str, config: Config, other_backends: Collection[str]) -> Effect:
    table = key.partition(".")[0]
    if key != "auth.trusted_networks" and (
        f"{table}.backend" in other_backends  # what goes with it waits with it
        or (table == "auth" and config.auth.is_plugin)  # one is made once, and what checks tokens stands upon it
    ):
        return Effect.RESTART
    return effect_of(key)


def _values(table: Model, *above: str) -> Iterator[tuple[str, object]]:
    """Each key, and what it is. Of listeners, one value for all."""
    for name, value in table:
        key = ".".join((*above, name))
        if name == "listen" and not above:
            yield key, [one.model_dump(exclude={"trusted_proxies"}) for one in value]
            yield f"{key}.trusted_proxies", [one.trusted_proxies for one in value]
        elif isinstance(value, Model):
            yield from _values(value, key)
        else:
            yield key, value


def _keep(found: dict[str, Any], old: Mapping[str, Any], path: list[str]) -> None:
    """The value at ``path`` as it was."""
    first, *rest = path
    if rest:
        _keep(found.setdefault(first, {}), old.get(first, {}), rest)
    elif first in old:
        found[first] = copy.deepcopy(old[first])
    else:
        found.pop(first, None)
