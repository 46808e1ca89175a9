"""`python -m tests.bench.features`: what each thing costs that a server in production needs, and what it saves.

pop3d as shipped beside pop3d without it: switched off by configuration where that can be done, taken out of the running
program where it cannot. What only some sites switch on is measured the other way round. All are measured in each round;
the least of the rounds counts, which the machine's other work has disturbed least. Positive: it costs so much of the
CPU time of a workload. A feature that cannot be taken out any more, because the code has moved, is told, and has no
figure.

With ``--instructions`` pop3d runs under valgrind's callgrind, and instructions are compared in place of seconds: they
are the same in each round, but those of the kernel are not among them, and a hop to a thread looks cheaper than it is.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pop3d.auth.passwords import hashed
from tests.bench.beside import LEAST, machine
from tests.bench.servers import NotStarted, Running, Site
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
        before="from pop3d.abuse.connection_limits import Guard\n"
        + "".join(f"Guard.{name}; Guard.{name} = {NOTHING}\n" for name in ("admit", "introduce", "logged_in", "leave")),
    ),
    "deadlines": Feature(
        "taken out",
        before="import pop3d.server, pop3d.session\npop3d.server._SWEEP; pop3d.server._SWEEP = 1e6\n"
        f"pop3d.session.ServerSession._until; pop3d.session.ServerSession._until = {NOTHING}",
    ),
    "a ticket to resume TLS": Feature(
        "taken out",
        before="import pop3d.net.tls\nmake = pop3d.net.tls.server_context\ndef without(*arguments, **more):\n"
        "    context = make(*arguments, **more)\n    context.num_tickets = 0\n    return context\n"
        "pop3d.net.tls.server_context = without",
    ),
    "reading ahead": Feature(
        "taken out",
        before="import pop3d.stores.read_ahead as reading\nreading._AHEAD_MESSAGES; reading._AHEAD_MESSAGES = 1",
    ),
    "mailboxes known from before": Feature(
        "taken out",
        before="from pop3d.stores.maildir.memory_cache import RecentScans\n"
        f"RecentScans.find; RecentScans.find = {NOTHING}",
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
    if share is None:
        return ""
    return f"{share:+.1%}" if abs(share) < 0.1 else f"{share:+,.0%}"


def started(site: Site, feature: Feature, **more: Any) -> AbstractContextManager[Running]:
    """pop3d with that difference."""
    tables = feature.tables.replace("{port}", str(free_port()))
    secret = hashed("secret") if feature.argon2 else "{PLAIN}secret"
    return site.pop3d(top=feature.top, tables=tables, before=feature.before, secret=secret, **more)


def seconds(site: Site, workload: Workload, features: dict[str, Feature], rounds: int) -> dict[str, list[float]]:
    """Of each feature and of pop3d as shipped: the CPU time of a unit of work in each round."""
    workload.prepare()
    (name,) = workload.names
    every = {SHIPPED: Feature("")} | features
    found: dict[str, list[float]] = {what: [] for what in every}
    for number in range(rounds):
        # each comes first and last, so that nobody has the quiet minutes
        for what in [*found] if number % 2 else [*found][::-1]:
            workload.refresh()
            try:
                with started(site, every[what]) as server:
                    workload.measure(server)  # warms up
                    workload.refresh()
                    found[what].append(workload.measure(server)[name])
            except NotStarted:  # what was to be taken out has another name now
                del found[what]
    return found


def counted(
    features: dict[str, Feature], kinds: list[type[Workload]], scale: float
) -> dict[str, dict[str, list[float]]]:
    """Of each workload, as `seconds`: the instructions of a unit of work."""

    def one(feature: Feature) -> list[float] | None:
        with tempfile.TemporaryDirectory(prefix="pop3d-bench-") as folder:
            site = Site(Path(folder))
            site.server_core = site.client_core = os.sched_getaffinity(0)
            workloads = [kind(site, scale) for kind in kinds]
            for workload in workloads:
                workload.prepare()
                workload.refresh()
            callgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/count"]
            try:
                # who counts must be able to talk to it: it stays root
                with started(site, feature, user="root", prefix=callgrind) as server:
                    return [_instructions(server, workload) for workload in workloads]
            except NotStarted:
                return None

    every = {SHIPPED: Feature("")} | features
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(every, pool.map(one, every.values()), strict=True))
    return {
        kind.names[0]: {what: [counts[place]] for what, counts in found.items() if counts is not None}
        for place, kind in enumerate(kinds)
    }


def _instructions(server: Running, workload: Workload) -> float:
    workload.measure(server)  # warms up
    workload.refresh()
    for word in ("--zero", "--dump"):
        subprocess.run(["callgrind_control", word, str(server.pid)], check=True, capture_output=True)
        if word == "--zero":
            workload.measure(server)
    # all dumps of the process are numbered; the last is this one
    dump = max(workload.site.root.glob("count.*"), key=lambda path: int(path.suffix[1:]))
    return float(dump.read_text().rpartition("totals: ")[2].split()[0])


def cost(feature: Feature, found: list[float], shipped: list[float]) -> float:
    """The share by which the feature is dearer."""
    with_it, without = (shipped, found) if feature.off else (found, shipped)
    return min(with_it) / max(LEAST, min(without)) - 1


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.features", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of messages and sessions")
    parser.add_argument("--workloads", default="session,retr_pipe", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--instructions", action="store_true", help="counted by valgrind; take --scale 0.1 or so")
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
    kinds = [kind for kind in WORKLOADS if kind.names[0] in names]
    found: dict[str, dict[str, list[float]]] = {}
    if options.instructions:
        found = counted(features, kinds, options.scale)
    else:
        for kind in kinds:
            with tempfile.TemporaryDirectory(prefix="pop3d-bench-") as folder:
                site = Site(Path(folder))
                found[kind.names[0]] = seconds(site, kind(site, options.scale), features, options.rounds)
    for workload, rounds in found.items():
        for name in features:
            if name not in rounds:
                console.print(f"{name}: pop3d does not start without it")
                continue
            told[name]["rounds"][workload] = rounds[name]
            told[name]["costs"][workload] = cost(features[name], rounds[name], rounds[SHIPPED])
    shipped = {workload: rounds[SHIPPED] for workload, rounds in found.items()}
    if options.out is not None:
        about: dict[str, Any] = {"machine": machine(uvloop=False), "scale": options.scale, "rounds": options.rounds}
        about["unit"] = "instructions" if options.instructions else "seconds"
        options.out.write_text(json.dumps({**about, "shipped": shipped, "features": told}, indent=1) + "\n")
    table = Table("feature", "by", *names)
    for name, one in told.items():
        table.add_row(name, escape(one["how"]), *[percent(one["costs"].get(workload)) for workload in names])
    Console().print(table)


if __name__ == "__main__":
    main()
