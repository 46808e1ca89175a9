"""`pop3d import --all` as a process."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pop3d.commands.import_all import OtherUser, other_users
from pop3d.errors import CommandError
from tests.maildirs import files, make_maildir


@pytest.fixture
def site(tmp_path: Path) -> Path:
    user = 'user = "root"\n' if os.geteuid() == 0 else ""
    (tmp_path / "pop3d.toml").write_text(
        f'{user}state = "state"\n[[listen]]\nhost = "127.0.0.1"\nport = 0\n'
        'tls = "none"\n[store]\npath = "mail/{user}"\n'
    )
    (tmp_path / "users").write_text("alice@example.org:{PLAIN}x\nbob@example.org:{PLAIN}x\neve:{PLAIN}x\n")
    for name in ("alice", "bob"):
        make_maildir(tmp_path / "old" / "example.org" / name, {f"new/160000000{name[0]}.x.y": name.encode()})
    return tmp_path


def run(site: Path, *arguments: str | Path, **environment: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "pop3d", "import", *arguments, "--config", site / "pop3d.toml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment})
    return done.returncode, done.stdout, done.stderr


def test_one_who_fails_stops_nobody_else(site: Path) -> None:
    people = site / "people"
    people.write_bytes(
        b"\xef\xbb\xbf# comment\r\nalice@example.org:{CRYPT}x\r\n\r\n carol@example.org\nbob@example.org:*\n../x:y\n"
        b"eve:x\nalice@example.org:again\n"
    )
    (site / "old" / "example.org" / "bob" / "new" / "1600000001.z").symlink_to("/etc/passwd")
    template = str(site / "old" / "{domain}" / "{local}")
    code, said, errors = run(site, "--all", people, template)
    assert code == 1
    assert said.splitlines() == [
        "alice@example.org: imported 1 message",
        "bob@example.org: imported 1 message, 1 was not",
        "imported 2 messages for 1 of 5 users; 4 failed: carol@example.org, bob@example.org, ../x, eve",
    ]
    lists = "there is no dovecot-uidlist, and no courierpop3dsizelist, so unique-ids are those of file names; "
    told = errors.splitlines()
    assert sum(lists in line for line in told) == 2
    assert [line for line in told if lists not in line] == [
        "pop3d: carol@example.org: no such user: 'carol@example.org'; `pop3d user add carol@example.org` makes one",
        f"pop3d: bob@example.org: not imported: {site}/old/example.org/bob/new/1600000001.z: not a regular file",
        'pop3d: ../x: a user name has no "/" and no ":"',
        "pop3d: eve: there is no domain for {domain}",
    ]
    assert len(files(site / "mail" / "alice@example.org")) == 1
    code, said, _ = run(site, "--all", people, template)
    assert said.splitlines()[0].startswith("alice@example.org: imported 0 messages, 1 was imported before")


def test_homes_come_from_the_passwd_file(site: Path) -> None:
    people = site / "people"
    people.write_text(f"alice@example.org:x:1:1::{site}/old/example.org/alice\n")
    (site / "control" / "alice@example.org").mkdir(parents=True)
    (site / "control" / "alice@example.org" / "dovecot-uidlist").write_text("3 V7 N2\n1 :160000000a.x.y\n")
    code, said, errors = run(site, "--all", people, "{home}", "--control", str(site / "control" / "{user}"))
    assert (code, said) == (0, "alice@example.org: imported 1 message\nimported 1 message for 1 of 1 user\n")
    assert errors.endswith("unique-ids are those of its dovecot-uidlist\n")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--all", "people", "old/everybody"], 2, "is the same for all users; use {user}"),
        (["--all", "people", "old/{nobody}"], 2, "{nobody} is none of {user}, {local}, {domain} and {home}"),
        (["--all", "people", "old/{user"], 2, "the template 'old/{user': "),
        (["--all", "people", "old/{user}", "--control", "x"], 2, "the template 'x' is the same for all users"),
        (["--all", "missing", "old/{user}"], 65, "missing: No such file or directory; name a passwd-file"),
        (["--all", "empty", "old/{user}"], 65, "there are no users in it"),
        (["--all", "people", "alice", "old/{user}"], 2, "with --all there is one word"),
        (["alice"], 2, "give the user and the source"),
        (["alice", "old", "--passwords", "people"], 2, "is for --all"),
        (["alice", "old", "--uidl", "nonsense"], 2, "'nonsense' is none of \"filename\""),
        (
            ["--all", "people", "pop3s://{user}@localhost:1", "--passwords", "people"],
            78,
            "others may read it; chmod",
        ),
        (
            ["--all", "people", "pop3s://{user}@localhost:1"],
            2,
            "no password for pop3s://{user}@localhost:1: ",
        ),
    ],
)
def test_what_cannot_be_meant(site: Path, arguments: list[str], code: int, words: str) -> None:
    (site / "people").write_text("alice:x\n")
    (site / "people").chmod(0o644)
    (site / "empty").write_text("# nobody\n")
    paths = [str(site / word) if word in ("people", "missing", "empty") else word for word in arguments]
    found, said, errors = run(site, *paths)
    assert (found, said) == (code, "")
    assert words in re.sub(r"[\s│]+", " ", errors)


def test_each_user_has_a_password_of_a_file(site: Path) -> None:
    (site / "people").write_text("alice@example.org:x\nbob@example.org:x\n")
    (site / "secrets").write_text("alice@example.org:a:b\n")
    (site / "secrets").chmod(0o600)
    url = "pop3s://{user}@localhost:1"
    code, _, errors = run(site, "--all", site / "people", url, "--passwords", site / "secrets")
    assert code == 1
    assert errors.splitlines() == [
        "pop3d: alice@example.org: localhost port 1: Connection refused; is the server running, and is it the right "
        "host and port?",
        f"pop3d: bob@example.org: {site}/secrets has no password for this user",
    ]


def test_a_template_is_filled() -> None:
    user = OtherUser("al ice@example.org", "/home/a")
    assert user.fill("{home}/{user}/{local}/{domain}") == "/home/a/al ice@example.org/al ice/example.org"
    assert user.fill("pop3s://{user}*master@host", quoted=True) == "pop3s://al%20ice%40example.org*master@host"
    with pytest.raises(ValueError, match="no home"):
        OtherUser("alice").fill("{home}")


def test_users_of_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="Is a directory"):
        other_users(tmp_path)


def test_a_line_of_a_passwd_file_ends_at_a_line_feed_alone(tmp_path: Path) -> None:
    path = tmp_path / "passwd"
    gecos = "Mallory\u2028bob\x85carol\x0b\x0c\x1cdora"
    path.write_text(f"\ufeffmallory:x:1:1:{gecos}:/home/mallory:/bin/sh\r\n#bob:x\n  bob:x:2:2::/home/bob:/bin/sh\n")
    assert other_users(path) == [OtherUser("mallory", "/home/mallory"), OtherUser("bob", "/home/bob")]
