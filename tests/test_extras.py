"""A missing extra is named by a command that works as printed, however pop3core was installed."""

import json
import shlex
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import pop3cli.extras
import pop3d.extras
from pop3d.extras import install_line

ROOT = Path(__file__).parent.parent


def test_both_programs_name_the_same_command() -> None:
    ours, theirs = (Path(str(module.__file__)).read_text() for module in (pop3d.extras, pop3cli.extras))
    assert ours == theirs.replace("`pop3d.extras`", "`pop3cli.extras`"), "change both modules together"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of an installation's metadata, which is found in place of the real one."""
    folder = tmp_path / "pop3core-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: pop3core\nVersion: 1\nRequires-Dist: rich>=13\n"
        "Requires-Dist: bcrypt>=4.1; extra == 'crypt'\nRequires-Dist: libpass>=1.9; extra == 'crypt'\n"
        "Requires-Dist: backports-zstd>=1; (python_version < '3.14') and extra == 'zstd'\n"
    )
    monkeypatch.setattr(metadata, "distribution", lambda _: metadata.PathDistribution(folder))
    yield folder


def command(extra: str) -> list[str]:
    words = shlex.split(install_line(extra))
    assert words[:4] == [sys.executable, "-m", "pip", "install"]
    return words[4:]


def origin(folder: Path, **found: object) -> None:
    (folder / "direct_url.json").write_text(json.dumps(found))


def test_from_an_index(installed: Path) -> None:
    assert command("crypt") == ["pop3core[crypt]"]


def test_from_a_checkout_and_a_wheel(installed: Path, tmp_path: Path) -> None:
    checkout, wheel = tmp_path / "a checkout", tmp_path / "pop3core-1-py3-none-any.whl"
    checkout.mkdir()
    wheel.touch()
    origin(installed, url=checkout.as_uri(), dir_info={"editable": True})
    assert command("crypt") == ["-e", f"{checkout}[crypt]"]
    origin(installed, url=checkout.as_uri(), dir_info={})
    assert command("crypt") == [f"{checkout}[crypt]"]
    origin(installed, url=wheel.as_uri(), archive_info={})
    assert command("crypt") == [f"{wheel}[crypt]"]


def test_from_elsewhere(installed: Path) -> None:
    origin(installed, url="https://git.example.org/pop3core", vcs_info={"vcs": "git", "commit_id": "abc123"})
    assert command("crypt") == ["pop3core[crypt] @ git+https://git.example.org/pop3core@abc123"]
    origin(installed, url="https://files.example.org/pop3core-1-py3-none-any.whl", archive_info={})
    assert command("crypt") == ["pop3core[crypt] @ https://files.example.org/pop3core-1-py3-none-any.whl"]


def test_what_it_was_installed_from_is_gone(installed: Path, tmp_path: Path) -> None:
    origin(installed, url=(tmp_path / "gone.whl").as_uri(), archive_info={})
    assert command("crypt") == ["bcrypt>=4.1", "libpass>=1.9"]
    assert command("zstd") == ["backports-zstd>=1"]


def test_not_installed_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    assert command("crypt") == [f"{ROOT}[crypt]"]
