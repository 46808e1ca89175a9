"""Reads the rooms of the packages from the import statements of their modules, and counts them.

A room is a folder of a package, or a module that stands beside the folders; the package's own ``__init__`` is one, too.
`docs/make_map.py` draws the rooms, `tests/test_architecture.py` holds the rules for arrows between them.
"""

import ast
import io
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("pop3cli", "pop3core", "pop3d")

# --- the imports ---


@dataclass(frozen=True)
class Arrow:
    """An import of ``target``, as a full module name, by ``source``, a module of ours."""

    source: str
    target: str
    in_function: bool = False

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


def module_name(path: str) -> str:
    """``pop3d/net/tls.py`` is ``pop3d.net.tls``, ``pop3d/net/__init__.py`` is ``pop3d.net``."""
    return path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def module_paths() -> dict[str, Path]:
    """The modules of the working tree, by name."""
    found = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return {module_name(path.relative_to(ROOT).as_posix()): path for path in found}


def sources(revision: str | None = None) -> dict[str, str]:
    """The text of each module, in the working tree or in a commit.

    Raises SystemExit when git cannot read the commit.
    """
    if revision is None:
        return {name: path.read_text() for name, path in module_paths().items()}
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", revision, "--", *PACKAGES]
    result = subprocess.run(command, capture_output=True)
    if result.returncode:
        raise SystemExit(f"cannot read revision {revision}: {result.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(result.stdout)) as tar:
        files = [(member.name, tar.extractfile(member)) for member in tar if member.name.endswith(".py")]
        return {module_name(name): file.read().decode() for name, file in files if file is not None}


def imports(module: str, source: str, known: Iterable[str]) -> Iterator[Arrow]:
    """Every import of a module, at any depth; what is for type checkers alone counts as in a function.

    ``known``: names of modules, to tell ``from package import module`` from ``from module import name``.
    """
    modules = frozenset(known)

    def within(node: ast.AST, inside: bool) -> Iterator[Arrow]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Arrow(module, alias.name, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0 and child.module is not None, f"{module}: relative import"
                inner = [f"{child.module}.{alias.name}" for alias in child.names]
                found = [name for name in inner if name in modules]
                yield from (Arrow(module, name, inside) for name in found or [child.module])
            else:
                function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
                yield from within(child, inside or function or typing)

    return within(ast.parse(source), False)


def all_imports(texts: Mapping[str, str]) -> list[Arrow]:
    """The imports of all modules."""
    return [arrow for module, text in texts.items() for arrow in imports(module, text, texts)]


def room(module: str, house: str) -> str | None:
    """The room of ``house``, a package, that a module is in; None where it is not in that house."""
    if module == house:
        return ""
    return module[len(house) + 1 :].partition(".")[0] if module.startswith(f"{house}.") else None


# --- rooms and arrows between them ---


@dataclass(frozen=True)
class House:
    """A package. ``modules``: how many each room has. ``folders``: the rooms that are folders.

    ``arrows``: which room imports which.
    """

    name: str
    modules: Mapping[str, int]
    folders: Set[str]
    arrows: Set[tuple[str, str]]


def house(name: str, texts: Iterable[str], arrows: Iterable[Arrow]) -> House:
    """The rooms of a package, and which imports which."""
    modules: dict[str, int] = {}
    folders = set()
    for module in texts:
        if (found := room(module, name)) is not None:
            modules[found] = modules.get(found, 0) + 1
            if module.count(".") > name.count(".") + 1:
                folders.add(found)
    between = {(room(arrow.source, name), room(arrow.target, name)) for arrow in arrows}
    ours = {(source, target) for source, target in between if source is not None and target is not None}
    return House(name, modules, folders, {(source, target) for source, target in ours if source != target})


def circles(of: House) -> list[set[str]]:
    """Rooms that import each other, one by another: each circle once."""
    reached = {name: below(of.arrows, name) for name in of.modules}
    found: list[set[str]] = []
    for name in sorted(of.modules):
        circle = {other for other in reached[name] if name in reached[other]}
        if circle and circle not in found:
            found.append(circle)
    return found


def below(arrows: Set[tuple[str, str]], start: str) -> set[str]:
    """Rooms that a room imports, or that those import, and so on; itself only where it is in a circle."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        here = waiting.pop()
        new = {target for source, target in arrows if source == here} - found
        found |= new
        waiting += sorted(new)
    return found


def table(revisions: Iterable[str | None]) -> str:
    """Rooms, arrows and circles of each package at each revision; None is the working tree."""
    lines = ["| revision | package | modules | top-level rooms | arrows between them | circles between folders |"]
    lines.append("|---|---|--:|--:|--:|--:|")
    for revision in revisions:
        texts = sources(revision)
        arrows = all_imports(texts)
        packages = {name.rpartition(".")[0] for name in texts if "." in name}
        for package in PACKAGES:
            top = house(package, texts, arrows)
            inside = [house(name, texts, arrows) for name in packages if f"{name}.".startswith(f"{package}.")]
            round_about = sum(len(circles(each)) for each in inside if each.folders)
            lines.append(
                f"| {revision or 'working tree'} | {package} | {sum(top.modules.values())} | {len(top.modules)}"
                f" | {len(top.arrows)} | {round_about} |"
            )
    return "\n".join(lines)
