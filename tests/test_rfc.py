"""docs/rfc.md against code and tests, both ways. `python tests/test_rfc.py` writes the table of counts anew."""

import ast
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/rfc.md"
RFCS = ("1939", "2449", "2595", "3206", "5034", "6856", "8314")
STATES = ("held", "not yet", "otherwise", "site")
LEVELS = {"MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "REQUIRED", "MAY", "must", "must not", "should", "should not"}
COUNTS = re.compile(r"(?<=<!-- counts -->\n)(.*?)(?=<!-- /counts -->)", re.DOTALL)


@dataclass(frozen=True)
class Row:
    """A rule. ``section`` as RFCs number them: "7", "6.5"; ``code`` and ``tests`` as the page names them."""

    rfc: str
    section: str
    level: str
    who: str
    rule: str
    state: str
    code: tuple[str, ...]
    tests: tuple[str, ...]
    line: str


@cache
def rows() -> list[Row]:
    found = []
    for part in PAGE.read_text().split("\n## ")[1:]:
        rfc = re.match(r"RFC (\d+)", part)
        assert rfc is not None
        for line in part.splitlines():
            if line.startswith("| ") and not line.startswith("| § "):
                where, level, who, rule, code, tests = (cell.strip() for cell in line[1:-1].split("|"))
                reason = re.match(r"(not yet|otherwise|site): \S", code)
                # the words of a reason may name code, but none that holds the rule
                held = () if reason else tuple(re.findall(r"`([^`]+)`", code))
                named = tuple(re.findall(r"`([^`]+)`", tests))
                state = reason[1] if reason else "held"
                found.append(Row(rfc[1], where.split()[0], level, who, rule, state, held, named, line))
    return found


@cache
def names_in(path: Path) -> frozenset[str]:
    """Qualified names of classes, functions, methods, fields and variables."""
    found = set()

    def walk(body: list[ast.stmt], above: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(above + node.name)
                if isinstance(node, ast.ClassDef):
                    walk(node.body, f"{above}{node.name}.")
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(above + node.target.id)
            elif isinstance(node, ast.Assign):
                found.update(above + target.id for target in node.targets if isinstance(target, ast.Name))

    walk(ast.parse(path.read_text()).body, "")
    return frozenset(found)


def located(code: str) -> tuple[Path, str]:
    """The file of a dotted name, and the name in it."""
    parts = code.split(".")
    if parts[0] not in ("pop3d", "pop3cli"):
        parts.insert(0, "pop3core")
    for at in range(len(parts) - 1, 0, -1):
        for path in (ROOT.joinpath(*parts[:at]).with_suffix(".py"), ROOT.joinpath(*parts[:at]) / "__init__.py"):
            if path.is_file():
                return path, ".".join(parts[at:])
    raise AssertionError(f"no module for {code}")


@cache
def cited_in(path: Path) -> frozenset[tuple[str, str]]:
    """RFC and section of each citation, also of ``RFC 1939 §4, §6`` and ``RFC 2449 §6.5 and §6.7``, over line ends."""
    text = re.sub(r"\s+(?:# ?)?", " ", path.read_text())
    found = set()
    for rfc, sections in re.findall(r"RFC (\d+)((?:(?:,| and)? §\d+(?:\.\d+)*(?: [A-Z]{3,4}\b)?)+)", text):
        found |= {(rfc, section) for section in re.findall(r"§(\d+(?:\.\d+)*)", sections)}
    return frozenset(found)


def test_there_are_rows_for_every_rfc() -> None:
    counted = Counter(row.rfc for row in rows())
    assert tuple(sorted(counted)) == RFCS
    assert counted["1939"] > 80
    again = [key for key, count in Counter((row.rfc, row.section, row.rule) for row in rows()).items() if count > 1]
    assert not again


def test_a_row_is_held_by_code_and_a_test_or_says_why_not() -> None:
    for row in rows():
        assert row.level in LEVELS, row.line
        assert row.who in {"server", "client", "both", "site"}, row.line
        assert row.state != "held" or (row.code and row.tests), row.line


def test_the_code_named_is_there_and_cites_the_rule() -> None:
    for row in rows():
        for name in row.code:
            path, rest = located(name)
            assert rest in names_in(path), f"{name} is not in {path}"
            assert (row.rfc, row.section) in cited_in(path), f"{path} does not cite RFC {row.rfc} §{row.section}"


def test_the_tests_named_are_there() -> None:
    for row in rows():
        for test in row.tests:
            path, _, name = test.partition("::")
            file = ROOT / path if path == "pop3d/store_contract.py" else ROOT / "tests" / path
            assert file.is_file(), test
            functions = {known.rpartition(".")[2] for known in names_in(file)} if name else set()
            assert name in functions if name else path.startswith("pop3core/transcripts/"), test


def test_every_rule_the_engine_cites_has_a_row() -> None:
    known = {(row.rfc, row.section) for row in rows()}
    for path in (ROOT / "pop3core").rglob("*.py"):
        for rfc, section in cited_in(path):
            if rfc in RFCS:
                below = any(rfc == other and row.startswith(f"{section}.") for other, row in known)
                assert (rfc, section) in known or below, f"{path.name} cites RFC {rfc} §{section}, which has no row"


def counts() -> str:
    lines = [f"| RFC | {' | '.join(STATES)} | rules |\n|---|{'---|' * len(STATES)}---|\n"]
    for rfc in (*RFCS, "all"):
        counted = Counter(row.state for row in rows() if rfc in ("all", row.rfc))
        figures = [*(counted[state] for state in STATES), counted.total()]
        lines.append(f"| {rfc} | {' | '.join(map(str, figures))} |\n")
    return "".join(lines)


def test_the_counts_are_those_of_the_rows() -> None:
    found = COUNTS.search(PAGE.read_text())
    assert found is not None
    assert found[1] == counts()


if __name__ == "__main__":
    PAGE.write_text(COUNTS.sub(lambda _: counts(), PAGE.read_text()))
