"""`pop3cli account`: added, listed, used by name and removed; what cannot be added is told in one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pop3cli.accounts import registry as book
from pop3cli.extras import install_line
from tests.pop3cli.conftest import PASSWORD, Cli, Mailbox, Server

pytestmark = pytest.mark.usefixtures("home")


def test_an_account_from_the_first_day_to_the_last(pop3cli: Cli, server: Server, home: Path, mailbox: Mailbox) -> None:
    ran = pop3cli("account", "add", "work", server.account(), "--cacert", server.certificate, "--timeout", "9")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.decode() == f"added work: {server.account()} ({home / 'accounts.toml'})\n"
    assert PASSWORD not in (home / "accounts.toml").read_text()
    assert pop3cli("stat", "work").out.startswith(b"5 messages")
    assert pop3cli("--timeout", "3", "get", "work", "1").status == 0
    assert mailbox.logins == [("alice", PASSWORD.encode())] * 2
    [entry] = json.loads(pop3cli("--json", "account", "list").out)
    assert entry == {"name": "work", "url": server.account(), "cacert": str(server.certificate), "timeout": 9.0}
    shown = pop3cli("account", "list").out.decode().splitlines()
    assert "own authority" in shown[1]
    assert "password asked for" in shown[1]
    assert pop3cli("account", "remove", "work").out == b"removed work\n"
    ran = pop3cli("stat", "work")
    assert ran.status == 2
    assert "no account of that name (none has been added yet)" in ran.err
    assert pop3cli("account", "remove", "work").status == 2


def test_relative_paths_are_saved_as_absolute_ones(
    pop3cli: Cli, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(server.certificate.parent)
    assert pop3cli("account", "add", "work", server.account(), "--cacert", server.certificate.name).status == 0
    monkeypatch.chdir(tmp_path)
    assert pop3cli("stat", "work").status == 0


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["a b", "pop3s://a@b"], 2, "not a name"),
        (["work", "work"], 2, "not a POP3 URL"),
        (["work", "pop3s://a:pa55@b"], 2, "a password in the account's URL"),
        (["work", "pop3s://a@b", "--insecure"], 2, "for one run only; give --pin"),
        (["work", "pop3s://a@b", "--pin", "abc"], 78, "not a SHA-256"),
        (["work", "pop3s://a@b", "--auth", "frob"], 78, "--auth frob: no such mechanism; one of scram-sha-256-plus"),
        (["work", "pop3s://a@b", "--cacert", "/no/such"], 78, "cannot be read"),
        (["work", "pop3s://a@b", "--proxy", "ftp://a:1"], 78, "not the URL of a proxy"),
        (["work", "pop3s://a@b", "--proxy", "socks5://me:pa55@a:1"], 78, "could be read by others"),
        (["work", "pop3s://a@b", "--keyring", "--password-command", "x"], 2, "does not go with --password-command"),
        (["work", "pop3s://a@b", "--password-command", "a\nb"], 2, "cannot be written into a file"),
    ],
)
def test_invalid_accounts_are_not_added(pop3cli: Cli, home: Path, arguments: list[str], status: int, text: str) -> None:
    ran = pop3cli("account", "add", *arguments)
    assert (ran.status, ran.out) == (status, b"")
    assert text in ran.err
    assert "pa55" not in ran.err
    assert len(ran.err.splitlines()) == 1
    assert not (home / "accounts.toml").exists()


def test_a_shell_opens_an_account_by_name(
    pop3cli: Cli, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pop3cli("account", "add", "work", server.account(), "--cacert", server.certificate)
    with (tmp_path / "script").open("w+") as script:
        script.write("open work\nstat\nquit\n")
        script.seek(0)
        monkeypatch.setattr(sys, "stdin", script)
        ran = pop3cli("shell")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.decode().splitlines()[2].startswith("+OK 5 ")


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [("keyring", ["--keyring"], "keyring"), ("python_socks", ["--proxy", "socks5://127.0.0.1:1"], "socks")],
)
def test_a_missing_extra_is_named(
    pop3cli: Cli, monkeypatch: pytest.MonkeyPatch, module: str, arguments: list[str], extra: str
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)  # type: ignore[arg-type]
    ran = pop3cli("account", "add", "work", "pop3s://a@b", *arguments)
    assert ran.status == 78
    assert install_line(extra) in ran.err
    assert book.read_accounts() == {}
