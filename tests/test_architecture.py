"""The shape of the code: imports point down only, and what is public is named and documented.

It reads the modules' own import statements, not what happens to be loaded.
"""

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("pop3core", "pop3d", "pop3cli")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}

# The engine, from the ground up; a module imports what stands above its own line in this list.
ENGINE = [
    {"errors", "limits", "framing", "grammar", "value"},
    {"commands"},
    {"table"},
    {"syntax"},
    {"replies", "maildrop", "capabilities", "texts", "downgrade"},
    {"sasl.base", "sasl.plain", "sasl.login", "sasl.external", "sasl.oauth", "sasl.prep", "sasl.scram"},
    {"sasl"},
    {"sasl.exchange", "secrecy", "stand_ins"},
    {"events", "settings"},
    {"answers", "reading"},
    {"login"},
    {"server", "client"},
    {"transcript"},
    {""},
]
# The daemon and the client, likewise.
DAEMON = [
    {"ownership"},
    {"addresses", "config.*", "gates", "state_folder"},
    {
        "attempts",
        "exit_status",
        "certificates",
        "postgres",
        "privileges",
        "process",
        "config",
        "exposition",
        "proxy_protocol",
        "wire",
        "report",
        "secret",
        "tls",
    },
    {"errors", "auth", "auth.*", "channel", "metrics", "systemd", "tls_exporter"},
    {"guard", "log", "penalties", "plugins", "stores", "stores.*"},
    {"known_users", "log_writing", "logins"},
    {"session"},
    {"server"},
    {"assembly", "store_contract", "testing"},
    {"renewal"},
    {"commands", "commands.*"},
    {"cli"},
    {"", "__main__"},
]
CLIENT = [
    {"exit_status", "harmless", "links", "mime", "process", "explain", "units", "anywhere"},
    {"markup"},
    {"trace", "progress", "tables", "html"},
    {"errors"},
    {"accounts"},
    {"options"},
    {"outages", "tls", "mail", "files", "stream"},
    {"prompt", "chain", "credentials", "proxies", "web", "book"},
    {"completion", "discovery", "oauth"},
    {"tokens"},
    {"attachments", "stats"},
    {"connection"},
    {"session"},
    {"opening"},
    {"entrance"},
    {"client", "render"},
    {"running", "listing"},
    {"commands"},
    {"accounting", "check", "shell", "doctor.*", "overview", "sync", "sync.*"},
    {"doctor"},
    {"account_words", "sync_words"},
    {"app"},
    {"", "__main__"},
]
NEVER_IN_THE_ENGINE = {
    "asyncio",
    "socket",
    "ssl",
    "selectors",
    "threading",
    "time",
    "random",
    "secrets",
    "os",
    "logging",
}
TERMINAL = {"typer", "rich"}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at any depth; names of ours as full module names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name for name in inner if name in MODULES]
            yield from found or [node.module]


def arrows() -> list[tuple[str, str]]:
    return [(name, target) for name, path in MODULES.items() for target in imports(path)]


def floor(floors: list[set[str]], module: str) -> int:
    inner = module.partition(".")[2]
    for level, names in enumerate(floors):
        if inner in names or (f"{inner.partition('.')[0]}.*" in names and "." in inner):
            return level
    raise AssertionError(f"{module} stands on no floor: add it to the list")


@pytest.mark.parametrize(("package", "floors"), [("pop3core", ENGINE), ("pop3d", DAEMON), ("pop3cli", CLIENT)])
def test_arrows_point_down(package: str, floors: list[set[str]]) -> None:
    for source, target in arrows():
        if source.startswith(package) and target.startswith(package):
            same_room = source.split(".")[1:2] == target.split(".")[1:2] and source.count(".") > 1
            below = floor(floors, target) < floor(floors, source)
            assert below or same_room or source.endswith("__main__"), f"{source} -> {target} points up"


def test_the_engine_stands_alone() -> None:
    for source, target in arrows():
        if source.startswith("pop3core"):
            top = target.partition(".")[0]
            assert top == "pop3core" or top in sys.stdlib_module_names, f"{source} -> {target}"
            assert top not in NEVER_IN_THE_ENGINE, f"{source} -> {target}"


def test_daemon_and_client_do_not_know_each_other() -> None:
    for source, target in arrows():
        tops = {source.partition(".")[0], target.partition(".")[0]}
        assert tops != {"pop3d", "pop3cli"}, f"{source} -> {target}"


def test_the_terminal_is_for_command_lines() -> None:
    words = r"app|account_words|sync_words|anywhere|running|shell"
    allowed = re.compile(rf"pop3d\.(cli|commands\..*|testing)|pop3cli\.({words}|render|tables|progress)")
    for source, target in arrows():
        if target.partition(".")[0] in TERMINAL:
            assert allowed.fullmatch(source), f"{source} -> {target}"


def test_pytest_is_for_the_contract_of_stores() -> None:
    for source, target in arrows():
        if target.partition(".")[0] == "pytest":
            assert source == "pop3d.store_contract", f"{source} -> {target}"


def test_stores_and_authenticators_do_not_know_the_session() -> None:
    for source, target in arrows():
        if re.match(r"pop3d\.(stores|auth)", source):
            assert target not in ("pop3d.session", "pop3d.server"), f"{source} -> {target}"
        if source == "pop3d.session":
            assert not target.startswith("pop3d.stores."), f"{source} -> {target}"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_opens_with_its_theory(module: str) -> None:
    assert ast.get_docstring(ast.parse(MODULES[module].read_text())), module


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("pop3core.")])
def test_public_names_of_the_engine_are_listed_and_documented(name: str) -> None:
    module = importlib.import_module(name)
    for public in module.__all__:
        thing = getattr(module, public)
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            # a value: the string behind its assignment documents it
            assert re.search(rf'^{public}\b.*?\n"""', MODULES[name].read_text(), re.MULTILINE | re.DOTALL), public
            continue
        assert thing.__doc__, public
        assert not thing.__doc__.startswith(f"{public}("), f"{name}.{public} has no docstring of its own"
        for member, value in vars(thing).items():
            if not member.startswith("_") and inspect.isfunction(value):
                assert value.__doc__, f"{name}.{public}.{member}"


def test_rules_cited_are_of_rfcs_that_matter() -> None:
    pop3 = {1939, 2449, 2595, 3206, 5034, 6856, 8314}
    sasl = {3454, 4013, 4422, 4616, 4648, 4954, 5056, 5802, 5929, 6750, 7628, 7677, 9266}
    mail = {822, 2045, 2046, 2047, 2183, 2231, 5321, 5322, 6532, 6858}
    tokens = {6749, 7515, 7517, 7636, 7662, 8252, 8414, 8628, 8693}
    discovery = {2782, 6186}
    known = pop3 | sasl | mail | tokens | discovery | {4647, 5280, 5646, 6125, 9110}
    for path in MODULES.values():
        cited = {int(number) for number in re.findall(r"RFC (\d+)", path.read_text())}
        assert cited <= known, f"{path}: {cited - known}"
