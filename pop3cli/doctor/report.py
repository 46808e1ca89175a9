"""What was found, for people, for programs and for continuous integration (JUnit's XML)."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pop3cli.doctor.findings import Finding, Verdict
from pop3cli.doctor.table import Examination
from pop3cli.terminal.tables import Column, Table
from pop3cli.terminal.terminal import Terminal

__all__ = ["Result", "as_json", "as_junit", "new_table", "show_end", "show_row", "summary"]

_STYLE: Final = {Verdict.PASS: "ok", Verdict.WARN: "warning", Verdict.FAIL: "err", Verdict.SKIPPED: "faint"}
_NO_XML: Final = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_COLUMNS: Final = (
    Column("Verdict", 7),
    Column("Examination", 14, "strong"),
    Column("Seen", 40, share=1),
    Column("Asked by", 28, "faint"),
)


@dataclass(frozen=True, slots=True)
class Result:
    """One examination's finding, and how many seconds it took."""

    examination: Examination
    finding: Finding
    seconds: float


def summary(results: Sequence[Result]) -> dict[str, int]:
    """How many examinations ended with each verdict."""
    counted = Counter(result.finding.verdict for result in results)
    return {verdict.value: counted[verdict] for verdict in Verdict}


# --- for people ---


def new_table(terminal: Terminal) -> Table:
    """The table that `show_row` fills."""
    return terminal.table(_COLUMNS)


def show_row(table: Table, result: Result) -> None:
    """One row, as soon as it is known."""
    verdict = result.finding.verdict
    table.row((verdict.value, _STYLE[verdict]), result.examination.id, result.finding.seen, result.examination.rfc)


def show_end(results: Sequence[Result], terminal: Terminal) -> None:
    """What is not as it should be, once more and whole, with what to do; and one line on all."""
    for result in results:
        finding, examination = result.finding, result.examination
        if finding.verdict in (Verdict.WARN, Verdict.FAIL):
            terminal.line()
            name = (finding.verdict.value, _STYLE[finding.verdict])
            terminal.line(name, (f" {examination.id}", "strong"), (f"  {examination.rfc}", "faint"))
            for title, text in (("asked", examination.asks), ("seen", finding.seen), ("do", finding.remedy)):
                terminal.line((f"  {title:<6}", "label"), text)
    counts = summary(results)
    terminal.line()
    pieces = [(f"{number} {word}", _STYLE[Verdict(word)] if number else "faint") for word, number in counts.items()]
    between = [piece for one in pieces for piece in (", ", one)][1:]
    terminal.line((f"{len(results)} examinations: ", "strong"), *between)


# --- for programs ---


def as_json(server: str, results: Sequence[Result]) -> dict[str, Any]:
    """All of it as one value."""
    return {
        "server": server,
        "summary": summary(results),
        "examinations": [
            {
                "id": result.examination.id,
                "verdict": result.finding.verdict.value,
                "rfc": result.examination.rfc,
                "asks": result.examination.asks,
                "seen": result.finding.seen,
                "remedy": result.finding.remedy,
                "seconds": round(result.seconds, 3),
            }
            for result in results
        ],
    }


def as_junit(server: str, results: Sequence[Result]) -> bytes:
    """All of it as JUnit's XML: a warning passes, and stands in the test's output."""
    counts = summary(results)
    counted = {"tests": str(len(results)), "failures": str(counts["fail"]), "skipped": str(counts["skipped"])}
    seconds = f"{sum(result.seconds for result in results):.3f}"
    suite = ET.Element(
        "testsuite", {"name": _xml(f"pop3cli doctor {server}"), "time": seconds, "errors": "0", **counted}
    )
    for result in results:
        examination, finding = result.examination, result.finding
        attributes = {"classname": "pop3cli.doctor", "name": examination.id, "time": f"{result.seconds:.3f}"}
        case = ET.SubElement(suite, "testcase", attributes)
        text = _xml(f"{examination.rfc}: {examination.asks}\nseen: {finding.seen}\ndo: {finding.remedy or '-'}")
        match finding.verdict:
            case Verdict.FAIL:
                ET.SubElement(case, "failure", {"message": _xml(finding.seen)}).text = text
            case Verdict.SKIPPED:
                ET.SubElement(case, "skipped", {"message": _xml(finding.seen)})
            case Verdict.WARN:
                ET.SubElement(case, "system-out").text = f"warning\n{text}"
            case Verdict.PASS:
                ET.SubElement(case, "system-out").text = text
    ET.indent(suite)
    text = ET.tostring(suite, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'.encode()


def _xml(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)
