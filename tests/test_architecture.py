"""The shape of the code: imports point down only, and what is public is named and documented.

Each rule takes all arrows and names those that break it, so that a planted arrow proves that the rule finds its kind.

It reads the modules' own import statements, not what happens to be loaded.
"""

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator

import pytest
from read_rooms import PACKAGES, Arrow, all_imports, imports, module_paths, room, sources

MODULES = module_paths()

# From the ground up: a room imports what stands above its own line here, and none of its neighbours on the same line.
# A room is a folder of the package, or a module that stands beside the folders.
ENGINE = [
    {"errors", "limits", "framing", "grammar", "value"},
    {"commands"},
    {"table"},
    {"syntax"},
    {"replies", "maildrop", "capabilities", "texts", "downgrade"},
    {"sasl"},
    {"secrecy", "stand_ins"},
    {"events", "settings"},
    {"answers", "reading"},
    {"login"},
    {"server", "client"},
    {"transcript"},
    {""},
]
DAEMON = [
    {"exit_status", "extras", "observe", "postgres", "registry", "system", "uidl_format"},
    {"config", "errors", "net"},
    {"abuse", "auth", "ending", "key_pairs"},
    {"logins", "plugins", "policy", "stores"},
    {"accounts", "expiry", "imports", "recipients", "store_contract"},
    {"lmtp", "session"},
    {"server"},
    {"assembly", "health", "testing"},
    {"renewal"},
    {"reload"},
    {"control"},
    {"commands"},
    {"cli"},
    {"", "__main__"},
]
CLIENT = [
    {"exit_status", "extras", "sanitize"},
    {"errors"},
    {"files"},
    {"message", "net", "terminal"},
    {"accounts"},
    {"options"},
    {"auth"},
    {"mailbox"},
    {"commands", "doctor", "shell", "sync"},
    {"cli"},
    {"", "__main__"},
]
# What stands inside the daemon's stores, likewise: no store knows another one.
STORES = [
    {"", "quota", "threads", "mbox", "read_ahead", "arriving"},
    {"maildir", "memory", "postgres", "upstream"},
    {"mbox_source"},
]
FLOORS = {"pop3core": ENGINE, "pop3d": DAEMON, "pop3cli": CLIENT, "pop3d.stores": STORES}

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
LIBRARY = {f"pop3cli.{wing}" for wing in ("accounts", "auth", "mailbox", "message", "net")}
"""Wings of the client that a program imports, which has no command line."""


ARROWS = all_imports(sources())


def pointing_up(arrows: Iterable[Arrow], house: str) -> Iterator[str]:
    """Arrows from a room to one on the same floor or above."""
    floors = {name: level for level, names in enumerate(FLOORS[house]) for name in names}
    for arrow in arrows:
        source, target = room(arrow.source, house), room(arrow.target, house)
        if source is None or target is None or source == target or source == "__main__":
            continue
        if unknown := {source, target} - floors.keys():
            yield f"{arrow}: {house}.{unknown.pop()} stands on no floor: add it to the list"
        elif floors[target] >= floors[source]:
            yield f"{arrow} points up"


def going_round(arrows: Iterable[Arrow]) -> Iterator[str]:
    """Modules that import each other, one by another, when they are loaded."""
    onward: dict[str, set[str]] = {}
    for arrow in arrows:
        if arrow.target in MODULES and not arrow.in_function:
            onward.setdefault(arrow.source, set()).add(arrow.target)
    done: set[str] = set()

    def follow(module: str, way: list[str]) -> Iterator[str]:
        if module in way:
            yield " -> ".join([*way[way.index(module) :], module])
        elif module not in done:
            for target in sorted(onward.get(module, ())):
                yield from follow(target, [*way, module])
            done.add(module)

    for module in sorted(onward):
        yield from follow(module, [])


def out_of_the_engine(arrows: Iterable[Arrow]) -> Iterator[str]:
    """The engine imports itself and the standard library, and of that nothing that has a clock or does I/O."""
    for arrow in arrows:
        top = arrow.target.partition(".")[0]
        known = top == "pop3core" or (top in sys.stdlib_module_names and top not in NEVER_IN_THE_ENGINE)
        if arrow.source.startswith("pop3core") and not known:
            yield str(arrow)


def between_the_programs(arrows: Iterable[Arrow]) -> Iterator[str]:
    """Daemon and client do not know each other, but that the daemon speaks POP3 and logs in elsewhere by the client."""
    allowed_from = re.compile(r"pop3d\.(stores\.upstream|auth\.upstream)(\..*)?")
    allowed_to = re.compile(r"pop3cli\.(net|auth)(\..*)?")
    for arrow in arrows:
        allowed = allowed_from.fullmatch(arrow.source) and allowed_to.fullmatch(arrow.target)
        if {arrow.source.partition(".")[0], arrow.target.partition(".")[0]} == {"pop3d", "pop3cli"} and not allowed:
            yield str(arrow)


def to_the_terminal(arrows: Iterable[Arrow]) -> Iterator[str]:
    """What draws on a terminal, or reads a command line, is for command lines."""
    allowed = re.compile(r"pop3d\.(cli|commands\..*|testing)|pop3cli\.(cli|shell|terminal)\..*")
    for arrow in arrows:
        if arrow.target.partition(".")[0] in TERMINAL and not allowed.fullmatch(arrow.source):
            yield str(arrow)


def to_a_session(arrows: Iterable[Arrow]) -> Iterator[str]:
    """A store or an authenticator knows no session, and a session no concrete store."""
    for arrow in arrows:
        above = arrow.target in ("pop3d.session", "pop3d.server")
        upwards = above and re.match(r"pop3d\.(stores|auth)\b", arrow.source)
        downwards = arrow.source == "pop3d.session" and arrow.target.startswith("pop3d.stores.")
        if upwards or downwards:
            yield str(arrow)


def out_of_the_library(arrows: Iterable[Arrow]) -> Iterator[str]:
    """The client's library needs others only where a function does, and neither terminal nor pydantic at all."""
    for arrow in arrows:
        if ".".join(arrow.source.split(".")[:2]) in LIBRARY:
            top = arrow.target.partition(".")[0]
            ours = top in PACKAGES or top in sys.stdlib_module_names or top == "__future__"
            if top in TERMINAL | {"pydantic"} or not (ours or arrow.in_function):
                yield str(arrow)


def to_pytest(arrows: Iterable[Arrow]) -> Iterator[str]:
    """pytest is for the contract of stores."""
    for arrow in arrows:
        if arrow.target.partition(".")[0] == "pytest" and arrow.source != "pop3d.store_contract":
            yield str(arrow)


@pytest.mark.parametrize("house", FLOORS)
def test_arrows_point_down(house: str) -> None:
    assert list(pointing_up(ARROWS, house)) == []


RULES = [
    going_round,
    out_of_the_engine,
    between_the_programs,
    to_the_terminal,
    to_a_session,
    out_of_the_library,
    to_pytest,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_no_arrow_breaks(rule: Callable[[Iterable[Arrow]], Iterator[str]]) -> None:
    assert list(rule(ARROWS)) == [], rule.__doc__


@pytest.mark.parametrize(
    ("module", "source", "rule"),
    [
        ("pop3cli.net.tls", "from pop3cli.cli import app", "pop3cli"),
        ("pop3cli.errors", "def f():\n    import pop3cli.net.tls", "pop3cli"),
        ("pop3cli.commands.list", "from pop3cli.shell.shell import shell", "pop3cli"),  # side by side
        ("pop3d.system.secret", "from pop3d.config import Config", "pop3d"),
        ("pop3d.attic", "import pop3d.config", "pop3d"),  # a room that stands on no floor
        ("pop3core.table", "from pop3core import server", "pop3core"),
        ("pop3core.errors", "def f():\n    import pop3core.client", "pop3core"),
        ("pop3d.stores.postgres.store", "from pop3d.stores.maildir import scan", "pop3d.stores"),
        ("pop3d.stores.maildir.names", "import pop3d.stores.maildir.store", going_round),
        ("pop3core.framing", "import asyncio.streams", out_of_the_engine),
        ("pop3core.framing", "from time import monotonic", out_of_the_engine),
        ("pop3core.framing", "import pydantic", out_of_the_engine),
        ("pop3core.framing", "import pop3d", out_of_the_engine),
        ("pop3d.session", "from pop3cli.net import session", between_the_programs),
        ("pop3d.stores.upstream.source", "from pop3cli.mailbox import client", between_the_programs),
        ("pop3cli.net.session", "import pop3d.stores.upstream", between_the_programs),
        ("pop3cli.commands.list", "from rich.table import Table", to_the_terminal),
        ("pop3d.session", "import rich", to_the_terminal),
        ("pop3d.session", "import pop3d.stores.memory", to_a_session),
        ("pop3d.stores.memory", "from pop3d import session", to_a_session),
        ("pop3cli.accounts.discovery", "import dns.resolver", out_of_the_library),
        ("pop3cli.message.html", "def f():\n    import typer", out_of_the_library),
        ("pop3d.server", "import pytest", to_pytest),
    ],
)
def test_a_planted_arrow_is_found(module: str, source: str, rule: object) -> None:
    arrows = [*ARROWS, *imports(module, source, MODULES)]
    found = list(rule(arrows) if callable(rule) else pointing_up(arrows, str(rule)))
    assert found
    assert all(f"{module} -> " in line for line in found)


def test_the_library_does_not_speak_of_options() -> None:
    """Its texts are read by programs that have none: they name settings, and `pop3cli.options` makes options of them.

    A whole command of the daemon, for who runs the server, is another thing.
    """
    for name, path in MODULES.items():
        if ".".join(name.split(".")[:2]) in LIBRARY:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
                    text = re.sub(r"\bpop3d( [a-z]+)+ --[a-z]+", "", node.value)
                    assert not re.search(r"(?<![\w-])--[a-z]", text), f"{path}:{node.lineno}: {text}"


@pytest.mark.parametrize("package", [name for name, path in MODULES.items() if path.name == "__init__.py"])
def test_a_wing_says_what_it_is_about(package: str) -> None:
    assert len(ast.get_docstring(ast.parse(MODULES[package].read_text())) or "") > 40, package


def test_a_search_for_a_class_finds_one() -> None:
    """But for names that a package's ``__all__`` prescribes: those are for programs, which import from the package."""
    prescribed = {
        name
        for package, path in MODULES.items()
        if path.name == "__init__.py"
        for name in getattr(importlib.import_module(package), "__all__", ())
    }
    found: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(module)
    twice = {name: homes for name, homes in found.items() if len(homes) > 1 and name not in prescribed}
    assert not twice, "give one of each pair another name"


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
    lmtp = {1870, 2033, 2034, 2920, 3463, 6152, 6531}
    mail = {822, 2045, 2046, 2047, 2183, 2231, 5321, 5322, 6532, 6858}
    tokens = {6749, 7515, 7517, 7636, 7662, 8252, 8414, 8628, 8693}
    discovery = {2782, 6186}
    known = pop3 | sasl | lmtp | mail | tokens | discovery | {3339, 4647, 5280, 5646, 6125, 9110}
    for path in MODULES.values():
        cited = {int(number) for number in re.findall(r"RFC (\d+)", path.read_text())}
        assert cited <= known, f"{path}: {cited - known}"
