"""`pop3d who` and `pop3d kick`: the sessions of the daemons that run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pop3d.commands.asking import asked, duration, iso, octets, when
from pop3d.commands.configured import configured
from pop3d.commands.finding import counted
from pop3d.errors import CommandError
from pop3d.exit_status import ExitStatus
from pop3d.observe.log import sanitized

__all__ = ["kick", "who"]

_STATES: Final = {"HANDSHAKE": "tls", "AUTHORIZATION": "auth", "TRANSACTION": "trans", "UPDATE": "update"}


def who(whom: str, config: Path | None, *, everybody: bool, as_json: bool) -> None:
    """Show sessions: a table on a terminal, lines with tabs elsewhere, or a JSON object a line.

    ``whom``: a user, an address or a network; empty for all. ``everybody``: also those that have not logged in.
    """
    answers = asked(configured(config), {"ask": "who", "whom": whom, "all": everybody})
    sessions: list[dict[str, Any]] = []
    strangers = 0
    for answer in answers:
        pid = answer.lines[0].get("pid") if answer.lines else None
        for line in answer.lines:
            if "address" in line:
                sessions.append({**line, "pid": pid})
            strangers += line.get("unauthenticated", 0)
    sessions.sort(key=lambda one: (one.get("user") or "\U0010ffff", one.get("connected") or 0.0))
    console = Console(highlight=False)
    if as_json:
        for one in sessions:
            print(json.dumps(one))
    elif not console.is_terminal:
        for one in sessions:
            print("\t".join(sanitized(value) or "-" for value in _exact(one)))
    else:
        _show(console, sessions)
        logged_in = sum(one.get("user") is not None for one in sessions)
        shown = "" if everybody or not strangers else "; --all shows them"
        console.print(f"{counted(logged_in, 'session')} logged in, {strangers} not logged in{shown}", style="bold")


def _show(console: Console, sessions: list[dict[str, Any]]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("user", "address"):
        table.add_column(name, overflow="fold")
    for name in ("tls", "login", "since"):
        table.add_column(name, no_wrap=True)
    table.add_column("idle", no_wrap=True, justify="right")
    table.add_column("state", no_wrap=True)
    for name in ("cmds", "retr", "octets"):
        table.add_column(name, no_wrap=True, justify="right")
    for one in sessions:
        table.add_row(*(Text(sanitized(value) or "-") for value in _short(one)))
    console.print(table)


def _short(one: dict[str, Any]) -> list[str]:
    """For a table of 80 columns."""
    since = one.get("since")
    return [
        one.get("user") or "",
        one["address"],
        str(one.get("tls", "")).removeprefix("TLSv"),
        str(one.get("mechanism", "")).removeprefix("SCRAM-").removeprefix("SHA-256-").lower(),
        when(one.get("connected", 0.0) if since is None else since),
        duration(one.get("idle", 0.0)),
        _STATES.get(one.get("state", ""), "?"),
        str(one.get("commands", "")),
        str(one.get("retrieved", "")),
        octets(one.get("octets_out", 0)),
    ]


def _exact(one: dict[str, Any]) -> list[str]:
    """For programs: all is there, and nothing is rounded but the idle time, to seconds."""
    since = one.get("since")
    return [
        one.get("user") or "",
        one["address"],
        str(one.get("tls", "")),
        str(one.get("mechanism", "")),
        iso(one.get("connected", 0.0) if since is None else since),
        f"{one.get('idle', 0.0):.0f}",
        str(one.get("state", "")),
        *(str(one.get(key, "")) for key in ("commands", "retrieved", "octets_out", "pid")),
    ]


def kick(whom: str, config: Path | None, *, as_json: bool) -> None:
    """End all sessions of a user, an address or a network. Raises `CommandError`: 67 where there are none."""
    if not whom:
        raise CommandError("name a user, an address or a network", ExitStatus.USAGE)
    answers = asked(configured(config), {"ask": "kick", "whom": whom})
    ended = sum(line.get("kicked", 0) for answer in answers for line in answer.lines)
    if as_json:
        print(json.dumps({"kicked": ended}))
    elif ended:
        print(f"ended {counted(ended, 'session')} of {sanitized(whom)}")
    if not ended:
        raise CommandError(f"no session of {whom!r}; `pop3d who --all` shows all", ExitStatus.NOUSER)
