"""The command line: what it prints, and what it exits with."""

import subprocess
import sys
from pathlib import Path

import pytest

from pop3d import cli
from pop3d.auth.users_file import read_lines


def test_user_add(run_pop3d, tmp_path: Path) -> None:
    users = tmp_path / "users"
    added = run_pop3d("user", "add", "alice", "--users", str(users), "--password-stdin", stdin="se:cret\n")
    assert added.returncode == 0
    assert added.stderr == ""
    assert [line.name for line in read_lines(users)] == ["alice"]
    again = run_pop3d("user", "add", "alice", "--users", str(users), "--password-stdin", stdin="x\n")
    assert again.returncode == 65
    assert (
        again.stderr
        == f"pop3d: not added: {users} has a user 'alice' already; `pop3d user passwd` changes a password\n"
    )


@pytest.mark.parametrize(
    ("arguments", "stdin", "status", "words"),
    [
        (("user", "add", "a/b", "--users", "users", "--password-stdin"), "x", 65, "a user name has no"),
        (("user", "add", "bob", "--users", "users", "--password-stdin"), "", 65, "the password is empty"),
        (("user", "add", "bob", "--users", "users"), "x", 2, "--password-stdin"),
        (("user", "add", "bob", "--users", "users", "--scheme", "md5", "--password-stdin"), "x", 2, "argon2id"),
        (("user", "add", "bob", "--users", "no/where", "--password-stdin"), "x", 74, "No such file"),
        (("user", "add", "bob", "--password-stdin"), "x", 78, "no configuration"),
        (("serve",), "", 78, "no configuration: looked for pop3d.toml and /etc/pop3d/pop3d.toml"),
        (("serve", "--config", "nowhere.toml"), "", 78, "nowhere.toml: No such file"),
        (("cert", "create", "--host", "two words"), "", 2, "neither a host name nor an IP address"),
    ],
)
def test_an_error_is_one_line(run_pop3d, tmp_path: Path, arguments, stdin: str, status: int, words: str) -> None:
    result = run_pop3d(*arguments, stdin=stdin, cwd=tmp_path)
    assert result.returncode == status
    assert words in result.stderr
    assert result.stderr.startswith("pop3d: ")
    assert result.stderr.count("\n") == 1


def test_usage_is_2(run_pop3d) -> None:
    for arguments in (("nonsense",), ("serve", "--nonsense"), ("cert", "create")):
        result = run_pop3d(*arguments)
        assert result.returncode == 2
        assert "Traceback" not in result.stderr


def test_version_is_printed(run_pop3d) -> None:
    result = run_pop3d("--version")
    assert (result.returncode, result.stdout.split()[0]) == (0, "pop3d")


def test_faults_of_a_configuration_are_listed_with_78(run_pop3d, tmp_path: Path) -> None:
    (tmp_path / "pop3d.toml").write_text("hostnam = 'x'\n[limits]\nconections = 1\n")
    result = run_pop3d("serve", cwd=tmp_path)
    assert result.returncode == 78
    assert len(result.stderr.splitlines()) == 3
    assert "did you mean `hostname`?" in result.stderr


def test_cert_create(run_pop3d, tmp_path: Path) -> None:
    made = run_pop3d("cert", "create", "--host", "10.0.0.1", "--host", "localhost", cwd=tmp_path)
    assert (made.returncode, made.stderr) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cert.pem", "key.pem"]
    again = run_pop3d("cert", "create", "--host", "localhost", cwd=tmp_path)
    assert again.returncode == 74
    assert "cert.pem is there already" in again.stderr


def test_demo_once_shows_a_session_and_leaves_nothing(run_pop3d, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    result = run_pop3d("demo", "--once", "--port", "0")
    assert result.returncode == 0, result.stderr
    assert "Welcome to POP3 done right" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_ours_is_one_line_and_70(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**_options: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 70
    assert capsys.readouterr().err.count("\n") == 1
    monkeypatch.setenv("POP3D_DEBUG", "1")
    with pytest.raises(SystemExit):
        cli.main()
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupted)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 130


def test_the_program_is_a_module_too() -> None:
    result = subprocess.run([sys.executable, "-m", "pop3d", "--help"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0
    for command in ("serve", "demo", "user", "cert"):
        assert command in result.stdout
