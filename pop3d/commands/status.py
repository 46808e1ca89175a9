"""`pop3d status`: how the daemons that run are."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pop3d.commands.asking import asked, duration, iso, octets
from pop3d.commands.configured import configured
from pop3d.observe.log import sanitized

__all__ = ["status"]

_DAYS_LEFT: Final = 14  # a certificate that ends sooner should have been renewed, as `pop3d check` has it
_FULL: Final = 0.9  # of a limit

_Line = tuple[str, str, str]  # name, value and style


def status(config: Path | None, *, as_json: bool) -> None:
    """Show each daemon: a table on a terminal, lines with a tab elsewhere, or a JSON object a line."""
    answers = asked(configured(config), {"ask": "status"})
    console = Console(highlight=False)
    for number, found in enumerate(line for answer in answers for line in answer.lines):
        if as_json:
            print(json.dumps(found))
            continue
        if number:
            print()
        lines = [(name, sanitized(value), style) for name, value, style in _lines(found)]
        if not console.is_terminal:
            for name, value, _ in lines:
                print(f"{name}\t{value}")
            continue
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value, style in lines:
            table.add_row(name, Text(value, style))
        console.print(table)


def _reload(last: Mapping[str, Any]) -> Iterator[_Line]:
    """What came of the last SIGHUP."""
    what = f"changed {', '.join(last['changed'])}" if last["changed"] else "nothing has changed"
    yield "reloaded", f"{iso(last['at'])}, {what}", ""
    if last["restart"]:
        yield "needs a restart", ", ".join(last["restart"]), "yellow"
    for fault in last["faults"]:
        yield "not reloaded", fault, "bold red"


def _lines(found: Mapping[str, Any]) -> Iterator[_Line]:
    yield "pop3d", f"{found['version']}, process {found['pid']}", ""
    yield "up", f"{duration(found['uptime'])}, since {iso(found['started'])}", ""
    yield "configuration", str(found.get("configuration", "")), ""
    if reload := found.get("reload"):
        yield from _reload(reload)
    for one in found["listeners"]:
        yield "listens on", one.get("path") or f"{one['host']} port {one['port']}", ""
    sessions = found["sessions"]
    for name, number, limit in (
        ("connections", sessions["open"], sessions["limit"]),
        ("not logged in", sessions["unauthenticated"], sessions["unauthenticated_limit"]),
    ):
        yield name, f"{number} of {limit}", "red" if number >= limit * _FULL else ""
    yield "since the start", f"{found['connections']} connections, {_told(found['logins'], 'logins')}", ""
    if found["refused"]:
        yield "refused", _told(found["refused"], "connections"), "yellow"
    messages = found["messages"]
    counts = ", ".join(f"{messages[key]} {key}" for key in ("retrieved", "deleted", "expired"))
    yield "messages", f"{counts} (of sessions that have ended)", ""
    yield "octets", f"{octets(found['octets']['in'])} in, {octets(found['octets']['out'])} out", ""
    lmtp = found["lmtp"]
    if lmtp["open"] or lmtp["deliveries"]:
        yield "by LMTP", f"{_told(lmtp['deliveries'], 'mail')}; {lmtp['open']} of {lmtp['limit']} connections", ""
    yield "memory", octets(found["memory"]), ""
    for one in found["certificates"]:
        yield "certificate", *_certificate(one)
    yield "log", *_log(found["log"])


def _log(log: Mapping[str, Any]) -> tuple[str, str]:
    if not log["works"]:
        return f"cannot be written; {log['lost']} lines lost", "bold red"
    return (f"{log['lost']} lines lost", "yellow") if log["lost"] else ("is written", "")


def _told(counts: Mapping[str, int], what: str) -> str:
    """``3 accepted, 1 rejected``."""
    return ", ".join(f"{number} {key.lower()}" for key, number in sorted(counts.items())) or f"no {what}"


def _certificate(one: Mapping[str, Any]) -> tuple[str, str]:
    where = f"{one['name']}, {one['file']}" if one["name"] else str(one["file"])
    if not one["ends"]:
        return f"{where}: cannot be used", "bold red"
    days = int((one["ends"] - time.time()) // 86_400)
    if days < 0:
        return f"{where}: ended on {iso(one['ends'])}", "bold red"
    return f"{where}: ends on {iso(one['ends'])}, in {days} days", "red" if days < _DAYS_LEFT else ""
