"""Named accounts: the file, who may write it, and what an option changes."""

from __future__ import annotations

import os
import threading
import tomllib
from pathlib import Path

import pytest

from pop3cli.accounts import registry as book
from pop3cli.accounts.registry import NamedAccount
from pop3cli.accounts.url import Settings, parse_account
from pop3cli.errors import SettingFault, UsageFault
from tests.pop3cli.conftest import Cli

pytestmark = pytest.mark.usefixtures("home")


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
