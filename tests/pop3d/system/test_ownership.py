"""Whose files root obeys: configurations, what they name, plug-ins, and the folder one happens to be in."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pop3d.auth.users_file import add_user
from pop3d.commands.configured import configured
from pop3d.config import ConfigError
from pop3d.net.certificates import create_self_signed
from pop3d.system.ownership import Owners, callers, distrusted
from pop3d.system.state_folder import prepare
from tests.site import Daemon, Site

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to have files of several users")

STRANGER, USER = 65533, 65534
ROOT = Owners(frozenset({0}))
ROOT_AND_USER = ROOT.and_(USER, USER)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of root's in ``/tmp`` that everybody may enter."""
    path = Path(tempfile.mkdtemp(prefix="pop3d-ownership-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def site(folder: Path, site: Site) -> Site:
    """As an administrator has it, where other users can come: the mail belongs to `user`, all else to root."""
    for file in (site.config, site.root / "users", site.certificate, site.root / "key.pem"):
        shutil.copy2(file, folder)
    text = site.config.read_text().replace('user = "root"', f'user = "#{USER}"\ngroup = "#{USER}"')
    (folder / "pop3d.toml").write_text(text)
    (folder / "mail").mkdir()
    os.chown(folder / "mail", USER, USER)
    return Site(folder, site.port)


def as_somebody(uid: int, do: Callable[[], None]) -> None:
    """Call ``do`` in a process of that user's, which may not raise."""
    if (child := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            do()
            os._exit(0)
        except BaseException as fault:
            print(repr(fault), file=sys.stderr, flush=True)
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- one file ---


def test_what_root_alone_can_write_is_trusted(folder: Path) -> None:
    file = folder / "a" / "file"
    file.parent.mkdir()
    file.write_text("")
    file.chmod(0o640)
    os.chown(file, 0, USER)
    assert distrusted(file, ROOT) is None
    assert distrusted(folder / "a" / "missing", ROOT) is None
    assert distrusted(folder / "missing" / "file", ROOT) is None


def test_links_of_root_are_followed_as_certbot_makes_them(folder: Path) -> None:
    (folder / "archive").mkdir()
    (folder / "archive" / "cert1.pem").write_text("")
    (folder / "live").mkdir()
    (folder / "live" / "cert.pem").symlink_to("../archive/cert1.pem")
    assert distrusted(folder / "live" / "cert.pem", ROOT) is None
    os.chown(folder / "archive" / "cert1.pem", STRANGER, STRANGER)
    why = distrusted(folder / "live" / "cert.pem", ROOT)
    assert why is not None
    assert f"{folder}/archive/cert1.pem belongs to user {STRANGER}" in why
    (folder / "loop").symlink_to("loop")
    assert distrusted(folder / "loop", ROOT) is None  # opening it says what is wrong


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda file: os.chown(file, STRANGER, 0), f"it belongs to user {STRANGER}, whom root does not obey"),
        (lambda file: os.chown(file.parent, STRANGER, 0), f"belongs to user {STRANGER}"),
        (lambda file: os.chown(file.parent.parent, STRANGER, 0), f"belongs to user {STRANGER}"),
        (lambda file: file.chmod(0o646), "everybody can write to it (mode 0646); chmod o-w"),
        (lambda file: file.chmod(0o664), "group root can write to it (mode 0664); chmod g-w"),
        (lambda file: file.parent.chmod(0o757), "everybody can write to /"),
        (lambda file: file.parent.chmod(0o775), "group root can write to /"),
        (lambda file: file.parent.parent.chmod(0o777), "everybody can write to /"),
    ],
)
def test_what_somebody_else_could_write_or_replace(folder: Path, spoil: Callable[[Path], None], words: str) -> None:
    file = folder / "a" / "file"
    file.parent.mkdir()
    file.write_text("")
    spoil(file)
    why = distrusted(file, ROOT)
    assert why is not None
    assert why.startswith(f"{file}: ")
    assert words in why
    assert "\n" not in why


def test_a_link_of_a_stranger_is_not_obeyed_wherever_it_leads(folder: Path) -> None:
    (folder / "file").write_text("")
    (folder / "link").symlink_to("file")
    os.chown(folder / "link", STRANGER, STRANGER, follow_symlinks=False)
    why = distrusted(folder / "link", ROOT)
    assert why is not None
    assert "chown -h root" in why


def test_a_folder_with_the_sticky_bit_keeps_what_is_in_it_and_not_what_is_not(folder: Path) -> None:
    folder.chmod(0o1777)
    (folder / "file").write_text("")
    assert distrusted(folder / "file", ROOT) is None
    why = distrusted(folder / "missing", ROOT)
    assert why is not None
    assert "others could make it" in why


def test_the_configured_user_and_his_group_are_trusted_with_what_is_theirs(folder: Path) -> None:
    file = folder / "a" / "file"
    file.parent.mkdir()
    file.write_text("")
    for path in (file.parent, file):
        os.chown(path, USER, USER)
        path.chmod(0o770)
    assert distrusted(file, ROOT_AND_USER) is None
    assert distrusted(file, ROOT) is not None


@pytest.mark.parametrize(
    ("named", "environment", "users"),
    [
        (True, {}, {0}),
        (True, {"SUDO_UID": "1234"}, {0, 1234}),
        (False, {"SUDO_UID": "1234"}, {0}),
        (True, {"SUDO_UID": "-1"}, {0}),
        (True, {"SUDO_UID": "١"}, {0}),
    ],
)
def test_who_called_sudo_is_trusted_with_what_he_named(named: bool, environment: dict[str, str], users: set) -> None:
    assert callers(named=named, environment=environment) == Owners(frozenset(users))


# --- configurations ---

COMMANDS = [
    ("serve",),
    ("check",),
    ("deliver", "alice"),
    ("import", "alice", "/dev/null"),
    ("undelete", "alice"),
    ("mailbox", "alice"),
    ("mailbox", "alice", "--forget"),
    ("user", "add", "bob", "--password-stdin"),
    ("user", "passwd", "alice", "--password-stdin"),
    ("user", "remove", "alice"),
    ("user", "list"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command))
def test_no_command_obeys_the_configuration_of_a_stranger(
    site: Site, run_pop3d, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("SUDO_UID", str(STRANGER))  # not even when he is who called sudo
    for path in (site.root, site.config, site.root / "users"):
        os.chown(path, STRANGER, STRANGER)
    before = (site.root / "users").read_bytes()
    result = run_pop3d(*command, stdin="new secret\n", cwd=site.root)
    assert result.returncode == 78
    said = result.stderr + result.stdout
    assert f"{site.config}: {site.root} belongs to user {STRANGER}, whom root does not obey; look into it, then" in said
    assert "--config FILE" in said
    assert "Traceback" not in said
    assert (site.root / "users").read_bytes() == before
    assert sorted(path.name for path in site.root.iterdir()) == ["cert.pem", "key.pem", "mail", "pop3d.toml", "users"]


def test_a_stranger_does_not_vouch_for_himself_as_user(site: Site, run_pop3d) -> None:
    text = site.config.read_text().replace(str(USER), str(STRANGER))
    site.config.write_text(text)
    for path in (site.root, site.config):
        os.chown(path, STRANGER, STRANGER)
    assert run_pop3d("deliver", "alice", stdin="x\n", cwd=site.root).returncode == 78
    assert list((site.root / "mail").iterdir()) == []


def test_what_root_names_is_obeyed_when_it_is_of_whoever_called_sudo(
    site: Site, run_pop3d, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (site.root, site.config, site.root / "users"):
        os.chown(path, STRANGER, STRANGER)
    assert run_pop3d("user", "list", "--config", str(site.config)).returncode == 78
    monkeypatch.setenv("SUDO_UID", str(STRANGER))
    assert run_pop3d("user", "list", "--config", str(site.config)).stdout == "alice\tPLAIN\n"


def test_a_configuration_of_user_himself_has_his_rights_and_no_more(site: Site, run_pop3d) -> None:
    trophy = site.root / "trophy"
    trophy.mkdir(mode=0o700)
    text = site.config.read_text().replace(f"#{USER}", "nobody", 1).replace(f'group = "#{USER}"', "")
    site.config.write_text(text)
    for path in (site.config, site.root / "users"):
        os.chown(path, USER, USER)
    result = run_pop3d("deliver", "alice", "--config", str(site.config), stdin="Subject: hello\n\nworld\n")
    assert result.returncode == 0, result.stderr
    (message,) = (site.root / "mail" / "alice" / "new").iterdir()
    assert message.stat().st_uid == USER
    (site.root / "key.pem").chmod(0o400)  # root reads it for him
    site.config.write_text(f'state = "{trophy}"\n{text}')
    daemon = Daemon(site)
    try:
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    finally:
        daemon.end()
    assert f"Uid:\t{USER}\t{USER}\t{USER}\t{USER}" in status
    assert f"Gid:\t{USER}\t{USER}\t{USER}\t{USER}" in status
    assert "Groups:\t \n" in status
    assert f"state folder {trophy}: Permission denied" in daemon.log
    assert trophy.stat().st_uid == 0
    assert list(trophy.iterdir()) == []


def by_its_user(site: Site, more: str = "") -> None:
    """The configuration is `user`'s own, who adds to it."""
    site.config.write_text(more + site.config.read_text())
    for path in (site.config, site.root / "users"):
        os.chown(path, USER, USER)


def test_a_state_folder_that_user_names_is_his_own_or_made_in_a_folder_of_his(site: Site) -> None:
    by_its_user(site, 'state = "mail/.state"\n')
    Daemon(site).end()
    state = site.root / "mail" / ".state"
    assert {path.stat().st_uid for path in (state, *state.rglob("*"))} == {USER}
    assert (state / "keep" / "secret").exists()


def test_check_looks_with_the_rights_that_serve_has(site: Site, run_pop3d) -> None:
    (site.root / "key.pem").chmod(0o400)
    by_its_user(site, 'state = "mail/.state"\n')
    result = run_pop3d("check", "--config", str(site.config))
    assert result.returncode == 0, result.stdout
    (site.root / "trophy").mkdir(mode=0o700)
    site.config.write_text(site.config.read_text().replace("mail/.state", "trophy"))
    result = run_pop3d("check", "--config", str(site.config))
    assert result.returncode == 78
    assert "trophy" in result.stdout
    assert list((site.root / "trophy").iterdir()) == []


def test_no_secret_of_root_is_read_for_user_to_be_sent_to_where_he_says(site: Site, run_pop3d) -> None:
    (site.root / "secret").write_text("root's own\n")
    (site.root / "secret").chmod(0o600)
    by_its_user(site)
    text = site.config.read_text()
    assert "[auth]" in text
    site.config.write_text(
        text.replace("[auth]", '[auth]\nmechanisms = ["plain", "oauthbearer"]', 1)
        + '[auth.oauth]\nissuer = "https://example.org"\naudience = "mail"\n'
        'introspection = "https://example.org/i"\nclient_id = "x"\nclient_secret_file = "secret"\n'
    )
    result = run_pop3d("serve", "--config", str(site.config))
    assert result.returncode == 78
    assert "secret: Permission denied" in result.stderr


def test_a_configuration_of_user_is_read_with_his_rights(site: Site, run_pop3d) -> None:
    by_its_user(site)
    (site.root / "trophy").write_text("= root's own\n")
    (site.root / "trophy").chmod(0o600)
    os.chown(site.root, USER, USER)
    site.config.unlink()
    site.config.symlink_to("trophy")
    os.chown(site.config, USER, USER, follow_symlinks=False)
    result = run_pop3d("serve", "--config", str(site.config))
    assert result.returncode == 78
    assert "belongs to nobody, whom root does not obey" in result.stderr
    assert "root's own" not in result.stderr


def test_a_configuration_is_of_the_user_whom_it_names_or_of_root(site: Site, run_pop3d) -> None:
    site.config.write_text(site.config.read_text().replace(f"#{USER}", "root", 1))
    os.chown(site.config, USER, USER)
    result = run_pop3d("deliver", "alice", "--config", str(site.config), stdin="x\n")
    assert result.returncode == 78
    assert "belongs to nobody, whom root does not obey" in result.stderr
    assert len(result.stderr.splitlines()) == 1


KEYS = """
state = "other"
[[listen]]
host = "127.0.0.1"
tls = "none"
port = 0
[tls]
certificate = "cert.pem"
private_key = "key.pem"
client_ca = "ca.pem"
[[tls.sni]]
hosts = ["example.org"]
certificate = "sni.pem"
private_key = "sni-key.pem"
[auth]
users = "users"
mechanisms = ["plain", "oauthbearer"]
[auth.oauth]
issuer = "https://example.org"
audience = "mail"
jwks = "keys.json"
"""


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("other", "state"),
        ("cert.pem", "tls"),
        ("key.pem", "tls"),
        ("ca.pem", "tls"),
        ("sni.pem", "tls"),
        ("sni-key.pem", "tls"),
        ("users", "auth.users"),
        ("keys.json", "auth.oauth"),
    ],
)
def test_each_file_that_is_named_belongs_to_root_or_user(folder: Path, name: str, key: str) -> None:
    config = folder / "pop3d.toml"
    config.write_text(f'user = "#{USER}"\ngroup = "#{USER}"\n{KEYS}')
    for file in ("cert.pem", "key.pem", "ca.pem", "sni.pem", "sni-key.pem", "users", "keys.json"):
        (folder / file).write_text("")
    (folder / "other").mkdir()
    os.chown(folder / name, USER, USER)
    assert configured(config).listen
    os.chown(folder / name, STRANGER, STRANGER)
    with pytest.raises(ConfigError) as caught:
        configured(config)
    (fault,) = caught.value.faults
    assert fault.startswith(f"{config}: `{key}`: {folder / name}: it belongs to user {STRANGER}, ")


def test_the_secret_for_introspection_belongs_to_root_or_user(folder: Path) -> None:
    config = folder / "pop3d.toml"
    text = KEYS.replace(
        'jwks = "keys.json"',
        'introspection = "https://example.org/i"\nclient_id = "x"\nclient_secret_file = "secret"',
    )
    config.write_text(f'user = "#{USER}"\ngroup = "#{USER}"\n{text}')
    (folder / "secret").write_text("")
    os.chown(folder / "secret", STRANGER, STRANGER)
    with pytest.raises(ConfigError, match=r"`auth.oauth`: .*/secret: it belongs to user"):
        configured(config)


def test_all_files_of_strangers_are_told_at_once(site: Site, run_pop3d) -> None:
    for name in ("users", "key.pem"):
        os.chown(site.root / name, STRANGER, STRANGER)
    result = run_pop3d("check", "--config", str(site.config))
    assert result.returncode == 78
    assert "2 faults, no warnings" in result.stdout
    assert "`auth.users`" in result.stdout
    assert "`tls`" in result.stdout


def test_others_obey_what_they_name_and_not_what_they_find(site: Site) -> None:
    os.chown(site.config, STRANGER, STRANGER)

    def named() -> None:
        assert configured(site.config).listen

    def found() -> None:
        os.chdir(site.root)
        with pytest.raises(ConfigError, match="belongs to user 65533, whom nobody does not obey"):
            configured(None)

    as_somebody(USER, named)
    as_somebody(USER, found)

    def own() -> None:
        os.chdir(site.root)
        assert configured(None).listen

    os.chown(site.root, STRANGER, STRANGER)
    site.config.chmod(0o664)  # his own group, as many systems have it
    as_somebody(STRANGER, own)


# --- what root writes ---


@pytest.mark.parametrize("level", ["state", "state/inner"])
def test_the_state_folder_is_not_reached_through_a_link_of_users(folder: Path, level: str) -> None:
    (folder / "trophy" / "inner").mkdir(parents=True)
    home = folder / "home"
    home.mkdir()
    (home / "state").symlink_to(folder / "trophy")
    os.chown(home, USER, USER)
    os.chown(home / "state", USER, USER, follow_symlinks=False)
    with pytest.raises(OSError, match="root follows root's links only"):
        prepare(home / level, (USER, USER))
    assert {path.stat().st_uid for path in (folder / "trophy").rglob("*")} == {0}
    assert not (folder / "trophy" / "cache").exists()
    os.chown(home / "state", 0, 0, follow_symlinks=False)  # an administrator moved it
    prepare(home / level, (USER, USER))
    assert (folder / "trophy" / level.removeprefix("state").strip("/") / "keep").stat().st_uid == USER


def test_a_hard_link_in_the_state_folder_gives_nothing_away(folder: Path) -> None:
    (folder / "trophy").write_bytes(b"x" * 32)
    prepare(folder / "state", (USER, USER))
    os.link(folder / "trophy", folder / "state" / "keep" / "secret")
    os.link(folder / "trophy", folder / "state" / "secret")
    prepare(folder / "state", (USER, USER))
    assert (folder / "trophy").stat().st_uid == 0


def test_a_users_file_is_not_edited_through_a_link_of_a_stranger(folder: Path, run_pop3d) -> None:
    (folder / "trophy").write_text("# root's\n")
    (folder / "users").symlink_to("trophy")
    os.chown(folder / "users", STRANGER, STRANGER, follow_symlinks=False)
    words = ("user", "add", "bob", "--users", str(folder / "users"), "--password-stdin")
    result = run_pop3d(*words, stdin="secret\n")
    assert result.returncode == 74
    assert "a symbolic link that is not root's" in result.stderr
    assert (folder / "trophy").read_text() == "# root's\n"
    os.chown(folder / "users", 0, 0, follow_symlinks=False)
    assert run_pop3d(*words, stdin="secret\n").returncode == 0
    assert "bob:" in (folder / "trophy").read_text()
    assert (folder / "users").is_symlink()


def test_a_users_file_is_not_edited_in_a_folder_behind_a_link_of_a_stranger(folder: Path) -> None:
    (folder / "trophy").mkdir()
    (folder / "conf").symlink_to("trophy")
    os.chown(folder / "conf", STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(OSError, match="root follows root's links only"):
        add_user(folder / "conf" / "users", "bob", "secret", scheme="PLAIN")
    assert list((folder / "trophy").iterdir()) == []


def test_a_users_file_keeps_owner_and_mode_in_whoevers_folder(folder: Path) -> None:
    users = folder / "conf" / "users"
    users.parent.mkdir()
    users.write_text("")
    users.chmod(0o640)
    os.chown(users.parent, USER, USER)
    os.chown(users, USER, STRANGER)
    (users.parent / ".users.new").symlink_to("/etc/passwd")  # what a crash, or its owner, left there
    before = Path("/etc/passwd").read_bytes()
    add_user(users, "bob", "secret", scheme="PLAIN")
    found = users.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (USER, STRANGER, 0o640)
    assert users.read_text() == "bob:{PLAIN}secret\n"
    assert Path("/etc/passwd").read_bytes() == before


def test_a_certificate_is_not_made_behind_a_link_of_a_stranger(folder: Path) -> None:
    (folder / "trophy").mkdir()
    (folder / "out").symlink_to("trophy")
    os.chown(folder / "out", STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(OSError, match="root follows root's links only"):
        create_self_signed(["localhost"], folder / "out")
    assert list((folder / "trophy").iterdir()) == []


# --- what is imported, and run ---

TRAP = "raise SystemExit('imported')\n"


@pytest.mark.parametrize("program", ["pop3d", "pop3cli"])
def test_nothing_is_imported_from_the_folder_one_is_in(folder: Path, program: str) -> None:
    # not what Python itself imports before our first line: `python -P` is for that, or the installed command
    for module in ("typer", "gc", "pydantic", "rich", "pop3core"):
        (folder / f"{module}.py").write_text(TRAP)
    words = [sys.executable, "-m", program, "--version"]
    result = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_daemon_stands_where_its_processes_import_nothing_of_strangers(site: Site) -> None:
    daemon = Daemon(site, cwd="/tmp")
    try:
        assert os.readlink(f"/proc/{daemon.process.pid}/cwd") == "/"
    finally:
        daemon.end()


def test_root_imports_no_plugin_of_a_stranger(site: Site, run_pop3d, monkeypatch: pytest.MonkeyPatch) -> None:
    plugins = site.root / "plugins"
    (plugins / "mail").mkdir(parents=True)
    (plugins / "mail" / "__init__.py").write_text("")
    (plugins / "mail" / "store.py").write_text(
        "from pop3d.stores.memory import MemoryStore\ndef made(options, folder): return MemoryStore()\n"
    )
    site.config.write_text(
        site.config.read_text().replace('path = "mail/{user}"', 'backend = "mail.store:made"') + "[limits]\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{os.environ.get('PYTHONPATH', '')}:{plugins}")
    assert "fault" not in run_pop3d("check", "--config", str(site.config)).stdout.replace("no faults", "")
    for stranger in (plugins / "mail" / "store.py", plugins / "mail", plugins):
        os.chown(stranger, USER, USER)  # not even `user`: root is more
        result = run_pop3d("check", "--config", str(site.config))
        assert result.returncode == 78
        assert "`store.backend` = 'mail.store:made': " in result.stdout
        assert "belongs to nobody, whom root does not obey" in result.stdout
        os.chown(stranger, 0, 0)
    os.chown(plugins / "mail" / "store.py", USER, USER)
    os.chown(site.config, USER, USER)  # nor when it is `user` who names it
    os.chown(site.root / "users", USER, USER)
    for command in ("check", "serve"):
        result = run_pop3d(command, "--config", str(site.config))
        assert result.returncode == 78
        assert "belongs to nobody, whom root does not obey" in result.stdout + result.stderr
