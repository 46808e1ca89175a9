"""SIGHUP reads the configuration too: one daemon, whose configuration changes key by key."""

import json
import os
import poplib
import signal
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pop3d.net.certificates import create_self_signed
from tests.site import Daemon, Site, free_port

BASE = {
    "hostname": '"localhost"',
    "user": '"root"' if os.geteuid() == 0 else "",
    "state": '"state"',
    "listen": "[]",
    "tls.certificate": '"cert.pem"',
    "tls.private_key": '"key.pem"',
    "auth.users": '"users"',
    "store.path": '"mail/{user}"',
    "limits.auth_penalty": "0",
}


class Reloaded:
    """A daemon that runs, and what it said to each SIGHUP."""

    def __init__(self, site: Site, daemon: Daemon) -> None:
        self.site, self.daemon = site, daemon

    def reload(self, change: dict[str, str], listen: str = "") -> str:
        """The configuration with these keys besides or instead; what was logged."""
        self.write(change, listen)
        self.daemon.log = ""
        self.daemon.send(signal.SIGHUP)
        self.daemon.wait_for("users reloaded")
        return self.daemon.log

    def write(self, change: dict[str, str], listen: str = "") -> None:
        keys = {**BASE, **change}
        listen = listen or f'[{{host = "127.0.0.1", port = {self.site.port}}}]'
        lines = [f"{key} = {value}" for key, value in {**keys, "listen": listen}.items() if value]
        self.site.config.write_text("\n".join(lines))

    def connect(self, **options) -> poplib.POP3_SSL:
        return poplib.POP3_SSL("localhost", self.site.port, context=self.site.context(), timeout=20, **options)

    def login(self, user: str = "alice", password: str = "secret") -> poplib.POP3_SSL:
        client = self.connect()
        try:
            client.user(user)
            client.pass_(password)
        except BaseException:
            client.close()
            raise
        return client

    def capabilities(self) -> dict[str, list[str]]:
        client = self.connect()
        try:
            return client.capa()
        finally:
            client.quit()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reloaded]:
    root = tmp_path_factory.mktemp("reload")
    create_self_signed(["localhost"], root)
    create_self_signed(["localhost"], root / "other")
    (root / "users").write_text("alice:{PLAIN}secret\n")
    (root / "others").write_text("bob:{PLAIN}different\n")
    site = Site(root, free_port())
    reloaded = Reloaded(site, None)  # type: ignore[arg-type]
    reloaded.write({})
    site.maildir("alice", {"new/1.host": b"Subject: one\n\n1\n"})
    # a relative path, and a process that goes to "/" as it starts
    reloaded.daemon = Daemon(Site(Path("."), site.port), cwd=root)
    yield reloaded
    assert reloaded.daemon.end() == 0
    assert "Traceback" not in reloaded.daemon.log


def test_nothing_has_changed(running: Reloaded) -> None:
    log = running.reload({})
    assert ("configuration" in log, "certificate reloaded" in log) == (False, True)


def greets(running: Reloaded) -> None:
    client = running.connect()
    assert b"mail.example.org" in client.getwelcome()
    client.quit()


def expires(running: Reloaded) -> None:
    assert running.capabilities()["EXPIRE"] == ["30"]


def delays(running: Reloaded) -> None:
    assert running.capabilities()["LOGIN-DELAY"] == ["5"]
    running.login().quit()
    with pytest.raises(poplib.error_proto, match="LOGIN-DELAY"):
        running.login()


def offers(running: Reloaded) -> None:
    assert running.capabilities()["SASL"] == ["PLAIN", "SCRAM-SHA-256"]


def knows_bob(running: Reloaded) -> None:
    running.login("bob", "different").quit()
    with pytest.raises(poplib.error_proto, match=r"\[AUTH\]"):
        running.login()


def takes_capitals(running: Reloaded) -> None:
    running.login("ALICE").quit()


def is_elsewhere(running: Reloaded) -> None:
    client = running.login()
    assert client.stat() == (0, 0)
    client.quit()


def keeps_what_is_deleted(running: Reloaded) -> None:
    box = running.site.maildir("alice", {"new/2.host": b"Subject: two\n\n2\n"})
    client = running.login()
    client.dele(client.stat()[0])
    client.quit()
    assert not (box / "new/2.host").exists()
    assert len(list((running.site.root / "deleted/alice").glob("*/2.host*"))) == 1


def marks(running: Reloaded) -> None:
    box = running.site.maildir("alice", {"new/3.host": b"Subject: three\n\n3\n"})
    client = running.login()
    client.retr(client.stat()[0])
    client.quit()
    assert (box / "cur/3.host:2,S").exists()
    (box / "cur/3.host:2,S").unlink()


def is_strict(running: Reloaded) -> None:
    client = running.connect()
    with pytest.raises(poplib.error_proto):
        client._shortcmd("NOPE")
    with pytest.raises(poplib.error_proto):
        client._shortcmd("QUIT")  # it was the last one
    client.close()


def asks_for_tls13(running: Reloaded) -> None:
    context = running.site.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(OSError):
        poplib.POP3_SSL("localhost", running.site.port, context=context, timeout=20)
    running.login().quit()


def shows_another(running: Reloaded) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        running.connect()
    context = ssl.create_default_context(cafile=running.site.root / "other/cert.pem")
    poplib.POP3_SSL("localhost", running.site.port, context=context, timeout=20).quit()


def says_more(running: Reloaded) -> None:
    running.connect().close()  # without a word
    running.daemon.wait_for("DEBUG session ip=127.0.0.1")


def speaks_json(running: Reloaded) -> None:
    running.login().quit()
    running.daemon.wait_for('"event": "session"')
    assert json.loads(running.daemon.log.splitlines()[-1])["user"] == "alice"


CHANGES: dict[str, tuple[dict[str, str], Callable[[Reloaded], None]]] = {
    "hostname": ({"hostname": '"mail.example.org"'}, greets),
    "expire": ({"store.expire": "30"}, expires),
    "login_delay": ({"limits.login_delay": "5"}, delays),
    "mechanisms": ({"auth.mechanisms": '["plain", "scram-sha-256"]'}, offers),
    "users": ({"auth.users": '"others"'}, knows_bob),
    "usernames": ({"auth.usernames": '"lower"'}, takes_capitals),
    "path": ({"store.path": '"elsewhere/{user}"'}, is_elsewhere),
    "deleted": ({"store.deleted": '"deleted/{user}"'}, keeps_what_is_deleted),
    "mark_seen": ({"store.mark_seen": "true"}, marks),
    "bad_commands": ({"limits.bad_commands": "1"}, is_strict),
    "minimum_version": ({"tls.minimum_version": '"1.3"'}, asks_for_tls13),
    "certificate": ({"tls.certificate": '"other/cert.pem"', "tls.private_key": '"other/key.pem"'}, shows_another),
    "level": ({"log.level": '"debug"'}, says_more),
    "format": ({"log.format": '"json"'}, speaks_json),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_can_change_changes(running: Reloaded, name: str) -> None:
    change, holds = CHANGES[name]
    old = running.login()
    log = running.reload(change)
    assert f"configuration reloaded: {', '.join(sorted(change))}" in log
    assert "needs a restart" not in log
    assert old.stat()[0] == 1  # as it began
    old.quit()
    holds(running)
    assert "configuration reloaded" in running.reload({})
    running.login().quit()


def test_a_lower_limit_refuses_new_ones_only(running: Reloaded) -> None:
    old = [running.login("alice"), running.connect()]
    running.reload({"limits.connections_per_ip": "1"})
    with pytest.raises(OSError):
        running.connect()
    assert old[0].stat()[0] == 1
    for client in old:
        client.quit()
    running.reload({})


def test_failures_that_were_counted_stay(running: Reloaded) -> None:
    running.reload({"limits.auth_failures_per_account": "2"})
    for _ in range(2):
        with pytest.raises(poplib.error_proto, match="wrong user name"):
            running.login("carol", "guess")
    running.reload({"limits.auth_failures_per_account": "3"})
    with pytest.raises(poplib.error_proto, match="wrong user name"):
        running.login("carol", "guess")
    with pytest.raises(poplib.error_proto, match="SYS/TEMP"):
        running.login("carol", "guess")
    running.reload({})


def test_status_tells_of_the_last_reload(running: Reloaded, run_pop3d) -> None:
    running.reload({"hostname": '"mail.example.org"', "group": '"root"'})
    asked = ("status", "--config", str(running.site.config))
    lines = run_pop3d(*asked).stdout.splitlines()
    assert [line.split("\t")[1].partition(", ")[2] for line in lines if line.startswith("reloaded")] == [
        "changed hostname"
    ]
    assert "needs a restart\tgroup" in lines
    running.reload({"hostname": '"a b"'})
    running.write({})
    last = json.loads(run_pop3d(*asked, "--json").stdout)["reload"]
    assert (last["ok"], last["changed"], len(last["faults"])) == (False, [], 1)
    running.reload({})


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({"user": '"nobody"'}, ["user"]),
        ({"group": '"nogroup"'}, ["group"]),
        ({"state": '"another"'}, ["state"]),
        ({"loop": '"uvloop"'}, ["loop"]),
        ({"metrics.listen": '"127.0.0.1:1"'}, ["metrics"]),
        ({"auth.backend": '"pam"'}, ["auth.backend"]),
        ({"store.backend": '"memory"'}, ["store.backend"]),
        # what goes with another backend waits with it
        ({"auth.backend": '"oauth"', "auth.users": "", "auth.mechanisms": '["oauthbearer"]', **{
            f"auth.oauth.{key}": f'"{value}"'
            for key, value in {"issuer": "i", "audience": "a", "jwks": "https://id.example.org/keys"}.items()
        }}, ["auth.backend", "auth.mechanisms", "auth.oauth"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)  # fmt: skip
def test_what_cannot_change_is_named(running: Reloaded, change: dict[str, str], keys: list[str]) -> None:
    if keys == ["loop"]:
        pytest.importorskip("uvloop")
    log = running.reload(change)
    assert [line.split("`")[1] for line in log.splitlines() if "a change needs a restart" in line] == keys
    assert "configuration reloaded" not in log
    running.login().quit()


def test_a_listener_cannot_change_but_all_else_does(running: Reloaded) -> None:
    port = running.site.port
    log = running.reload(
        {"hostname": '"mail.example.org"'}, f'[{{host = "127.0.0.1", port = {port}}}, {{port = {free_port()}}}]'
    )
    assert "WARNING `listen`: a change needs a restart" in log
    assert "configuration reloaded: hostname\n" in log
    greets(running)
    running.reload({})


def test_a_faulty_configuration_changes_nothing_and_all_faults_are_told(running: Reloaded) -> None:
    log = running.reload({"hostname": '"other.example.org"', "limits.connection": "7", "log.level": '"loud"'})
    told = [line.partition("the old one stays: ")[2] for line in log.splitlines() if "ERROR" in line]
    assert [text.partition(": ")[2] for text in told] == [
        "unknown key `limits.connection`; did you mean `connections`?",
        '`log.level`: there is no "loud"; there are "debug", "info", "warning", "error"',
    ]
    client = running.connect()
    assert b"other" not in client.getwelcome()
    client.quit()
    for change, fault in (
        ({"hostname": '"'}, "not TOML"),
        ({"tls.certificate": '"nowhere.pem"'}, "nowhere.pem"),
        ({"auth.users": '"nowhere"'}, "nowhere"),
        ({"tls.client_ca": '"nowhere.pem"'}, "nowhere.pem"),
    ):
        log = running.reload({"log.level": '"debug"', **change})
        assert "configuration not reloaded, the old one stays: " in log
        assert fault in log
        assert "configuration reloaded" not in log
    running.login().quit()
    running.daemon.log = ""
    assert "configuration" not in running.reload({})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_configuration_that_the_user_cannot_read_stays_with_one_line(open_site: Site) -> None:
    site = Site(open_site.root, free_port())
    text = site.config.read_text().replace("port = 0", f'host = "127.0.0.1"\nport = {site.port}')
    site.config.write_text(text)
    site.config.chmod(0o600)
    daemon = Daemon(site)
    try:
        daemon.log = ""
        daemon.send(signal.SIGHUP)
        daemon.wait_for("users reloaded")
        faults = [line.partition("the old one stays: ")[2] for line in daemon.log.splitlines() if "ERROR" in line]
        command = f"chgrp 12345 {site.config} && chmod 0640 {site.config}"
        assert faults == [f"{site.config}: Permission denied; let user 12345 read it: {command}"]
        assert os.system(command) == 0
        with site.config.open("a") as file:
            file.write("[limits]\nlogin_delay = 7\n")
        daemon.send(signal.SIGHUP)
        daemon.wait_for("configuration reloaded: limits.login_delay")
    finally:
        assert daemon.end() == 0
