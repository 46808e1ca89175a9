"""Plug-ins: how they are found, what is told about those that cannot be used, and the examples, served."""

import asyncio
import contextlib
import json
import os
import poplib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from examples.eml_store import EmlStore
from examples.sqlite_store import PIECE, SqliteStore, deliver
from pop3d.assembly import plugin_faults
from pop3d.auth.passwords import hashed
from pop3d.config import ConfigError, load
from pop3d.store_contract import ALICE, StoreContract, content
from pop3d.stores import RemovalFailed, Store, StoreError
from tests.site import Daemon, Site

ROOT = Path(__file__).parents[2]

# a store, an authenticator, and what is wrong with others
MODULE = """
from pop3d.auth import Account, AuthError
from pop3d.plugins import OptionsError
from pop3d.stores.memory import MemoryStore
from pydantic import BaseModel, ConfigDict

class Mail(MemoryStore):
    def __init__(self, options, folder):
        if unknown := sorted(options.keys() - {"greeting"}):
            raise OptionsError({key: "there is no such option" for key in unknown})
        super().__init__({"alice": [options.get("greeting", str(folder)).encode()]})

class Users:
    def __init__(self, options, folder):
        pass
    async def authenticate(self, credential, source=""):
        return Account(credential.username) if credential.secret == b"open sesame" else None
    async def reload(self):
        raise AuthError("nothing to read")
    async def close(self):
        print("closed", flush=True)

class Buggy(Mail, Users):
    async def open(self, account, *, utf8):
        if account.name == "alice":
            raise RuntimeError("a bug")
        return await super().open(account, utf8=utf8)
    async def reload(self):
        raise RuntimeError("another bug")

class Checked(BaseModel):
    model_config = ConfigDict(extra="forbid")
    port: int

class Strict(Mail):
    def __init__(self, options, folder):
        Checked.model_validate(options)

class Broken(Mail):
    def __init__(self, options, folder):
        raise KeyError(options["password"])

class Unreadable(Users):
    def __init__(self, options, folder):
        raise AuthError("users.ldif: no such file; name another")

class Poor:
    def __init__(self, options, folder):
        pass
    open = None

def made(options, folder):
    return Mail({"greeting": "made by a function"}, folder)

number = 5
"""


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of plug-ins, installed: with entry points, in a folder that all Pythons look into."""
    folder = tmp_path / "site-packages"
    (folder / "tiny").mkdir(parents=True)
    (folder / "tiny/__init__.py").write_text("")
    (folder / "tiny/mail.py").write_text(MODULE)
    (folder / "tiny/needy.py").write_text("import tiny_missing.part")
    (folder / "tiny/faulty.py").write_text("x = 1\nx['secret word']\n")
    info = folder / "tiny-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    stores, authenticators = "tiny = tiny.mail:Mail\ntwice = tiny.mail:Mail", "tiny = tiny.mail:Users"
    (info / "entry_points.txt").write_text(f"[pop3d.stores]\n{stores}\n[pop3d.authenticators]\n{authenticators}\n")
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT), str(ROOT / "examples")]))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "tiny"]:
        del sys.modules[name]


def configure(site: Site, store: str = "", auth: str = "") -> None:
    """Lines for [store] and [auth], instead of those that are there."""
    text = site.config.read_text()
    if store:
        text = text.replace('path = "mail/{user}"\n', f"{store}\n")
    if auth:
        text = text.replace('users = "users"\n', f"{auth}\n")
    site.config.write_text(text)


@contextlib.contextmanager
def visited(site: Site, name: str = "alice", password: str = "secret") -> Iterator[poplib.POP3_SSL]:
    client = poplib.POP3_SSL("localhost", site.port, context=site.context(), timeout=20)
    with contextlib.closing(client):
        client.user(name)
        client.pass_(password)
        yield client


@contextlib.contextmanager
def serving(site: Site, **options: Any) -> Iterator[Daemon]:
    daemon = Daemon(site, **options)
    try:
        yield daemon
    finally:
        assert daemon.end() == 0, daemon.log


# --- found ---


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tiny", "hello"),
        ("tiny.mail:Mail", "hello"),
        ("tiny.mail.Mail", "hello"),
        ("tiny.mail:made", "made by a function"),
    ],
)
def test_a_store_is_found_by_entry_point_and_by_path(site: Site, plugged: Path, name: str, text: str) -> None:
    configure(site, f'backend = "{name}"\noptions = {{ greeting = "hello" }}')
    with serving(site), visited(site) as client:
        assert client.retr(1)[1] == [text.encode()]
        client.quit()


def test_an_authenticator_is_found_and_asked_reloaded_and_closed(site: Site, plugged: Path) -> None:
    configure(site, auth='backend = "tiny"')
    site.maildir("bob", {"new/1.host": b"Subject: for bob\n"})
    with serving(site, stdout=subprocess.PIPE) as daemon:
        with visited(site, "bob", "open sesame") as client:
            assert client.retr(1)[1] == [b"Subject: for bob"]
            client.quit()
        with pytest.raises(poplib.error_proto, match="wrong user name or password"), visited(site, "bob", "secret"):
            pass
        daemon.send(signal.SIGHUP)
        daemon.wait_for("the old ones stay: nothing to read")
        daemon.process.terminate()
        said, logged = daemon.process.communicate(timeout=20)
    assert said == "closed\n", logged


def test_the_folder_is_that_of_the_configuration(site: Site, plugged: Path) -> None:
    configure(site, 'backend = "tiny"')
    with serving(site, cwd="/"), visited(site) as client:
        assert client.retr(1)[1] == [os.fsencode(site.root)]
        client.quit()


def test_a_bug_of_a_plugin_ends_a_session_and_nothing_else(site: Site, plugged: Path) -> None:
    configure(site, 'backend = "tiny.mail:Buggy"', 'backend = "tiny.mail:Buggy"')
    with serving(site) as daemon:
        for _ in range(2):
            with pytest.raises((poplib.error_proto, OSError)), visited(site, "alice", "open sesame"):
                pass
        daemon.send(signal.SIGHUP)
        daemon.wait_for("users not reloaded, by a fault of ours or of a plug-in")
        with visited(site, "bob", "open sesame") as client:
            assert client.stat() == (0, 0)
    assert daemon.log.count("a session ended by a fault of ours") == 2
    assert "open sesame" not in daemon.log


# --- what cannot be used ---


def faults_of(site: Site) -> list[str]:
    """All faults, each without the file's name."""
    try:
        found = plugin_faults(load(site.config))
    except ConfigError as fault:
        found = fault.faults
    assert all(text.startswith(f"{site.config}: ") for text in found)
    return [text.removeprefix(f"{site.config}: ") for text in found]


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        (
            "nobody",
            "nor a plug-in of an installed package (there are: tiny, twice); take one of those, or install its package",
        ),
        ("twice", "several packages have a plug-in of that name; say it as package.module:Class"),
        ("no_such_module:Class", "there is no module no_such_module; install it, or put its folder on PYTHONPATH"),
        ("tiny.nothing:Class", "there is no module tiny.nothing; install it"),
        ("tiny.mail:Nothing", "the module tiny.mail has no Nothing; mend the name"),
        ("tiny.mail.Nothing", "the module tiny.mail has no Nothing; mend the name"),
        ("tiny.mail:number", "it is a int, and not a class; name the class"),
        ("tiny:a:b", "say it as package.module:Class"),
        ("tiny.", "say it as package.module:Class"),
        ("tiny.needy:Store", "it needs the module tiny_missing, which is not there; install that"),
        ("tiny.faulty:Store", "it cannot be imported: TypeError in {folder}/tiny/faulty.py line 2; tell its author"),
        ("tiny.mail:Poor", "it lacks the method open; see docs/plugins.md"),
    ],
)
def test_what_is_no_plugin_is_told(site: Site, plugged: Path, backend: str, words: str) -> None:
    (plugged / "second-1.0.dist-info").mkdir()
    (plugged / "second-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: second\nVersion: 1.0\n")
    (plugged / "second-1.0.dist-info/entry_points.txt").write_text("[pop3d.stores]\ntwice = tiny.mail:Poor\n")
    configure(site, f'backend = "{backend}"')
    (fault,) = faults_of(site)
    assert fault.startswith(f"`store.backend` = '{backend}': ")
    assert words.format(folder=plugged) in fault
    assert "secret word" not in fault


@pytest.mark.parametrize(
    ("store", "told"),
    [
        (
            'backend = "tiny"\noptions = { one = 1, two = "secret word" }',
            ["`store.options.one`: there is no such option", "`store.options.two`: there is no such option"],
        ),
        (
            'backend = "tiny.mail:Strict"\noptions = { port = "secret word", more = 1 }',
            [
                "`store.options.port`: input should be a valid integer, unable to parse string as an integer",
                "unknown key `store.options.more`; remove it",
            ],
        ),
        ('backend = "tiny.mail:Strict"', ["`store.options.port` is missing"]),
        ('backend = "memory"\noptions = { port = 1 }', ["`options` are those of a plug-in"]),
        ('backend = "tiny"\npath = "mail/{user}"', ["`path` means nothing to a plug-in, whose keys are `options`"]),
        ('backend = "two words"', ["`store.backend`: a name, such as"]),
    ],
)
def test_options_that_cannot_be_used_are_told_by_key(site: Site, plugged: Path, store: str, told: list[str]) -> None:
    configure(site, store)
    found = faults_of(site)
    assert len(found) == len(told)
    for text, words in zip(found, told, strict=True):
        assert words in text
        assert "secret word" not in text


def test_a_plugin_that_fails_is_told_by_place_and_not_by_what_it_was_given(site: Site, plugged: Path) -> None:
    configure(site, 'backend = "tiny.mail:Broken"\noptions = { password = "secret word" }')
    (fault,) = faults_of(site)
    assert "it failed when it was made: KeyError in " in fault
    assert "tiny/mail.py line " in fault
    assert "secret word" not in fault
    assert "secret word" not in repr(load(site.config))


@pytest.mark.parametrize(
    ("auth", "words"),
    [
        ('backend = "tiny.mail:Unreadable"', "users.ldif: no such file; name another"),
        ('backend = "tiny.mail:Mail"', "it lacks the method authenticate, reload, close"),
        (
            'backend = "tiny"\nmechanisms = ["plain", "scram-sha-256"]',
            "`auth.mechanisms`: scram-sha-256 needs the method `secret`, which 'tiny' lacks; remove it",
        ),
        ('backend = "tiny"\nusers = "users"', "`users` means nothing to a plug-in"),
        (
            'backend = "tiny"\n[[listen]]\nprotocol = "lmtp"',
            "protocol = \"lmtp\": 'tiny' cannot say who there is: it lacks the method `account`; remove that",
        ),
    ],
)
def test_an_authenticator_that_cannot_be_used(site: Site, plugged: Path, auth: str, words: str) -> None:
    configure(site, auth=auth)
    (fault,) = faults_of(site)
    assert words in fault


@pytest.mark.parametrize("command", ["serve", "check"])
def test_all_faults_come_at_once_with_78(site: Site, plugged: Path, run_pop3d, command: str) -> None:
    configure(site, 'backend = "tiny"\noptions = { one = 1 }', 'backend = "tiny.mail:Poor"')
    done = run_pop3d(command, "--config", str(site.config))
    assert done.returncode == 78
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "every fault would" not in line]
    assert f"{site.config}: `auth.backend` = 'tiny.mail:Poor': it lacks the method authenticate" in lines[0]
    assert f"{site.config}: `store.options.one`: there is no such option" in lines[1]
    assert "Traceback" not in done.stderr


def test_nothing_is_found_where_plugins_are_in_order(site: Site, plugged: Path, run_pop3d) -> None:
    configure(site, 'backend = "tiny"', 'backend = "tiny"')
    (site.root / "users").unlink()
    done = run_pop3d("check", "--config", str(site.config))
    assert (done.returncode, done.stderr) == (0, "")


def test_commands_that_need_a_file_of_users_or_a_maildir_say_so(site: Site, plugged: Path, run_pop3d) -> None:
    configure(site, auth='backend = "tiny"')
    done = run_pop3d("deliver", "alice", "--config", str(site.config))
    assert (done.returncode, done.stderr.count("\n")) == (78, 1)
    assert "it lacks the method `account`" in done.stderr
    done = run_pop3d("user", "list", "--config", str(site.config))
    assert (done.returncode, done.stderr.count("\n")) == (78, 1)
    assert 'with backend = "tiny" users are in no file' in done.stderr
    configure(site, 'backend = "tiny"')
    done = run_pop3d("deliver", "alice", "--config", str(site.config))
    assert done.returncode == 78
    assert "there is no Maildir to deliver into" in done.stderr


# --- the examples ---


class TestSqlite(StoreContract):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path

    async def make(self, messages: list[bytes]) -> Store:
        for message in [*messages, b"for bob\n"]:
            deliver(self.path / "mail.db", "bob" if message == b"for bob\n" else "alice", [message])
        return SqliteStore({"database": "mail.db"}, self.path)


class TestEml(StoreContract):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path

    async def make(self, messages: list[bytes]) -> Store:
        return eml(self.path, {f"{number:02}.eml": message for number, message in enumerate(messages)}, remove=True)


def eml(root: Path, files: Mapping[str, bytes], *, remove: bool) -> EmlStore:
    (root / "archive/alice").mkdir(parents=True)
    for name, message in files.items():
        (root / "archive/alice" / name).write_bytes(message)
    return EmlStore({"folder": "archive", "remove": remove}, root)


@pytest.mark.parametrize("length", [PIECE - 1, PIECE, PIECE + 1, 2 * PIECE - 2, 2 * PIECE])
async def test_sqlite_pieces_of_every_length(tmp_path: Path, length: int) -> None:
    message = b"x" * length
    deliver(tmp_path / "mail.db", "alice", (message[at : at + 1000] for at in range(0, length, 1000)))
    drop = await SqliteStore({"database": "mail.db"}, tmp_path).open(ALICE, utf8=False)
    assert await content(drop, 1) == message + b"\r\n"
    assert drop.messages.octets == length + 2
    await drop.close()


async def test_sqlite_without_its_database_is_no_empty_mailbox(tmp_path: Path) -> None:
    store = SqliteStore({"database": "mail.db"}, tmp_path)
    with pytest.raises(StoreError) as caught:
        await store.open(ALICE, utf8=False)
    assert caught.value.code == "SYS/TEMP"
    assert not (tmp_path / "mail.db").exists()


async def test_eml_serves_files_and_nothing_else(tmp_path: Path) -> None:
    store = eml(tmp_path, {"b.eml": b"b\n", "a.eml": b"a\n", ".c.eml": b"c\n", "d.txt": b"d\n"}, remove=False)
    folder = tmp_path / "archive/alice"
    (tmp_path / "secret").write_bytes(b"secret\n")
    (folder / "link.eml").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "pipe.eml")
    (folder / "folder.eml").mkdir()
    drop = await store.open(ALICE, utf8=False)
    assert [await content(drop, number) for number in (1, 2)] == [b"a\r\n", b"b\r\n"]
    assert len(drop.messages) == 2
    with pytest.raises(RemovalFailed) as caught:
        await drop.remove([1])
    assert caught.value.left == [1]
    await drop.close()
    assert (folder / "a.eml").exists()


async def test_eml_another_message_of_the_same_name_has_another_id(tmp_path: Path) -> None:
    store = eml(tmp_path, {"a.eml": b"one\n"}, remove=True)
    drop = await store.open(ALICE, utf8=False)
    (tmp_path / "archive/alice/a.eml").write_bytes(b"two\n")
    await drop.close()
    again = await store.open(ALICE, utf8=False)
    assert again.messages.uids[0] != drop.messages.uids[0]
    await again.close()


@pytest.mark.parametrize("make", ["sqlite", "eml"])
async def test_a_client_that_goes_while_its_mailbox_is_opened_leaves_no_lock(tmp_path: Path, make: str) -> None:
    store: Store
    if make == "sqlite":
        deliver(tmp_path / "mail.db", "alice", [b"one\n"])
        store = SqliteStore({"database": "mail.db"}, tmp_path)
    else:
        store = eml(tmp_path, {"1.eml": b"one\n"}, remove=True)
    opening = asyncio.ensure_future(store.open(ALICE, utf8=False))
    await asyncio.sleep(0)  # it has begun
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    drop = await store.open(ALICE, utf8=False)
    await drop.close()


@pytest.mark.parametrize(
    ("make", "options", "faults"),
    [
        (EmlStore, {}, {"folder"}),
        (EmlStore, {"folder": 5, "remove": "yes", "delete": True}, {"folder", "remove", "delete"}),
        (SqliteStore, {}, {"database"}),
        (SqliteStore, {"databse": "x", "database": 5}, {"databse", "database"}),
    ],
)
def test_the_examples_refuse_options(
    make: Callable[[Mapping[str, Any], Path], object], options: dict[str, Any], faults: set[str], tmp_path: Path
) -> None:
    with pytest.raises(ValueError) as caught:
        make(options, tmp_path)
    named = getattr(caught.value, "faults", None) or {error["loc"][0] for error in caught.value.errors()}  # type: ignore[attr-defined]
    assert set(named) == faults


def test_sqlite_is_served(site: Site, plugged: Path) -> None:
    configure(site, 'backend = "sqlite_store:SqliteStore"\n[store.options]\ndatabase = "mail.db"')
    for number in range(3):
        subprocess.run(
            [sys.executable, ROOT / "examples/sqlite_store.py", site.root / "mail.db", "alice"],
            input=b"Subject: %d\n\nhello\n" % number, check=True, timeout=60,
        )  # fmt: skip
    with serving(site):
        with visited(site) as client:
            assert client.stat() == (3, 3 * 21)
            assert client.retr(2)[1] == [b"Subject: 1", b"", b"hello"]
            with pytest.raises(poplib.error_proto, match="IN-USE"), visited(site):
                pass
            client.dele(2)
            client.quit()
        with visited(site) as client:
            assert [client.top(number, 0)[1][0] for number in (1, 2)] == [b"Subject: 0", b"Subject: 2"]


def test_eml_files_are_served_to_users_of_a_json_file(site: Site, plugged: Path, run_pop3d) -> None:
    eml(site.root, {"1.eml": b"Subject: 1\n\nhello\n", "2.eml": b"Subject: 2\n\n.\n"}, remove=False)
    configure(
        site,
        'backend = "eml_store.EmlStore"\n[store.options]\nfolder = "archive"',
        'backend = "json_users.JsonUsers"\noptions = { file = "users.json" }',
    )
    users = site.root / "users.json"
    known = {"secret": hashed("secret"), "addresses": ["alice@example.org"]}
    users.write_text(json.dumps({"alice": known}))
    with serving(site) as daemon:
        with visited(site, "alice@example.org") as client:
            assert client.retr(2)[1] == [b"Subject: 2", b"", b"."]
            client.dele(1)
            with pytest.raises(poplib.error_proto, match="SYS/"):
                client.quit()
        for name, password in (("alice", "wrong"), ("bob", "secret")):
            with pytest.raises(poplib.error_proto, match="wrong user name"), visited(site, name, password):
                pass
        users.write_text(json.dumps({"alice": {**known, "addresses": []}, "bob": {"secret": "hidden"}}))
        daemon.send(signal.SIGHUP)
        daemon.wait_for("users.json: user 'bob': the secret has no scheme before it")
        users.write_text(json.dumps({"bob": known}))
        daemon.send(signal.SIGHUP)
        daemon.wait_for("users reloaded")
        with visited(site, "bob") as client:
            assert client.stat() == (0, 0)
    assert "hidden" not in daemon.log
    configure(site)
    text = site.config.read_text().partition("[store]")[0]
    site.config.write_text(f'{text}[store]\npath = "mail/{{user}}"\n')
    delivered = run_pop3d("deliver", "bob@example.org", "--config", str(site.config), stdin="Subject: x\n\n")
    assert delivered.returncode == 67
    delivered = run_pop3d("deliver", "bob", "--config", str(site.config), stdin="Subject: x\n\n")
    assert (delivered.returncode, delivered.stderr) == (0, "")
    assert len(list((site.root / "mail/bob/new").iterdir())) == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"alice": {}}', '{"alice": {"secret": "{PLAIN}secret"}}', '{"..": {}}'])
def test_a_faulty_json_file_is_told(site: Site, plugged: Path, text: str) -> None:
    (site.root / "users.json").write_text(text)
    configure(site, auth='backend = "json_users:JsonUsers"\noptions = { file = "users.json" }')
    (fault,) = faults_of(site)
    assert f"{site.root}/users.json: " in fault
    assert "secret'" not in fault


# --- for others ---


def test_others_can_run_the_contract(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "from pop3d.store_contract import StoreContract\n"
        "from pop3d.stores.memory import MemoryStore\n"
        "class TestMine(StoreContract):\n"
        "    async def make(self, messages):\n"
        "        return MemoryStore({'alice': messages[:9]})\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path],
        capture_output=True, text=True, timeout=60, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    # this one loses a message, and the contract notices
    assert "1 failed, 7 passed" in done.stdout, done.stdout
