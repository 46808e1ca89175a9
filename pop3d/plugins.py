"""Stores and authenticators of others, named in the configuration.

``backend`` in ``[store]`` or ``[auth]`` is one of ours; or, with a dot or colon in it, where to import a plug-in from:
``package.module:Class`` or ``package.module.Class``; or the name of an entry point of an installed package, of the
group `STORES` or `AUTHENTICATORS`.

A plug-in is whatever can be called with two arguments and returns a store or an authenticator: ``Class(options,
folder)``. ``options`` is the table of that name as TOML has it; ``folder``, absolute, is the configuration's, to which
relative paths belong. What it cannot use it refuses with `OptionsError`, or pydantic's ValidationError; an
authenticator may raise `pop3d.auth.AuthError` too. It is called before the event loop runs and before root is given up:
it should look at its options, and make nothing.

Whatever goes wrong on the way is a fault of the configuration, a line each.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import traceback
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from pop3d.auth import AuthError
from pop3d.config import described
from pop3d.system.ownership import Owners, distrusted

__all__ = ["AUTHENTICATORS", "STORES", "OptionsError", "PluginError", "plugin"]

STORES: Final = "pop3d.stores"
"""The group of entry points that are stores."""

AUTHENTICATORS: Final = "pop3d.authenticators"
"""The group of entry points that are authenticators."""


class OptionsError(ValueError):
    """A plug-in cannot use its options. ``faults``: by key, what is wrong and what to do; no secrets."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{key}: {text}" for key, text in faults.items()))
        self.faults = faults


class PluginError(Exception):
    """There is no such plug-in, or it is none. ``faults``: a line each, with the key of the configuration."""

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def plugin(
    group: str,
    table: str,
    name: str,
    options: Mapping[str, Any],
    folder: Path,
    methods: Iterable[str],
    owners: Owners | None = None,
    built_in: Sequence[str] = (),
) -> object:
    """A plug-in, made.

    ``table``: of the configuration, such as "store"; ``name``: its ``backend``; ``methods``: what the plug-in must
    have; ``owners``: whose its modules must be; None for anybody's; ``built_in``: the names of ours,
    which this is not. Raises `PluginError`. Blocking: for the start.
    """
    where = f"`{table}.backend` = {name!r}"
    module, attribute = _located(where, group, name, built_in)
    if owners is not None and (why := _of_strangers(module, owners)):
        raise PluginError(f"{where}: {why}")
    factory = _imported(where, module, attribute)
    if not callable(factory):
        raise PluginError(f"{where}: it is {_a(factory)}, and not a class; name the class, as package.module:Class")
    try:
        made: object = factory(options, folder)
    except OptionsError as fault:
        raise PluginError(*(f"`{table}.options.{key}`: {text}" for key, text in fault.faults.items())) from fault
    except ValidationError as fault:
        raise PluginError(*described(fault, f"{table}.options")) from fault
    except AuthError as fault:
        raise PluginError(f"{where}: {fault}") from fault
    except Exception as fault:
        raise PluginError(f"{where}: it failed when it was made: {_fault(fault)}; tell its author") from fault
    if lacking := [method for method in methods if not callable(getattr(made, method, None))]:
        raise PluginError(f"{where}: it lacks the method {', '.join(lacking)}; see docs/plugins.md")
    return made


def _located(where: str, group: str, name: str, built_in: Sequence[str]) -> tuple[str, str]:
    """Module and name in it."""
    if ":" in name or "." in name:
        module, _, attribute = name.partition(":") if ":" in name else name.rpartition(".")
        if not module or not attribute or ":" in attribute:
            raise PluginError(f"{where}: say it as package.module:Class")
        return module, attribute
    found = {(point.module, point.attr) for point in entry_points(group=group, name=name)}
    if len(found) > 1:
        raise PluginError(f"{where}: several packages have a plug-in of that name; say it as package.module:Class")
    if not found:
        known = ", ".join(sorted({point.name for point in entry_points(group=group)})) or "none"
        what = f"neither one of ours ({', '.join(built_in)}) nor a plug-in of an installed package (there are: {known})"
        close = difflib.get_close_matches(name.lower(), built_in, n=1)
        remedy = f"did you mean {close[0]!r}?" if close else "take one of those, or install its package"
        raise PluginError(f"{where}: it is {what}; {remedy}")
    return found.pop()


def _of_strangers(module: str, owners: Owners) -> str | None:
    """Why root does not import a module. Those beside pop3d itself are as trusted as pop3d is."""
    ours = Path(__file__).absolute().parents[1]
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        try:
            spec = importlib.util.find_spec(".".join(parts[:count]))  # which imports what is above it: looked at by now
        except Exception:
            return None  # importing it tells
        if spec is None:
            return None
        files = [spec.origin] if spec.has_location and spec.origin else spec.submodule_search_locations or []
        for file in map(Path, files):
            if not file.is_relative_to(ours) and (why := distrusted(file, owners)):
                return why
    return None


def _imported(where: str, module: str, attribute: str) -> object:
    try:
        found: object = importlib.import_module(module)
    except ModuleNotFoundError as fault:
        missing = fault.name or module
        if module == missing or module.startswith(f"{missing}."):
            remedy = "install it, or put its folder on PYTHONPATH"
            raise PluginError(f"{where}: there is no module {missing}; {remedy}") from fault
        raise PluginError(f"{where}: it needs the module {missing}, which is not there; install that") from fault
    except Exception as fault:
        raise PluginError(f"{where}: it cannot be imported: {_fault(fault)}; tell its author") from fault
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise PluginError(f"{where}: the module {module} has no {attribute}; mend the name")
    return found


def _fault(fault: Exception) -> str:
    """What it is and where. Not its words: they may hold an option, and so a password."""
    frame = traceback.extract_tb(fault.__traceback__)[-1]
    return f"{type(fault).__name__} in {frame.filename} line {frame.lineno}"


def _a(thing: object) -> str:
    return f"a {type(thing).__name__}"
