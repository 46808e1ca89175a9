"""docs/rfc.md against code and tests, both ways. `python tests/test_rfc.py` writes the table of counts anew."""

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/rfc.md"
RFCS = ("1939", "2449", "2595", "3206", "5034", "6856", "8314")
COUNTS = re.compile(r"(?<=<!-- counts -->\n)(.*?)(?=<!-- /counts -->)", re.DOTALL)


def rows() -> list[tuple[str, str, list[str], list[str], str]]:
    """RFC, section, code, tests and the whole row, of each row."""
    found = []
    for part in PAGE.read_text().split("\n## ")[1:]:
        rfc = re.match(r"RFC (\d+)", part)
        assert rfc is not None
        for line in part.splitlines():
            if line.startswith("| ") and not line.startswith("| § "):
                section, _, _, code, tests = (cell.strip() for cell in line[1:-1].split("|"))
                ticks = [] if code.startswith("—") else re.findall(r"`([^`]+)`", code)
                found.append((rfc[1], section, ticks, re.findall(r"`([^`]+)`", tests), line))
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


def cited_in(path: Path) -> set[tuple[str, str]]:
    """RFC and section of each citation; an empty section where none is named. ``RFC 1939 §4, §6`` are two."""
    found = set()
    for rfc, sections in re.findall(r"RFC (\d+)((?:,? (?:and )?§\s?[\d.]*\d)*)", path.read_text()):
        found |= {(rfc, section) for section in re.findall(r"[\d.]*\d", sections) or [""]}
    return found


def test_there_are_rows_for_every_rfc() -> None:
    counted = Counter(rfc for rfc, *_ in rows())
    assert tuple(sorted(counted)) == RFCS
    assert counted["1939"] > 40
    lines = [line for *_, line in rows()]
    assert len(lines) == len(set(lines))


def test_the_code_named_is_there() -> None:
    for _, _, code, _, line in rows():
        assert code or "| — " in line, line
        for name in code:
            path, rest = located(name)
            assert rest in names_in(path), f"{name} is not in {path}"


def test_the_tests_named_are_there() -> None:
    for _, _, code, tests, line in rows():
        assert tests or not code, line
        for test in tests:
            path, _, name = test.partition("::")
            assert (ROOT / "tests" / path).is_file(), test
            functions = {known.rpartition(".")[2] for known in names_in(ROOT / "tests" / path)} if name else set()
            assert not name or name in functions, test


def test_what_holds_a_rule_of_the_engine_cites_its_rfc() -> None:
    for rfc, _, code, _, line in rows():
        paths = [located(name)[0] for name in code]
        core = [path for path in paths if path.is_relative_to(ROOT / "pop3core")]
        assert not core or any(rfc == cited for path in core for cited, _ in cited_in(path)), line


def test_every_rule_the_engine_cites_has_a_row() -> None:
    sections = {(rfc, section.split()[0]) for rfc, section, *_ in rows()}
    for path in (ROOT / "pop3core").rglob("*.py"):
        for rfc, section in cited_in(path):
            if rfc in RFCS and section:
                parents = {(rfc, section), (rfc, section.rpartition(".")[0])}
                below = any(rfc == row and known.startswith(f"{section}.") for row, known in sections)
                assert parents & sections or below, f"{path.name} cites RFC {rfc} §{section}, which has no row"


def counts() -> str:
    held = Counter(rfc for rfc, _, code, *_ in rows() if code)
    otherwise = Counter(rfc for rfc, _, code, *_ in rows() if not code)
    lines = [f"| {rfc} | {held[rfc]} | {otherwise[rfc]} |\n" for rfc in RFCS]
    total = f"| together | {held.total()} | {otherwise.total()} |\n"
    return "| RFC | held | otherwise |\n|---|---|---|\n" + "".join(lines) + total


def test_the_counts_are_those_of_the_rows() -> None:
    found = COUNTS.search(PAGE.read_text())
    assert found is not None
    assert found[1] == counts()


if __name__ == "__main__":
    PAGE.write_text(COUNTS.sub(lambda _: counts(), PAGE.read_text()))
