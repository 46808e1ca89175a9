"""docs/security.md names tests that exist, and the page of every kind can be reached from the README."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/security.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", PAGE)))


@pytest.mark.parametrize("named", NAMED)
def test_tests_that_are_named_exist(named: str) -> None:
    file, _, name = named.partition("::")
    functions = {
        node.name
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }
    assert functions
    assert not name or name in functions


def test_each_threat_names_a_test() -> None:
    section = PAGE.partition("\n## Threats\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| threat ")]
    assert len(rows) > 10
    for row in rows:
        assert re.search(r"`tests/", row.split("|")[-2]), row


def test_the_page_says_what_is_not_defended_and_whom_to_write_to() -> None:
    for heading in (
        "Threats",
        "Who obeys whom",
        "Privilege separation",
        "What is not defended",
        "Report a vulnerability",
    ):
        assert f"\n## {heading}\n" in PAGE


def test_every_page_is_linked_from_the_readme_or_from_a_page_that_is() -> None:
    reached: set[Path] = set()
    left = [ROOT / "README.md"]
    while left:
        page = left.pop()
        if page not in reached:
            reached.add(page)
            targets = re.findall(r"\]\(([^)#]+\.md)[^)]*\)", page.read_text())
            left += [(page.parent / target).resolve() for target in targets if "://" not in target]
    assert {path.resolve() for path in (ROOT / "docs").glob("*.md")} - {path.resolve() for path in reached} == set()
