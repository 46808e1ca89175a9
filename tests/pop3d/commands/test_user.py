"""`pop3d user ...` as a process: what it prints, what it leaves in the file, what it exits with."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from pop3d.auth.users_file import Line, read_lines
from tests.site import Site

HASH = "c2VjcmV0LWluLWNsZWFy"


@pytest.fixture
def user(run_pop3d, tmp_path: Path):
    """`pop3d user ...` on the file "users" in an empty folder."""
    return lambda *words, **more: run_pop3d("user", *words, "--users", "users", cwd=tmp_path, **more)


def test_passwd_and_remove(user, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("# kept\nalice:{PLAIN}a:1:2\nbob:{PLAIN}b\n")
    changed = user("passwd", "alice", "--password-stdin", "--scheme", "plain", stdin="n ü\n")
    assert (changed.returncode, changed.stderr) == (0, "")
    assert changed.stdout == "changed the password of alice in users; a daemon that runs takes notice at SIGHUP\n"
    assert users.read_text() == "# kept\nalice:{PLAIN}n ü:1:2\nbob:{PLAIN}b\n"
    removed = user("remove", "alice")
    assert (removed.returncode, removed.stderr) == (0, "")
    assert users.read_text() == "# kept\nbob:{PLAIN}b\n"


def test_the_last_user_removed(user, tmp_path: Path) -> None:
    (tmp_path / "users").write_text("# none but\nalice:{PLAIN}a\n")
    removed = user("remove", "alice")
    assert removed.returncode == 0
    assert removed.stderr == (
        "pop3d: users has no users now; a daemon that runs keeps its old users at SIGHUP: stop it\n"
    )


def test_faulty_lines_are_in_nobodys_way(user, tmp_path: Path) -> None:
    faulty = b"bob:{NOPE}x\n\xff:{PLAIN}x\nno colon\ncarol:*::::/home/carol\nbob:{PLAIN}y\n"
    (tmp_path / "users").write_bytes(b"alice:{PLAIN}a\n" + faulty)
    assert user("add", "dora", "--password-stdin", "--scheme", "plain", stdin="d\n").returncode == 0
    assert user("passwd", "alice", "--password-stdin", "--scheme", "plain", stdin="n\n").returncode == 0
    assert (tmp_path / "users").read_bytes() == b"alice:{PLAIN}n\n" + faulty + b"dora:{PLAIN}d\n"
    listed = user("list")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout.splitlines()[0] == "alice\tPLAIN"
    assert listed.stdout.splitlines()[4:] == ["carol\tlocked", "bob\t?", "dora\tPLAIN"]
    assert user("remove", "alice").returncode == 0
    assert user("passwd", "carol", "--password-stdin", "--scheme", "plain", stdin="c\n").returncode == 0
    assert (tmp_path / "users").read_bytes() == faulty.replace(b"*", b"{PLAIN}c") + b"dora:{PLAIN}d\n"


@pytest.mark.parametrize("words", [("list",), ("remove", "alice"), ("add", "bob", "--password-stdin")])
def test_users_that_are_in_no_file(run_pop3d, tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "pop3d.toml").write_text('[[listen]]\nhost = "127.0.0.1"\ntls = "none"\n[auth]\nbackend = "pam"\n')
    (tmp_path / "users").write_text("alice:{PLAIN}a\n")
    result = run_pop3d("user", *words, cwd=tmp_path, stdin="x\n")
    assert (result.returncode, result.stdout) == (78, "")
    assert result.stderr.startswith('pop3d: with backend = "pam" users are in no file')
    assert (tmp_path / "users").read_text() == "alice:{PLAIN}a\n"
    result = run_pop3d("user", *words, "--users", "users", cwd=tmp_path, stdin="x\n")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("words", "stdin", "status", "text"),
    [
        (
            ("passwd", "nobody", "--password-stdin"),
            "x",
            67,
            "not changed: users has no user 'nobody'; `pop3d user list`",
        ),
        (("passwd", "nobody"), "", 67, "no user 'nobody'"),
        (("remove", "nobody"), "", 67, "not removed: users has no user 'nobody'"),
        (("passwd", "alice"), "", 2, "--password-stdin"),
        (("passwd", "alice", "--password-stdin"), "", 65, "the password is empty"),
        (("passwd", "alice", "--password-stdin"), "x" * 1025, 65, "more than 1024 octets"),
        (("passwd", "alice", "--password-stdin", "--scheme", "plain"), "a:b", 65, 'no ":"'),
        (("passwd", "alice", "--password-stdin", "--scheme", "md5"), "x", 2, "use argon2id"),
    ],
)
def test_an_error_is_one_line_and_changes_nothing(user, tmp_path: Path, words, stdin, status: int, text: str) -> None:
    (tmp_path / "users").write_text("alice:{PLAIN}a\n")
    result = user(*words, stdin=stdin)
    assert (result.returncode, result.stderr.count("\n"), result.stdout) == (status, 1, "")
    assert result.stderr.startswith("pop3d: ")
    assert text in result.stderr
    assert (tmp_path / "users").read_text() == "alice:{PLAIN}a\n"
    assert os.listdir(tmp_path) == ["users"]


def test_a_password_that_is_not_utf_8_is_not_shown(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "pop3d", "user", "add", "bob", "--users", "users", "--password-stdin"]
    for locale in ("C", "C.UTF-8"):
        result = subprocess.run(
            arguments, input=b"s\xe4fe\n", capture_output=True, cwd=tmp_path, env={**os.environ, "LC_ALL": locale}
        )
        assert (result.returncode, result.stderr) == (65, b"pop3d: not added: the password is not UTF-8\n")
    assert os.listdir(tmp_path) == []


def test_no_file_and_a_folder_that_cannot_be_written(user, run_pop3d, tmp_path: Path) -> None:
    for words in (("passwd", "alice"), ("remove", "alice"), ("list",)):
        result = user(*words)
        assert (result.returncode, result.stderr.count("\n")) == (78, 1)
        assert "No such file" in result.stderr
    result = run_pop3d("user", "remove", "alice", "--users", "no/where", cwd=tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (74, 1)


def test_list_shows_no_secret(user, tmp_path: Path) -> None:
    (tmp_path / "users").write_text(
        f"alice:{{PLAIN}}{HASH}:1:2::/home/alice\nbob:{{NOPE}}{HASH}\n{HASH}\nca\x1brol:{{PLAIN}}x\n"
        "dora:{SCRAM-SHA-256}4096,c2E=,c2E=,c2E=\n"
    )
    listed = user("list")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout == "alice\tPLAIN\nbob\t?\n?\t?\nca\\x1brol\t?\ndora\tSCRAM-SHA-256\n"


def on_a_terminal(folder: Path, *words: str, typed: tuple[str, ...] = ()) -> tuple[int, str]:
    """The exit code, and all that was to be seen."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pop3d", "user", *words, "--users", "users"],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, start_new_session=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
    )  # fmt: skip
    os.close(theirs)
    seen, answers = b"", list(typed)
    while True:
        try:
            octets = os.read(ours, 4096)
        except OSError:  # EIO: nobody has the terminal open any more
            break
        if not octets:
            break
        seen += octets
        if answers and seen.endswith(b": "):
            os.write(ours, answers.pop(0).encode() + b"\n")
    os.close(ours)
    return process.wait(20), seen.decode()


def test_a_terminal_is_asked_twice_and_shows_nothing(tmp_path: Path) -> None:
    status, seen = on_a_terminal(tmp_path, "add", "bob", "--scheme", "plain", typed=("se cret", "se cret"))
    assert (status, (tmp_path / "users").read_text()) == (0, "bob:{PLAIN}se cret\n")
    assert "Password for bob:" in seen
    assert "Once more:" in seen
    assert "cret" not in seen
    status, seen = on_a_terminal(tmp_path, "passwd", "bob", typed=("one", "other"))
    assert status == 65
    assert "the two passwords differ" in seen
    assert (tmp_path / "users").read_text() == "bob:{PLAIN}se cret\n"


def test_list_on_a_terminal_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "users").write_text(f"alice:{{PLAIN}}{HASH}:1:2::/home/alice\n[red]bob:{{NOPE}}{HASH}\n")
    status, seen = on_a_terminal(tmp_path, "list")
    assert status == 0
    assert [line.split()[:2] for line in seen.splitlines()[1:]] == [["alice", "PLAIN"], ["[red]bob", "?"]]
    assert "uid, gid, home" in seen
    assert "line 2: an unknown scheme" in seen
    assert HASH not in seen


def test_passwords_that_scram_and_apop_cannot_use(site: Site, run_pop3d) -> None:
    """Nothing is stored with which a login fails later, but where it is asked for, and then it is told."""
    site.config.write_text(
        site.config.read_text().replace("[auth]", '[auth]\nmechanisms = ["plain", "scram-sha-256", "apop"]')
    )
    more = ("--config", str(site.config), "--password-stdin")
    before = (site.root / "users").read_text()
    for words in (("add", "bob"), ("passwd", "alice")):
        for password in ("se\ufffdcret", "\u0627a\u0627", "\u00ad"):
            refused = run_pop3d("user", *words, *more, stdin=f"{password}\n")
            assert (refused.returncode, refused.stdout) == (65, "")
            assert refused.stderr.startswith("pop3d: not ")
            assert refused.stderr.endswith("; take another password, or --scheme argon2id, which serves PLAIN alone\n")
            assert refused.stderr.count("\n") == 1
            assert password not in refused.stderr
    assert (site.root / "users").read_text() == before
    added = run_pop3d("user", "add", "bob", *more, "--scheme", "plain", stdin="se\ufffdcret\n")
    assert added.returncode == 0
    assert added.stderr == "pop3d: SCRAM-SHA-256, APOP will not work for this user: SASLprep refuses the password\n"
    assert run_pop3d("user", "add", "carol", *more, "--scheme", "argon2id", stdin="se\acret\n").returncode == 0


def scheme_of(line: Line) -> str:
    assert line.user is not None
    assert line.user.secret is not None
    return line.user.secret.scheme


def test_a_site_with_scram_keeps_verifiers(site: Site, run_pop3d) -> None:
    configuration = site.config.read_text()
    site.config.write_text(configuration.replace("[auth]", '[auth]\nmechanisms = ["plain", "scram-sha-256", "apop"]'))
    more = ("--config", str(site.config), "--password-stdin")
    added = run_pop3d("user", "add", "bob", *more, stdin="x\n")
    assert added.returncode == 0
    assert added.stderr == "pop3d: APOP will not work for this user: that takes `--scheme plain`\n"
    assert run_pop3d("user", "passwd", "alice", *more, stdin="x\n").returncode == 0
    assert run_pop3d("user", "add", "carol", *more, "--scheme", "argon2id", stdin="x\n").returncode == 0
    assert run_pop3d("user", "add", "dora", *more, "--scheme", "plain", stdin="x\n").stderr == ""
    schemes = {line.name: scheme_of(line) for line in read_lines(site.root / "users")}
    assert schemes == {"alice": "SCRAM-SHA-256", "bob": "SCRAM-SHA-256", "carol": "ARGON2ID", "dora": "PLAIN"}
    site.config.write_text(configuration)
    assert run_pop3d("user", "passwd", "alice", *more, stdin="x\n").returncode == 0
    assert scheme_of(read_lines(site.root / "users")[0]) == "ARGON2ID"


def test_a_user_by_another_spelling(run_pop3d, site: Site) -> None:
    text = site.config.read_text().replace("[auth]", '[auth]\ndefault_domain = "Example.org"')
    site.config.write_text(text)
    users = site.root / "users"
    users.write_text("Bob@Example.ORG:{PLAIN}b\nbob@example.net:{PLAIN}n\n")

    def user(*words: str) -> tuple[int, str]:
        done = run_pop3d("user", *words, "--config", str(site.config), stdin="n\n")
        return done.returncode, done.stdout + done.stderr

    code, said = user("add", "bob", "--password-stdin", "--scheme", "plain")
    assert (code, said.split(";")[0]) == (0, f"added bob@example.org to {users}")  # 'Bob' is another, by this rule
    assert user("add", "Bob@example.ORG", "--password-stdin")[1].count("has a user 'Bob@Example.ORG' already") == 1
    code, said = user("passwd", "Bob", "--password-stdin", "--scheme", "plain")
    assert (code, said.split(";")[0]) == (0, f"changed the password of Bob@Example.ORG in {users}")
    assert users.read_text() == "Bob@Example.ORG:{PLAIN}n\nbob@example.net:{PLAIN}n\nbob@example.org:{PLAIN}n\n"
    code, said = user("remove", "BOB")
    assert code == 78
    assert "has 'Bob@Example.ORG' and 'bob@example.org'; name one of them to the letter" in said
    assert user("remove", "bob@example.org")[0] == 0
    assert user("remove", "BOB")[1].startswith("removed Bob@Example.ORG from")
    assert users.read_text() == "bob@example.net:{PLAIN}n\n"
    assert user("remove", "BOB")[0] == 67
