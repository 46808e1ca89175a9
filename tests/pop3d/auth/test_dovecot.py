"""Logins by the real Dovecot's authentication socket: its passdbs, what it forbids, and its death."""

import asyncio
import base64
import os
import poplib
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from pop3core.events import Password, Token, Verified
from pop3d.abuse.addresses import source_of
from pop3d.auth import AuthUnavailable
from pop3d.auth.dovecot import DovecotUsers
from pop3d.config import ConfigError, load
from pop3d.net.certificates import create_self_signed
from tests.interop.dovecot import Authentication, missing
from tests.pop3d.commands.findings import checked
from tests.site import Daemon, Site, free_port

if why := missing():
    pytest.skip(why, allow_module_level=True)

USERS = """\
alice:{PLAIN}wonder::::::
ünal:{PLAIN}pass wörd=,::::::
spaced name:{PLAIN}x::::::user=spaced
alias:{PLAIN}x::::::user=real
locked:{PLAIN}x::::::nologin reason=Gone_away
moved:{PLAIN}x::::::proxy host=192.0.2.7
near:{PLAIN}x::::::allow_nets=127.0.0.1/32,2001:db8::1/128
evil:{PLAIN}x::::::user=../evil
"""


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # a path of pytest's own is too long for a socket
        yield Path(folder)


@pytest.fixture
def dovecot(root: Path) -> Iterator[Authentication]:
    made = Authentication(root / "auth", USERS)
    made.start()
    yield made
    made.end()


@asynccontextmanager
async def asking(dovecot: Authentication, **options) -> AsyncIterator[DovecotUsers]:
    users = DovecotUsers(dovecot.client, dovecot.userdb, **{"seconds_max": 20, **options})
    try:
        yield users
    finally:
        await users.close()


async def let_in(users: DovecotUsers, name: str, secret: bytes, address: str = "127.0.0.1") -> str | None:
    """What the user is called, or why it may not log in; None: it is refused."""
    account = await users.authenticate(Password(name, "", secret), source_of(address))
    return account and (account.forbidden or account.name)


async def test_passwords_of_the_first_and_of_the_second_passdb(dovecot: Authentication) -> None:
    async with asking(dovecot) as users:
        for name, secret, expected in [
            ("alice", b"wonder", "alice"),
            ("alice", b"shared", "alice"),  # by the second one
            ("bob", b"shared", "bob"),
            ("alice", b"Wonder", None),
            ("bob", b"wonder", None),
            ("ALICE", b"wonder", "alice"),  # as Dovecot spells it
            ("ünal", "pass wörd=,".encode(), "ünal"),
            ("spaced name", b"x", "spaced"),
            ("alias", b"x", "real"),
            ("alice", b"", None),
            ("alice", b"wonder\0", None),
            ("alice\0", b"wonder", None),
            ("alice\tuser=bob\n", b"wonder", None),
            ("", b"shared", None),
            ("a" * 256, b"shared", None),
            ("alice", b"x" * 1025, None),
        ]:
            assert await let_in(users, name, secret) == expected, (name, secret)
        account = await users.authenticate(Password("alice", "bob", b"wonder"))
        assert account is None  # nobody acts as somebody else
        assert await users.authenticate(Verified("alice", "", "EXTERNAL")) is None


async def test_what_dovecot_forbids(dovecot: Authentication) -> None:
    async with asking(dovecot) as users:
        assert await let_in(users, "locked", b"x") == "Dovecot says nologin: Gone_away"
        assert await let_in(users, "moved", b"x") == "Dovecot says proxy: the mailbox is on another server, 192.0.2.7"
        assert await let_in(users, "locked", b"y") is None
        with pytest.raises(AuthUnavailable, match=r"Dovecot calls a user '../evil'"):
            await let_in(users, "evil", b"x")
        for address, expected in [
            ("127.0.0.1", "near"),
            ("::ffff:127.0.0.1", "near"),
            ("127.0.0.2", None),
            ("2001:db8::1", "near"),
            ("2001:db8::2", None),  # of the same /64
            ("nowhere", None),
        ]:
            assert await let_in(users, "near", b"x", address) == expected, address


async def test_two_hundred_logins_at_once(dovecot: Authentication) -> None:
    async with asking(dovecot) as users, asyncio.timeout(60):
        answers = await asyncio.gather(
            *(let_in(users, f"user{n}", b"shared" if n % 2 else b"wrong", f"192.0.2.{n % 7}") for n in range(200))
        )
    assert answers == [f"user{n}" if n % 2 else None for n in range(200)]


async def test_penalties_of_dovecot_do_not_add_to_ours(dovecot: Authentication) -> None:
    """Its own would make a right password wait for seconds behind ten wrong ones of the address."""
    async with asking(dovecot) as users:
        for _ in range(10):
            assert await let_in(users, "alice", b"wrong", "192.0.2.1") is None
        async with asyncio.timeout(10):  # of its 15 s
            assert await let_in(users, "alice", b"wonder", "192.0.2.1") == "alice"


async def test_it_dies_in_the_middle(root: Path) -> None:
    dovecot = Authentication(root / "auth", USERS, delay="60 secs")
    dovecot.start()
    try:
        async with asking(dovecot) as users, asyncio.timeout(60):
            assert await let_in(users, "alice", b"wonder") == "alice"
            waits = asyncio.create_task(let_in(users, "bob", b"wrong"))  # it would be told in a minute
            assert await let_in(users, "alice", b"wonder") == "alice"  # and nobody waits for that
            dovecot.kill_process()
            with pytest.raises(AuthUnavailable, match="did not answer"):
                await waits
            assert await let_in(users, "alice", b"wonder") == "alice"  # by a new process
            dovecot.end()
            for _ in range(3):
                with pytest.raises(AuthUnavailable, match=r"start Dovecot|Broken pipe|was closed"):
                    await let_in(users, "alice", b"wonder")
            dovecot.start()
            assert await let_in(users, "alice", b"wonder") == "alice"
    finally:
        dovecot.end()


async def test_it_stands_still(dovecot: Authentication) -> None:
    async with asking(dovecot, seconds_max=2) as users:
        assert await let_in(users, "alice", b"wonder") == "alice"
        dovecot.kill_process(signal.SIGSTOP)
        try:
            for words in ("did not answer in 2 s", "it takes connections, and says nothing"):
                with pytest.raises(AuthUnavailable, match=words):
                    await let_in(users, "alice", b"wonder")
        finally:
            dovecot.kill_process(signal.SIGCONT)
        assert await let_in(users, "alice", b"wonder") == "alice"


@pytest.mark.parametrize("how", ["after a while", "SIGHUP"])
async def test_a_reload_of_dovecot_is_seen_soon(
    dovecot: Authentication, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process from before the reload goes on for its clients; so a connection is not kept for ever."""
    async with asking(dovecot) as users:
        assert await let_in(users, "bob", b"shared") == "bob"
        text = (dovecot.root / "dovecot.conf").read_text()
        (dovecot.root / "dovecot.conf").write_text(text.replace("password=shared", "password=other"))
        dovecot.reload()
        if how == "after a while":
            monkeypatch.setattr("pop3d.auth.dovecot_socket._AGE_MAX", 0.0)
        told: str | None = ""
        async with asyncio.timeout(20):
            while told is not None:
                await asyncio.sleep(0.05)
                if how == "SIGHUP":
                    await users.reload()
                with suppress(AuthUnavailable):  # a reload makes its sockets anew
                    told = await let_in(users, "bob", b"shared")
        assert await let_in(users, "bob", b"other") == "bob"
        answers = await asyncio.gather(*(let_in(users, "bob", b"other") for _ in range(20)))
        assert answers == ["bob"] * 20


async def test_homes_and_who_there_is(dovecot: Authentication) -> None:
    async with asking(dovecot, homes=True) as users:
        account = await users.authenticate(Password("alice", "", b"wonder"), "127.0.0.1")
        assert account is not None
        assert account.home == f"{dovecot.root}/home/alice"
        found = await users.account("Bob")
        assert found is not None
        assert (found.name, found.home) == ("bob", f"{dovecot.root}/home/bob")
        for name in ("a b", "../x", "", "a\tb\n"):
            assert await users.account(name) is None
    async with asking(dovecot) as users:
        account = await users.authenticate(Password("alice", "", b"wonder"), "127.0.0.1")
        assert account is not None
        assert account.home is None  # which nothing needs


async def test_a_passdb_that_does_not_work_is_no_failed_login(root: Path) -> None:
    passdbs = "passdb {{\n  driver = checkpassword\n  args = {root}/program\n}}\n"
    dovecot = Authentication(root / "auth", passdbs=passdbs)
    (dovecot.root / "program").write_text("#!/bin/sh\nexit 111\n")  # of checkpassword's: a temporary fault
    (dovecot.root / "program").chmod(0o755)
    dovecot.start()
    try:
        async with asking(dovecot) as users:
            with pytest.raises(AuthUnavailable, match=r"cannot tell \(temp_fail\)"):
                await let_in(users, "alice", b"x")
    finally:
        dovecot.end()


async def test_a_mechanism_that_dovecot_does_not_offer(dovecot: Authentication) -> None:
    async with asking(dovecot) as users:
        with pytest.raises(AuthUnavailable, match="does not offer XOAUTH2: add it to its `auth_mechanisms`"):
            await users.authenticate(Token("alice", "XOAUTH2", b"token"))
        troubles = [text async for text in users.troubles(["plain", "login", "xoauth2"])]
    assert troubles == ["Dovecot offers LOGIN, PLAIN at its socket, and not XOAUTH2; add it to its `auth_mechanisms`"]


TOKENS = """
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {root}/oauth2.conf
}}
"""


async def test_tokens_are_passed_on(root: Path) -> None:
    """To a Dovecot that checks them with a key that it shares with the issuer."""
    joserfc = pytest.importorskip("joserfc.jwt", reason="joserfc is missing: pip install 'pop3core[oauth]'")
    from joserfc.jwk import OctKey

    dovecot = Authentication(root / "auth", mechanisms="plain xoauth2 oauthbearer", passdbs=TOKENS)
    keys = dovecot.root / "keys/default/HS256"
    keys.mkdir(parents=True)
    secret = b"0123456789abcdef0123456789abcdef"
    (keys / "default").write_bytes(base64.b64encode(secret))
    (dovecot.root / "oauth2.conf").write_text(
        f"introspection_mode = local\nusername_attribute = sub\n"
        f"local_validation_key_dict = fs:posix:prefix={dovecot.root}/keys/\n"
    )
    now = int(time.time())
    claims = {"sub": "alice", "iat": now, "exp": now + 600}
    token = joserfc.encode({"alg": "HS256"}, claims, OctKey.import_key(secret)).encode()
    dovecot.start()
    try:
        async with asking(dovecot) as users:
            for mechanism in ("XOAUTH2", "OAUTHBEARER"):
                account = await users.authenticate(Token("alice", mechanism, token), "127.0.0.1")
                assert account is not None
                assert account.name == "alice"
                for name, other in (("bob", token), ("alice", token[:-4] + b"AAAA"), ("alice", b"x")):
                    assert await users.authenticate(Token(name, mechanism, other), "127.0.0.1") is None
    finally:
        dovecot.end()


# --- the daemon ---


def site_of(dovecot: Authentication, *, path: str = "mail/{user}", auth: str = "") -> Site:
    """A site that asks this Dovecot, whose daemon is nobody."""
    root = dovecot.root.parent
    create_self_signed(["localhost"], root)
    shutil.chown(root / "key.pem", "root", "nogroup")
    (root / "key.pem").chmod(0o640)
    site = Site(root, free_port())
    site.config.write_text(
        f'hostname = "localhost"\nuser = "nobody"\ngroup = "nogroup"\n'
        f'[[listen]]\nhost = "127.0.0.1"\nport = {site.port}\n'
        '[tls]\ncertificate = "cert.pem"\nprivate_key = "key.pem"\n'
        f'[auth]\nbackend = "dovecot"\n{auth}\n'
        f'[auth.dovecot]\nsocket = "auth/sockets/auth-pop3d"\nuserdb_socket = "auth/sockets/auth-pop3d-userdb"\n'
        f'[store]\npath = "{path}"\n[limits]\nauth_penalty = 0\n'
    )
    return site


@pytest.fixture
def of_user(root: Path) -> Iterator[Authentication]:
    """A Dovecot that nobody may ask, the user of that name."""
    made = Authentication(root / "auth", USERS, user="nobody")
    made.start()
    yield made
    made.end()


def log_in(site: Site, name: str, secret: str) -> str:
    """What is said to PASS."""
    client = poplib.POP3_SSL("localhost", site.port, context=site.context(), timeout=30)
    try:
        client.user(name)
        return client.pass_(secret).decode()
    except poplib.error_proto as refusal:
        return str(refusal.args[0].decode())
    finally:
        client.close()


def test_a_daemon_that_asks_dovecot(of_user: Authentication) -> None:
    site = site_of(of_user)
    wrong = "-ERR [AUTH] wrong user name or password"
    daemon = Daemon(site)
    try:
        assert log_in(site, "Alice", "wonder").startswith("+OK 0 ")
        assert log_in(site, "bob", "shared").startswith("+OK 0 ")
        assert {log_in(site, *one) for one in [("alice", "x"), ("locked", "x"), ("moved", "x")]} == {wrong}
        of_user.end()
        assert log_in(site, "alice", "wonder").startswith("-ERR [SYS/TEMP] logins cannot be checked now")
        assert log_in(site, "alice", "wrong").startswith("-ERR [SYS/TEMP] logins cannot be checked now")
        of_user.start()
        assert log_in(site, "alice", "wonder").startswith("+OK 0 ")
    finally:
        assert daemon.end() == 0
    assert "user=alice " in daemon.log
    assert 'user=locked reason="Dovecot says nologin: Gone_away"' in daemon.log
    assert "another server, 192.0.2.7" in daemon.log
    assert daemon.log.count("a login could not be checked: Dovecot ") == 2
    assert daemon.log.count("authentication failed") == 3
    assert "wonder" not in daemon.log


def test_a_login_is_tried_by_dovecot(of_user: Authentication, run_pop3d) -> None:
    site = site_of(of_user)
    words = ("user", "test", "--password-stdin", "--config", str(site.config))
    done = run_pop3d(*words, "alice", stdin="wonder\n")
    assert done.returncode == 0, done.stdout + done.stderr
    done = run_pop3d(*words, "locked", stdin="x\n")
    assert done.returncode == 77
    done = run_pop3d(*words, "alice", stdin="wrong\n")
    assert done.returncode == 77
    assert "failed\tpassword\trefused" in done.stdout


def test_mail_is_delivered_to_whom_the_userdb_knows(of_user: Authentication, run_pop3d) -> None:
    site = site_of(of_user, path="{home}/Maildir")
    home = of_user.root / "home"
    shutil.chown(home, "nobody", "nogroup")
    done = run_pop3d("deliver", "Alice", "--config", str(site.config), stdin="Subject: 1\n\n1\n")
    assert done.returncode == 0, done.stderr
    assert len(list((home / "alice/Maildir/new").iterdir())) == 1
    daemon = Daemon(site)
    try:
        assert log_in(site, "alice", "wonder").startswith("+OK 1 ")
    finally:
        assert daemon.end() == 0
    assert run_pop3d("deliver", "../x", "--config", str(site.config), stdin="").returncode == 67
    of_user.end()
    done = run_pop3d("deliver", "alice", "--config", str(site.config), stdin="Subject: 1\n\n1\n")
    assert done.returncode == 75


def test_check_says_what_keeps_dovecot_from_being_asked(of_user: Authentication) -> None:
    site = site_of(of_user, auth='mechanisms = ["plain", "xoauth2"]')
    (site.root / "mail").mkdir()
    shutil.chown(site.root / "mail", "nobody", "nogroup")
    lines = checked(site)
    assert lines[0].startswith("fault: [auth.dovecot]: Dovecot offers LOGIN, PLAIN at its socket, and not XOAUTH2; add")
    assert len(lines) == 2
    os.chown(of_user.client, 0, 0)
    lines = checked(site)
    assert (
        "sockets/auth-pop3d: Permission denied; give this unix_listener in Dovecot's `service auth` a user and"
        in lines[0]
    )
    shutil.chown(of_user.client, "nobody")
    of_user.end()
    lines = checked(site)
    assert [("start Dovecot, with this unix_listener" in line) for line in lines] == [True, True, False]


def test_a_folder_of_sockets_that_others_can_write_to(of_user: Authentication, run_pop3d) -> None:
    """Who could put a socket of his own there would be told passwords."""
    site = site_of(of_user)
    of_user.client.parent.chmod(0o777)
    done = run_pop3d("serve", "--config", str(site.config))
    assert done.returncode == 78
    assert "`auth.dovecot`: " in done.stderr
    assert "everybody can write to it" in done.stderr


@pytest.mark.parametrize(
    ("auth", "more", "words"),
    [
        ('mechanisms = ["scram-sha-256"]', "", "cannot serve scram-sha-256; "),
        ('mechanisms = ["apop"]', "", "cannot serve apop; "),
        ('mechanisms = ["plain", "external"]', "", "cannot serve external; "),
        ("", "[auth.dovecot]\nsockt = 'x'\n", "did you mean `socket`?"),
        ("", "[auth.dovecot]\ntimeout = 0\n", "`auth.dovecot.timeout`"),
        ("", '[store]\npath = "{home}/Maildir"\n', "set `userdb_socket` in [auth.dovecot]"),
        (
            'mechanisms = ["xoauth2"]',
            '[auth.oauth]\nissuer = "i"\naudience = "a"\njwks = "keys"\n',
            "tokens are checked by Dovecot; remove [auth.oauth]",
        ),
    ],
)
def test_faults_of_the_configuration(tmp_path: Path, auth: str, more: str, words: str) -> None:
    file = tmp_path / "pop3d.toml"
    file.write_text(f'[[listen]]\ntls = "none"\nhost = "127.0.0.1"\n[auth]\nbackend = "dovecot"\n{auth}\n{more}')
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert words in str(caught.value)


def test_paths_of_sockets_are_relative_to_the_file(tmp_path: Path) -> None:
    file = tmp_path / "pop3d.toml"
    file.write_text(
        '[[listen]]\ntls = "none"\nhost = "127.0.0.1"\n[auth]\nbackend = "dovecot"\n'
        '[auth.dovecot]\nsocket = "sockets/client"\n'
    )
    asked = load(file).auth.dovecot
    assert asked is not None
    assert (asked.socket, asked.userdb_socket) == (tmp_path / "sockets/client", None)
