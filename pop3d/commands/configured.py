"""The configuration that a command works by, and whether it may: see `pop3d.system.ownership`."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from pop3d.config import Config, ConfigError, find, load
from pop3d.system.ownership import Owners, acting, callers, distrusted
from pop3d.system.privileges import Identity, become, resolve

__all__ = ["configured", "reread"]


def configured(path: Path | None, *, serves: bool = False) -> Config:
    """The configuration at ``path``, or the one found. Raises `ConfigError`.

    Root obeys one that is root's, or, when it was named, of whoever called sudo; what it names may be of the configured
    `user` as well. Was it named, and is it of that `user` itself, then it can do no more than he can: this process
    becomes him before it reads it, for good. Unless it ``serves``: then it stays root, to read certificates, keys and
    users and to bind ports, and does all else as `Config.owner`. Anybody else obeys what he names, but of what is found
    in the current folder only what is root's or his own.
    """
    return _at(find(path), named=path is not None, serves=serves)


def reread(path: Path | None) -> Callable[[], Config]:
    """What reads the configuration of ``path`` again, wherever this process is then, and whoever. Raises as
    `configured` does, of a process that serves.
    """
    return partial(_at, find(path).absolute(), named=path is not None, serves=True)


def _at(place: Path, *, named: bool, serves: bool) -> Config:
    root = os.geteuid() == 0
    if not root and (named or place.is_absolute()):
        return load(place)
    owners = callers(named=named, environment=os.environ)
    if why := distrusted(place, owners):
        if not root or not named:
            raise ConfigError([f"{why}, or name the one that you mean with --config FILE"])
        config = _of_its_user(place, owners, why, serves=serves)
    else:
        config = load(place, owners if root else None)
    if os.geteuid() == 0 and (faults := list(_distrusted_files(config, owners))):
        raise ConfigError(faults)
    return config


def _of_its_user(place: Path, owners: Owners, why: str, *, serves: bool) -> Config:
    try:
        owner = pwd.getpwuid(place.stat().st_uid)
    except (OSError, KeyError):
        raise ConfigError([why]) from None
    if owner.pw_uid in owners.users or distrusted(place, owners.and_(owner.pw_uid, owner.pw_gid)):
        raise ConfigError([why])
    identity = Identity(owner.pw_uid, owner.pw_gid)
    if not serves:
        become(identity)
    numbers = owner.pw_uid, owner.pw_gid
    with acting(numbers):  # he could exchange it by a link to a file that he may not read
        config = load(place, owners, numbers) if serves else load(place)
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
