"""The engine is a function of what it is given: no clock, no chance, no I/O, and no way around the imports.

`tests/test_architecture.py` says what the engine must not import; this says what it may.
"""

import ast
from pathlib import Path

import pytest
from read_rooms import imports

ENGINE = sorted((Path(__file__).parents[2] / "pop3core").rglob("*.py"))
# Each of these is a table or a pure function. Add one only if it reads nothing and remembers nothing.
ALLOWED = {
    "__future__", "array", "binascii", "collections", "dataclasses", "enum", "hashlib", "hmac", "itertools", "json",
    "re", "types", "typing", "unicodedata",
}  # fmt: skip
# What reaches outside, or around the imports, without importing anything.
FORBIDDEN = {"__import__", "breakpoint", "compile", "eval", "exec", "globals", "input", "open", "print"}


def test_there_is_an_engine() -> None:
    assert len(ENGINE) > 10


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: path.name)
def test_the_engine_imports_pure_modules_only(path: Path) -> None:
    tops = {arrow.target.partition(".")[0] for arrow in imports(path.stem, path.read_text(), ())} - {"pop3core"}
    assert tops <= ALLOWED, f"{path.name} -> {tops - ALLOWED}"


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: path.name)
def test_the_engine_calls_nothing_that_reaches_outside(path: Path) -> None:
    tree = ast.parse(path.read_text())
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not named & FORBIDDEN, f"{path.name}: {named & FORBIDDEN}"


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: path.name)
def test_the_engine_keeps_no_state_between_connections(path: Path) -> None:
    """No ``global``, and no mutable literal at a module's top that is not marked Final or in capitals."""
    tree = ast.parse(path.read_text())
    assert not any(isinstance(node, ast.Global | ast.Nonlocal) for node in ast.walk(tree))
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict | ast.List | ast.Set):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            assert names == ["__all__"] or all(name.isupper() for name in names), f"{path.name}: {names}"
