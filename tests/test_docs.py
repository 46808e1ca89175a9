"""The documentation says what the code does: keys, flags and links are looked up, examples are run."""

import re
import socket
import threading
from pathlib import Path

import make_protocol
import pytest
import typer.main
from pydantic import BaseModel

import pop3core.table
from pop3cli.cli.app import app as pop3cli_app
from pop3d.auth.extra_fields import FIELDS
from pop3d.cli import app as pop3d_app
from pop3d.config import (
    Auth,
    Config,
    Dovecot,
    Limits,
    Listen,
    Lmtp,
    Log,
    Metrics,
    OAuth,
    Pam,
    Postgres,
    PostgresUsers,
    Sni,
    StoreConfig,
    Tls,
    load,
)
from tests.site import Daemon, Site

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize(
    "model",
    [
        Config,
        Listen,
        Tls,
        Sni,
        Auth,
        Dovecot,
        OAuth,
        Pam,
        PostgresUsers,
        StoreConfig,
        Postgres,
        Lmtp,
        Limits,
        Log,
        Metrics,
    ],
)  # fmt: skip
def test_every_key_of_the_configuration_is_documented(model: type[BaseModel]) -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    tables = {"listen", "tls", "auth", "store", "lmtp", "limits", "log", "metrics"}
    for name, field in model.model_fields.items():
        if (model is Config and name in tables) or name in ("sni", "oauth", "pam", "postgres", "dovecot"):
            assert re.search(rf"^## `\[+((tls|auth|store)\.)?{name}\]+`", text, re.MULTILINE)
            continue
        row = re.search(rf"^\| `{name}` \|([^|]*)\|", text, re.MULTILINE)
        assert row, f"docs/configuration.md has no row for `{name}`: say there what it does, and its default"
        default = row[1].strip(' `"')
        if isinstance(field.default, (int, float)) and not isinstance(field.default, bool):
            assert float(default) == field.default


def test_every_extra_field_of_a_passwd_file_is_documented() -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    table = page.partition("### Extra fields of a Dovecot passwd-file")[2].partition("\n### ")[0]
    assert [row.name for row in FIELDS if f"`{row.name}`" not in table] == []


@pytest.mark.parametrize("page", ["docs/configuration.md", "docs/plugins.md", "docs/running.md"])
def test_configurations_shown_are_valid(page: str, tmp_path: Path) -> None:
    for text in blocks(page, "toml"):
        path = tmp_path / "pop3d.toml"
        path.write_text(text)
        assert load(path).listen


def options(command, above: str = "") -> list[str]:
    found = [option for param in command.params for option in getattr(param, "opts", []) if option.startswith("--")]
    for name, sub in getattr(command, "commands", {}).items():
        found += [f"{above}{name}", *options(sub, f"{above}{name} ")]
    return found


@pytest.mark.parametrize(
    ("name", "app", "page"), [("pop3d", pop3d_app, "docs/running.md"), ("pop3cli", pop3cli_app, "docs/client.md")]
)
def test_every_command_and_option_is_documented(name: str, app: typer.Typer, page: str) -> None:
    text = (ROOT / page).read_text()
    wanted = options(typer.main.get_command(app))
    assert len(wanted) > 5
    missing = [word for word in wanted if not re.search(rf"(^|`|{name} |[^\w-](?=--)){word}(?![\w-])", text)]
    assert not missing, f"{page} does not speak of {', '.join(missing)}: say there what it does"


def test_the_engines_examples_serve_each_other() -> None:
    server, client, scram = (compile_and_run(text) for text in blocks("docs/engine.md", "python"))
    assert callable(scram["log_in"])
    ours, theirs = socket.socketpair()
    with ours, theirs:
        thread = threading.Thread(target=server["serve"], args=(theirs,))
        thread.start()
        assert client["fetch"](ours) == b"Subject: hello\r\n\r\nworld\r\n"
        thread.join(10)
        assert not thread.is_alive()


def compile_and_run(text: str) -> dict:
    names: dict = {}
    exec(compile(text, "docs", "exec"), names)
    return names


def test_the_page_of_plugins_shows_the_examples_real_lines() -> None:
    shown = blocks("docs/plugins.md", "python")
    assert len(shown) == 5
    files = [*(ROOT / "examples").glob("*.py"), ROOT / "tests/pop3d/test_plugins.py"]
    for text in shown:
        assert any(text in file.read_text() for file in files), text


async def test_the_example_of_testing_runs() -> None:
    (text,) = blocks("docs/testing.md", "python")
    await compile_and_run(text)["test_fetches_mail"]()


async def test_the_example_of_the_client_library_runs(site: Site, daemon: Daemon, monkeypatch) -> None:
    mail = {"cur/1.a:2,": b"Subject: old news\n\n", "cur/2.b:2,": b"Subject: fresh news\n\n"}
    maildir = site.maildir("alice", mail)
    (text,) = blocks("docs/client-library.md", "python")
    monkeypatch.setenv("SSL_CERT_FILE", str(site.certificate))
    found = await compile_and_run(text)["subjects"](f"pop3s://alice@localhost:{site.port}", "secret")
    assert found == ["old news", "fresh news"]
    assert [path.name for path in (maildir / "cur").iterdir()] == ["2.b:2,"]


def test_the_readme_shows_the_drivers_real_lines() -> None:
    (shown,) = blocks("README.md", "python")
    driver = re.sub(r"\s+", " ", (ROOT / "pop3d/session.py").read_text())
    for case in re.split(r"\n(?=    case )", shown.replace("    ...\n", ""))[1:]:
        assert re.sub(r"\s+", " ", case).strip() in driver


def test_commands_of_the_contributing_page_name_what_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    files = re.findall(r"(?<![\w./])(?:tests|docs|pop3\w+)/[\w./]*\w", text)
    modules = re.findall(r"python -m (tests[\w.]*)", text)
    assert len(files) > 10
    assert len(modules) > 10
    paths = [*files, *(module.replace(".", "/") for module in modules)]
    missing = [path for path in paths if not ((ROOT / path).exists() or (ROOT / f"{path}.py").exists())]
    assert not missing, f"CONTRIBUTING.md names what is not there (any more): {' '.join(missing)}"


def test_the_contributing_page_says_of_the_table_what_the_table_says() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    commands = re.findall(r"^    (python .*?)(?:  .*)?$", pop3core.table.__doc__ or "", re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        assert f"`{command}`" in page, f"the docstring of pop3core/table.py, and not CONTRIBUTING.md, says: {command}"


def test_the_page_of_the_protocol_is_made_from_the_tables() -> None:
    page = make_protocol.PAGE.read_text()
    assert make_protocol.made(page) == page, "run: python docs/make_protocol.py"
    assert len(page) > 5000
