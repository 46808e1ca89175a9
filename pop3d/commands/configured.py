"""The configuration that a command works by, and whether it may: see `pop3d.ownership`."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from pop3d.config import Config, ConfigError, find, load
from pop3d.ownership import Owners, callers, distrusted
from pop3d.privileges import Identity, become, resolve

__all__ = ["configured"]


def configured(path: Path | None) -> Config:
    """The configuration at ``path``, or the one found. Raises `ConfigError`.

    Root obeys one that is root's, or, when it was named, of whoever called sudo; what it names may be of the configured
    `user` as well. Was it named, and is it of that `user` itself, then this process becomes him before it reads it, for
    good: what he writes there can do no more than he can. Anybody else obeys what he names, but of what is found in the
    current folder only what is root's or his own.
    """
    place = find(path)
    root = os.geteuid() == 0
    if not root and (path is not None or place.is_absolute()):
        return load(place)
    owners = callers(named=path is not None, environment=os.environ)
    if why := distrusted(place, owners):
        if not root or path is None:
            raise ConfigError([f"{why}, or name the one that you mean with --config FILE"])
        return _as_its_owner(place, owners, why)
    config = load(place, owners if root else None)
    if root and (faults := list(_distrusted_files(config, owners))):
        raise ConfigError(faults)
    return config


def _as_its_owner(place: Path, owners: Owners, why: str) -> Config:
    try:
        owner = pwd.getpwuid(place.stat().st_uid)
    except (OSError, KeyError):
        raise ConfigError([why]) from None
    if owner.pw_uid in owners.users or distrusted(place, owners.and_(owner.pw_uid, owner.pw_gid)):
        raise ConfigError([why])
    identity = Identity(owner.pw_uid, owner.pw_gid)
    become(identity)
    config = load(place)
    try:
        # a number alone says no group, and then it is his own
        itself = config.user is not None and resolve(config.user, config.group or f"#{owner.pw_gid}") == identity
    except LookupError:
        itself = False
    if not itself:
        raise ConfigError([why])
    return config


def _distrusted_files(config: Config, owners: Owners) -> Iterator[str]:
    if config.user is not None:
        try:
            identity = resolve(config.user, config.group)
        except LookupError:
            pass  # told by whoever is to become that user
        else:
            owners = owners.and_(identity.uid, identity.gid)
    for key, file in config.files:
        if why := distrusted(file, owners):
            yield f"{config.file}: `{key}`: {why}"
