"""The map of the packages is what their imports say, and the page beside it names rooms that exist."""

import importlib
import re
import shutil
import subprocess
from pathlib import Path

import make_map
import pytest
import read_rooms
from read_rooms import PACKAGES, all_imports, circles, house, module_paths, sources, table

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/architecture.md").read_text()
MODULES = module_paths()


def houses() -> list[str]:
    """Packages that have folders."""
    return sorted({name.rpartition(".")[0] for name, path in MODULES.items() if path.name == "__init__.py"} - {""})


def test_the_picture_shows_the_imports_of_today() -> None:
    up_to_date = make_map.picture() == make_map.PICTURE.read_text()
    assert up_to_date, "run: python docs/make_map.py"


@pytest.mark.parametrize("name", houses())
def test_no_circle_between_the_rooms_of(name: str) -> None:
    texts = sources()
    assert circles(house(name, texts, all_imports(texts))) == []


PLANTED = {
    "pop3d": "",
    "pop3d.cli": "from pop3d.net import tls",
    "pop3d.net": "",
    "pop3d.net.tls": "from pop3d.net.wire import Wire\nimport ssl",
    "pop3d.net.wire": "def f():\n    import pop3d.errors",
    "pop3d.errors": "",
}


def test_rooms_and_arrows_are_counted() -> None:
    found = house("pop3d", PLANTED, all_imports(PLANTED))
    assert found.modules == {"": 1, "cli": 1, "net": 3, "errors": 1}
    assert found.folders == {"net"}
    assert found.arrows == {("cli", "net"), ("net", "errors")}
    assert make_map.floors_of(found) == {"": 0, "errors": 0, "net": 1, "cli": 2}


def test_a_circle_is_found() -> None:
    planted = PLANTED | {"pop3d.errors": "def f():\n    import pop3d.cli"}
    found = house("pop3d", planted, all_imports(planted))
    assert circles(found) == [{"cli", "errors", "net"}]
    with pytest.raises(ValueError, match="pop3d: these rooms import each other: cli, errors, net"):
        make_map.floors_of(found)


def test_an_arrow_that_a_longer_way_says_too_is_not_drawn() -> None:
    planted = PLANTED | {"pop3d.cli": "import pop3d.net.tls, pop3d.errors"}
    found = house("pop3d", planted, all_imports(planted))
    assert ("cli", "errors") in found.arrows
    assert make_map.drawn(found) == [("cli", "net"), ("net", "errors")]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_an_older_commit_is_counted_without_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
        (tmp_path / package / "old.py").write_text(f"import {package}")
    git("add", ".")
    git("commit", "-m", "before")
    for package in PACKAGES:
        (tmp_path / package / "old.py").unlink()
    monkeypatch.setattr(read_rooms, "ROOT", tmp_path)
    assert set(sources("HEAD")) == {*PACKAGES, *(f"{package}.old" for package in PACKAGES)}
    lines = table(["HEAD", None]).splitlines()
    assert "| HEAD | pop3d | 2 | 2 | 1 | 0 |" in lines
    assert "| working tree | pop3d | 1 | 1 | 0 | 0 |" in lines
    with pytest.raises(SystemExit, match="cannot read revision no-such"):
        sources("no-such")


def section(title: str) -> str:
    """A section of the page, up to the next heading of its level or above."""
    heading = re.search(rf"^(#+) {title}\n", PAGE, re.MULTILINE)
    assert heading, f"docs/architecture.md has no section: {title}"
    return re.split(rf"^#{{1,{len(heading[1])}}} ", PAGE[heading.end() :], maxsplit=1, flags=re.MULTILINE)[0]


def test_the_page_lists_each_wing_as_its_docstring_says() -> None:
    assert make_map.made(PAGE) == PAGE, "run: python docs/make_map.py"
    wings = [name for name, path in MODULES.items() if path.name == "__init__.py" and "." in name]
    assert len(wings) > 20
    for wing in wings:
        assert f"\n| `{wing.replace('.', '/')}/` | " in PAGE


@pytest.mark.parametrize("walk", ["A RETR through the daemon", "A login", "A message through `pop3cli sync`"])
def test_a_walk_is_a_list_of_functions_in_order(walk: str) -> None:
    steps = re.findall(r"^(\d+)\. (.*)$", section(walk), re.MULTILINE)
    assert [int(number) for number, _ in steps] == list(range(1, len(steps) + 1))
    assert len(steps) > 5
    for _, step in steps:
        assert re.match(r"(`pop3\w+\.[\w.]+\.\w+`(, )?)+: \S", step), (
            f"docs/architecture.md, {walk}: `module.name`: {step}"
        )


def test_the_page_names_modules_functions_and_files_that_exist() -> None:
    names = re.findall(r"`(pop3(?:core|d|cli)\.[\w.]+)`", PAGE)
    paths = re.findall(r"`(pop3(?:core|d|cli)/[\w./]+)`", PAGE)
    assert len(names) > 60
    assert len(paths) > 30
    gone = [name for name in names if not exists(name)] + [path for path in paths if not (ROOT / path).exists()]
    assert not gone, f"docs/architecture.md names what is not there (any more): {' '.join(gone)}"


def exists(name: str) -> bool:
    """Whether a dotted name leads to something: a module, or one of its names."""
    if name in MODULES:
        return True
    above, _, last = name.rpartition(".")
    thing = found(above)
    return thing is not None and hasattr(thing, last)


def found(name: str) -> object | None:
    """The module or class of a dotted name."""
    if name in MODULES:
        return importlib.import_module(name)
    above, _, last = name.rpartition(".")
    return getattr(found(above), last, None) if above else None
