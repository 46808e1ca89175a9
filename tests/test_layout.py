"""The folders of `tests` are those of the packages, and a test file below a wing is named after what it tests.

At the top of `tests/<package>` stand the modules at the top of the package, and what crosses its wings: whole programs,
dialogues, hostile behaviour. `python -m tests.test_layout` lists the modules that have no test file of their name.
"""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("pop3core", "pop3d", "pop3cli")


def modules(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}


def misplaced(root: Path, package: str) -> list[str]:
    """What is wrong with the tests of a package, and what to do."""
    tests, faults = root / "tests" / package, []
    for path in sorted(tests.rglob("test_*.py")):
        place = path.relative_to(tests).parent
        wing = root / package / place
        if not (wing / "__init__.py").is_file():
            faults.append(f"{path.relative_to(root)}: {package}/{place} is no folder of the package; move the test")
        elif place != Path():
            known = modules(wing) | {wing.name}
            subject = path.stem.removeprefix("test_")
            if not any(subject == name or subject.startswith(f"{name}_") for name in known):
                faults.append(
                    f"{path.relative_to(root)}: {package}/{place} has no module of that name; call it "
                    f"test_<module>.py or test_<module>_<aspect>.py, or move it to tests/{package} if it crosses wings"
                )
    return faults


def untested(root: Path, package: str) -> list[str]:
    """Modules without a test file of their name; another may test them."""
    return [
        str(path.relative_to(root))
        for path in sorted((root / package).rglob("*.py"))
        if path.stem in modules(path.parent)
        and not (root / "tests" / path.relative_to(root)).with_name(f"test_{path.name}").is_file()
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_tests_stand_where_what_they_test_stands(package: str) -> None:
    faults = misplaced(ROOT, package)
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("file", "fault"),
    [
        ("test_any_dialogue.py", None),
        ("net/test_tls.py", None),
        ("net/test_tls_exporter.py", None),
        ("net/test_net.py", None),
        ("net/conftest.py", None),
        ("net/test_tlsexporter.py", "pop3d/net has no module of that name"),
        ("net/test_parts.py", "pop3d/net has no module of that name"),
        ("wire/test_tls.py", "pop3d/wire is no folder of the package"),
    ],
)
def test_a_misplaced_test_is_found(file: str, fault: str | None, tmp_path: Path) -> None:
    for path in ("pop3d/__init__.py", "pop3d/net/__init__.py", "pop3d/net/tls.py", f"tests/pop3d/{file}"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    faults = misplaced(tmp_path, "pop3d")
    assert len(faults) == (fault is not None)
    assert all(fault in line for line in faults if fault)


def test_a_module_without_a_test_file_of_its_name_is_listed(tmp_path: Path) -> None:
    for path in ("pop3d/__init__.py", "pop3d/net/tls.py", "pop3d/net/wire.py", "tests/pop3d/net/test_tls.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert untested(tmp_path, "pop3d") == ["pop3d/net/wire.py"]


if __name__ == "__main__":
    for package in PACKAGES:
        print(*untested(ROOT, package), sep="\n")
