"""`python -m tests.bench.features`: what each thing costs that a server in production needs, and what it saves.

pop3d as shipped beside pop3d without it: switched off by configuration where that can be done, taken out of the running
program where it cannot. What only some sites switch on is measured the other way round. All are measured in each round;
the least of the rounds counts, which the machine's other work has disturbed least. Positive: it costs so much of the
CPU time of a workload. A feature that cannot be taken out any more, because the code has moved, is told, and has no
figure.
"""

import argparse
import importlib.util
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pop3d.auth.passwords import hashed
from tests.bench.beside import machine
from tests.bench.servers import NotStarted, Site
from tests.bench.workloads import WORKLOADS, Workload
from tests.site import free_port

NAMES = ("session", "mix", "retr_small", "retr_pipe")
"""Workloads that this can be asked of."""


@dataclass(frozen=True)
class Feature:
    """How pop3d differs from the one that is shipped: ``how``, in a word.

    ``top``, ``tables``: of its configuration; ``before``: Python that runs before it starts; ``argon2``: of the users'
    passwords. ``off``: it is without the feature, not with it. ``needs``: a module.
    """

    how: str
    top: str = ""
    tables: str = ""
    before: str = ""
    argon2: bool = False
    off: bool = True
    needs: str = ""


SHIPPED = "as shipped"
NOTHING = "lambda *arguments, **more: None"
FEATURES = {
    "line of a session in the log": Feature("level", tables='[log]\nlevel = "warning"'),
    "the same as JSON": Feature("format", tables='[log]\nformat = "json"', off=False),
    "metrics": Feature(
        "[metrics]", tables='[metrics]\nlisten = "127.0.0.1:{port}"', off=False, needs="prometheus_client"
    ),
    "lock across processes": Feature("taken out", before=f"import fcntl\nfcntl.flock = {NOTHING}"),
    "limits of connections": Feature(
        "taken out",
        before="from pop3d.guard import Guard\n"
        + "".join(f"Guard.{name}; Guard.{name} = {NOTHING}\n" for name in ("admit", "introduce", "logged_in", "leave")),
    ),
    "deadlines": Feature(
        "taken out",
        before="import pop3d.server, pop3d.session\npop3d.server._SWEEP; pop3d.server._SWEEP = 1e6\n"
        f"pop3d.session.Session._until; pop3d.session.Session._until = {NOTHING}",
    ),
    "a ticket to resume TLS": Feature(
        "taken out",
        before="import pop3d.tls\nmake = pop3d.tls.server_context\ndef without(*arguments, **more):\n"
        "    context = make(*arguments, **more)\n    context.num_tickets = 0\n    return context\n"
        "pop3d.tls.server_context = without",
    ),
    "reading ahead": Feature(
        "taken out",
        before="import pop3d.stores.maildir_reading as reading\nreading._AHEAD_MESSAGES; reading._AHEAD_MESSAGES = 1",
    ),
    "mailboxes known from before": Feature(
        "taken out",
        before=f"from pop3d.stores.recent import RecentScans\nRecentScans.find; RecentScans.find = {NOTHING}",
    ),
    "passwords as Argon2id": Feature("users", argon2=True, off=False),
    "uvloop": Feature("loop", top='loop = "uvloop"', off=False, needs="uvloop"),
}


def why_not(feature: Feature) -> str | None:
    """Why it cannot be measured; None when it can."""
    if feature.needs and importlib.util.find_spec(feature.needs) is None:
        return f"{feature.needs} is missing"
    return None


def percent(share: float | None) -> str:
    """As it stands in tables."""
    return "" if share is None else f"{share:+.0%}"


def seconds(site: Site, workload: Workload, features: dict[str, Feature], rounds: int) -> dict[str, list[float]]:
    """Of each feature and of pop3d as shipped: the CPU time of a unit of work in each round."""
    workload.prepare()
    (name,) = workload.names
    every = {SHIPPED: Feature("")} | features
    found: dict[str, list[float]] = {what: [] for what in every}
    for number in range(rounds):
        # each comes first and last, so that nobody has the quiet minutes
        for what in [*found] if number % 2 else [*found][::-1]:
            feature = every[what]
            tables = feature.tables.replace("{port}", str(free_port()))
            secret = hashed("secret") if feature.argon2 else "{PLAIN}secret"
            workload.refresh()
            try:
                with site.pop3d(top=feature.top, tables=tables, before=feature.before, secret=secret) as server:
                    workload.measure(server)  # warms up
                    workload.refresh()
                    found[what].append(workload.measure(server)[name])
            except NotStarted:  # what was to be taken out has another name now
                del found[what]
    return found


def cost(feature: Feature, found: list[float], shipped: list[float]) -> float:
    """The share by which the feature is dearer."""
    with_it, without = (shipped, found) if feature.off else (found, shipped)
    return min(with_it) / min(without) - 1


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.features", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of messages and sessions")
    parser.add_argument("--workloads", default="session,retr_pipe", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--only", choices=[*FEATURES], help="one feature")
    parser.add_argument("--out", type=Path, help="write JSON here")
    options = parser.parse_args(arguments)
    names = options.workloads.split(",")
    if set(names) - set(NAMES):
        parser.error(f"unknown: {', '.join(sorted(set(names) - set(NAMES)))}")
    console = Console(stderr=True)
    features = {}
    for name in [options.only] if options.only else FEATURES:
        if (why := why_not(FEATURES[name])) is None:
            features[name] = FEATURES[name]
        else:
            console.print(f"{name}: {why}")
    told: dict[str, dict[str, Any]] = {
        name: {"how": feature.how, "off": feature.off, "costs": {}, "rounds": {}} for name, feature in features.items()
    }
    shipped: dict[str, list[float]] = {}
    for kind in WORKLOADS:
        if set(names).isdisjoint(kind.names):
            continue
        (workload,) = kind.names
        with tempfile.TemporaryDirectory(prefix="pop3d-bench-") as folder:
            site = Site(Path(folder))
            found = seconds(site, kind(site, options.scale), features, options.rounds)
            for name in features:
                if name not in found:
                    console.print(f"{name}: pop3d does not start without it")
                    continue
                told[name]["rounds"][workload] = found[name]
                told[name]["costs"][workload] = cost(features[name], found[name], found[SHIPPED])
            shipped[workload] = found[SHIPPED]
        console.print(f"{workload}: {options.rounds} rounds, load {os.getloadavg()[0]:.1f}")
    if options.out is not None:
        about = {"machine": machine(uvloop=False), "scale": options.scale, "rounds": options.rounds}
        options.out.write_text(json.dumps({**about, "shipped": shipped, "features": told}, indent=1) + "\n")
    table = Table("feature", "by", *names)
    for name, one in told.items():
        table.add_row(name, escape(one["how"]), *[percent(one["costs"].get(workload)) for workload in names])
    Console().print(table)


if __name__ == "__main__":
    main()
