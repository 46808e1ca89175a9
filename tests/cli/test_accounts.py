"""Named accounts: the file, the command line, and where passwords come from."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pop3cli.accounts import registry as book
from pop3cli.accounts.registry import NamedAccount
from pop3cli.accounts.url import Account, Settings, parse_account
from pop3cli.auth.passwords import find_password
from pop3cli.errors import SettingFault, UsageFault

from .conftest import PASSWORD, Mailbox, Ran, Serve, Server

Cli = Callable[..., Ran]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "pop3cli"


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def server(serve: Serve, mailbox: Mailbox) -> Server:
    return serve(mailbox)


ALICE = parse_account("pop3s://alice@mail.example.org")


# --- the book ---


def test_what_is_written_is_read(home: Path) -> None:
    settings = Settings(
        cacert=Path('/etc/a "quoted"\\ päth.pem'),
        pins=("ab" * 32, "cd" * 32),
        client_cert=Path("/c.pem"),
        client_key=Path("/c.key"),
        proxy="socks5://127.0.0.1:1080",
        auth="plain",
        timeout=2.5,
        password_command="pass 'show' \"mail\"",
        keyring=True,
        oauth="microsoft",
        oauth_client_id="id",
        oauth_scope="a b",
    )
    entries = [
        NamedAccount("work", ALICE, settings),
        NamedAccount("home.2", parse_account("pop3://bob%40b@[::1]:1110")),
    ]
    for entry in entries:
        book.add(entry)
    assert book.read_book() == {entry.name: entry for entry in entries}
    assert (home / "accounts.toml").stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in home.iterdir()] == ["accounts.toml"]
    assert tomllib.loads((home / "accounts.toml").read_text())["work"]["pin"] == ["ab" * 32, "cd" * 32]


EDITED = """\
# My accounts, the important one first.

# at the office
["work"]  # not on Sundays
url = "pop3s://alice@mail.example.org"  # since 2024
# the old one ends in May
pin = [
  "{pin}",  # of the new key
]

# for the family
[home]
url   =   'pop3s://bob@home.example.org'

# nothing below here
"""


def test_comments_and_order_of_the_user_survive(home: Path) -> None:
    text = EDITED.replace("{pin}", "ab" * 32)
    home.mkdir(parents=True)
    (home / "accounts.toml").write_text(text)
    book.add(NamedAccount("a.first", ALICE, Settings(timeout=3)))
    added = (home / "accounts.toml").read_text()
    assert added == f'{text}\n["a.first"]\nurl = "{ALICE.url}"\ntimeout = 3\n'
    book.remove("a.first")
    assert (home / "accounts.toml").read_text().rstrip() == text.rstrip()
    book.remove("work")
    left = (home / "accounts.toml").read_text()
    assert left.rstrip() == (
        "# My accounts, the important one first.\n\n# at the office\n\n"
        "# for the family\n[home]\nurl   =   'pop3s://bob@home.example.org'\n\n# nothing below here"
    )
    assert list(book.read_book()) == ["home"]
    book.remove("home")
    assert book.read_book() == {}
    assert "# for the family" in (home / "accounts.toml").read_text()


@pytest.mark.parametrize(
    "text",
    [
        "a.url = 'pop3s://a@b'\nc.url = 'pop3s://c@d'\na.timeout = 3\n# end",
        "a = {url = 'pop3s://a@b'}\nc = {url = 'pop3s://c@d'}",
        "[a]\r\nurl = 'pop3s://a@b'\r\n[c]\r\nurl = 'pop3s://c@d'\r\n",
        "\n\n[ 'a' ]\nurl = 'pop3s://a@b'\n[c]\nurl = 'pop3s://c@d'",
    ],
)
def test_a_table_in_any_form_can_be_removed(home: Path, text: str) -> None:
    home.mkdir(parents=True)
    (home / "accounts.toml").write_bytes(text.encode())
    kept = book.read_book()["c"]
    assert book.remove("a").name == "a"
    assert book.read_book() == {"c": kept}
    book.add(NamedAccount("a", ALICE))
    assert book.read_book() == {"a": NamedAccount("a", ALICE), "c": kept}


def test_the_url_in_full_means_the_same() -> None:
    for url in ("pop3s://a@h", "pop3://a%40b%2F@h:1", "pop3s://a@[::1]:9", "pop3s://j%C3%B6rg@h"):
        account = parse_account(url)
        assert parse_account(account.url) == account


def test_of_two_changes_at_once_none_is_lost() -> None:
    threads = [threading.Thread(target=book.add, args=(NamedAccount(f"a{n}", ALICE),)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(book.read_book()) == 12


@pytest.mark.parametrize("name", ["", ".a", "-a", "a b", "a/b", "ä", "a" * 65, 'a"', "pop3s://x"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(UsageFault, match="not a name"):
        book.add(NamedAccount(name, ALICE))
    assert not book.book_path().exists()


def test_a_name_is_taken_once() -> None:
    book.add(NamedAccount("work", ALICE))
    with pytest.raises(UsageFault, match="there is one of that name; pop3cli account remove work"):
        book.add(NamedAccount("work", ALICE))
    with pytest.raises(UsageFault, match=r"no account of that name \(there are: work\); add it"):
        book.find("wrok", Settings())


def test_what_is_said_for_a_run_goes_before_what_is_written() -> None:
    book.add(NamedAccount("work", ALICE, Settings(timeout=9, auth="plain", pins=("ab" * 32,))))
    account, settings = book.find("work", Settings(timeout=1, insecure=False))
    assert (account, settings) == (ALICE, Settings(timeout=1, auth="plain", pins=("ab" * 32,), title="work"))


def test_pins_and_certificates_are_for_their_own_account() -> None:
    book.add(NamedAccount("pinned", ALICE, Settings(pins=("ab" * 32,), client_cert=Path("/c.pem"))))
    book.add(NamedAccount("other", ALICE))
    assert book.find("other", Settings())[1] == Settings(title="other")
    assert book.find(ALICE.url, Settings())[1] == Settings()
    book.remove("pinned")
    book.add(NamedAccount("pinned", ALICE))
    assert book.find("pinned", Settings())[1].pins == ()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[work]\nurl = 'pop3s://a@b'\ncacrt = 'x'", "account work: unknown key 'cacrt'; did you mean 'cacert'"),
        ("[work]\nurl = 'pop3s://a@b'\npassword = 'x'", "unknown key 'password'"),
        ("[work]\n", "account work: no url; url = "),
        ("[work]\nurl = 'pop3s://a:b@c'", "a password in the account's URL"),
        ("[work]\nurl = 'pop3s://a@b'\ntimeout = true", "timeout: seconds are wanted"),
        ("[work]\nurl = 'pop3s://a@b'\nkeyring = 1", "keyring: true or false is wanted"),
        ("[work]\nurl = 'pop3s://a@b'\npin = [1]", "pin: a text is wanted"),
        ("work = 1", "account work: not a table"),
        ("['a b']\nurl = 'pop3s://a@b'", "not a table with the name of an account"),
        ("[work", "not TOML"),
        ("a = " + "[" * 5000, "not TOML"),
        ("#" * 1024 * 1025, "larger than"),
    ],
)
def test_faults_of_the_book(home: Path, text: str, fault: str) -> None:
    home.mkdir(parents=True)
    (home / "accounts.toml").write_text(text)
    with pytest.raises(SettingFault, match=fault) as caught:
        book.find("work", Settings())
    assert caught.value.status == 78
    assert "\n" not in str(caught.value)
    assert book.find("pop3s://a@b", Settings())[0] == parse_account("pop3s://a@b")  # a URL needs no book


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_book_that_others_may_write_is_not_believed(home: Path, mode: int) -> None:
    book.add(NamedAccount("work", ALICE))
    (home / "accounts.toml").chmod(mode)
    with pytest.raises(SettingFault, match="others may write it; chown it to yourself, and chmod 600"):
        book.read_book()


def test_paths_are_relative_to_the_book(home: Path) -> None:
    home.mkdir(parents=True)
    (home / "accounts.toml").write_text("[work]\nurl = 'pop3s://a@b'\ncacert = 'ca.pem'\nclient_cert = '~/c.pem'")
    settings = book.read_book()["work"].settings
    assert settings.cacert == home / "ca.pem"
    assert settings.client_cert == Path("~/c.pem").expanduser()


# --- the command line ---


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


def test_paths_are_kept_as_they_were_meant(
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
def test_what_cannot_be_added(pop3cli: Cli, home: Path, arguments: list[str], status: int, text: str) -> None:
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


# --- the keyring ---


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[tuple[str, str], str]]:
    """A keyring of our own; what is in it."""
    keyring = pytest.importorskip("keyring", reason="pip install 'pop3core[keyring]'")
    from keyring.backend import KeyringBackend

    secrets: dict[tuple[str, str], str] = {}

    class Memory(KeyringBackend):
        priority = 1  # type: ignore[assignment]

        def get_password(self, service: str, username: str) -> str | None:
            return secrets.get((service, username))

        def set_password(self, service: str, username: str, password: str) -> None:
            secrets[service, username] = password

        def delete_password(self, service: str, username: str) -> None:
            del secrets[service, username]

    before = keyring.get_keyring()
    keyring.set_keyring(Memory())
    yield secrets
    keyring.set_keyring(before)


def test_a_password_in_the_keyring(
    pop3cli: Cli, server: Server, kept: dict[tuple[str, str], str], monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    for name in ("work", "again"):
        ran = pop3cli("account", "add", name, server.account(), "--cacert", server.certificate, "--keyring")
        assert (ran.status, ran.err) == (0, "")
    assert kept == {("pop3cli", server.account()): PASSWORD}
    assert PASSWORD not in (home / "accounts.toml").read_text()
    monkeypatch.delenv("POP3CLI_PASSWORD")
    assert pop3cli("stat", "work").status == 0
    assert pop3cli("stat", server.account(), "--cacert", server.certificate).status == 0  # it is the URL's
    pop3cli("account", "remove", "again")
    assert kept
    pop3cli("account", "remove", "work")
    assert kept == {}


def test_what_is_said_goes_before_the_keyring(
    kept: dict[tuple[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept["pop3cli", ALICE.url] = "kept ö"
    monkeypatch.setenv("POP3CLI_PASSWORD", "said")
    assert find_password(ALICE, "echo run") == b"run"
    assert find_password(ALICE, None) == b"said"
    monkeypatch.delenv("POP3CLI_PASSWORD")
    assert find_password(ALICE, None) == "kept ö".encode()
    # another server of the same name is not told
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(UsageFault, match="no password for"):
        find_password(Account("mail.example.org", 996, "alice"), None)


def test_a_machine_without_a_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = pytest.importorskip("keyring", reason="pip install 'pop3core[keyring]'")
    from keyring.backends.fail import Keyring

    before = keyring.get_keyring()
    keyring.set_keyring(Keyring())
    try:
        monkeypatch.delenv("POP3CLI_PASSWORD", raising=False)
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        with pytest.raises(UsageFault, match="no password for"):
            find_password(ALICE, None)
        with pytest.raises(SettingFault, match="the keyring: No recommended backend"):
            find_password(ALICE, None, keyring=True)
    finally:
        keyring.set_keyring(before)


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
    assert f"pip install 'pop3core[{extra}]'" in ran.err
    assert book.read_book() == {}


# --- somebody else's folders ---


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to have files of another user")
def test_root_believes_and_writes_no_accounts_of_another_user(home: Path, pop3cli: Cli) -> None:
    """As when HOME or XDG_CONFIG_HOME came through sudo."""
    home.mkdir(parents=True)
    (home / "accounts.toml").write_text('[work]\nurl = "pop3s://a@b.invalid"\npassword_command = "touch run"\n')
    for path in (home, home / "accounts.toml"):
        os.chown(path, 65534, 65534)
    ran = pop3cli("stat", "work")
    assert ran.status == 78
    assert "others may write it" in ran.err
    (home / "accounts.toml").unlink()
    (home / "accounts.toml").symlink_to(home.parent / "trophy")
    with pytest.raises(SettingFault, match="belongs to user 65534, and root keeps nothing there"):
        book.add(NamedAccount("work", ALICE))
    assert not (home.parent / "trophy").exists()
