"""The engine is a function of what it is given: no clock, no chance, no I/O, and no way around the imports.

`tests/test_architecture.py` says what the engine must not import; this says what it may. And it plants arrows that
point up, to see that they are found.
"""

import ast
from pathlib import Path

import pytest

from tests import test_architecture

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
    tops = {name.partition(".")[0] for name in test_architecture.imports(path)} - {"pop3core"}
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


FLOORS, ALONE = "test_arrows_point_down", "test_the_engine_stands_alone"
STORES = "test_stores_and_authenticators_do_not_know_the_session"
PLANTED = {
    # a module, what it imports, the check that must find it
    "up": ("pop3core.table", "from pop3core import server", FLOORS),
    "up, inside a function": ("pop3core.errors", "def f():\n    import pop3core.client", FLOORS),
    "I/O": ("pop3core.framing", "import asyncio.streams", ALONE),
    "a clock": ("pop3core.framing", "from time import monotonic", ALONE),
    "a third party": ("pop3core.framing", "import pydantic", ALONE),
    "the daemon": ("pop3core.framing", "import pop3d", ALONE),
    "a sister": ("pop3d.session", "from pop3cli import session", "test_daemon_and_client_do_not_know_each_other"),
    "the terminal": ("pop3d.session", "import rich", "test_the_terminal_is_for_command_lines"),
    "a concrete store": ("pop3d.session", "import pop3d.stores.memory", STORES),
    "a store that knows": ("pop3d.stores.memory", "from pop3d import session", STORES),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_arrow_is_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, source, check = PLANTED[name]
    planted = tmp_path / "planted.py"
    planted.write_text(source)
    values = ("pop3core", test_architecture.ENGINE) if check == FLOORS else ()
    find = getattr(test_architecture, check)
    find(*values)  # nothing is wrong before
    monkeypatch.setitem(test_architecture.MODULES, module, planted)
    with pytest.raises(AssertionError, match=r"->"):
        find(*values)
