"""PAM as it is: services of this machine with its own modules, written for the test and removed. Root only."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pop3cli.errors import LoginRefused, TryLater
from pop3cli.net.session import Session
from pop3cli.net.tls import client_context
from pop3core.events import Password, Token, Verified
from pop3core.sasl.oauth import bearer_client
from pop3d.assembly import assemble
from pop3d.auth import Account, AuthError, AuthUnavailable
from pop3d.auth.pam import _KEPT, _TOGETHER, WORKER, PamUsers
from pop3d.config import Config
from pop3d.extras import install_line
from tests.issuer import AUDIENCE, NAME, key_set, token
from tests.site import Daemon, Site

PLACE = Path("/etc/pam.d")
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not PLACE.is_dir(), reason="writes services for PAM: run as root, with libpam0g there"
)

CHECKER = """#!/bin/sh
# what pam_exec runs: the password comes with a NUL behind it
password=$(tr -d '\\000')
[ "$PAM_USER:$password" = "alice:s e c" ] || [ "$PAM_USER:$password" = "bob@example.org:pässwörd" ]
"""


@pytest.fixture
def service() -> Iterator[Callable[..., str]]:
    """Writes a service; its name."""
    written: list[Path] = []

    def write(auth: str, account: str = "required pam_permit.so") -> str:
        path = PLACE / f"pop3d-test-{os.getpid()}-{len(written)}"
        written.append(path)
        path.write_text(f"auth {auth}\naccount {account}\n")
        return path.name

    yield write
    for path in written:
        path.unlink()


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    """Writes a program; the line of a service that runs it as pam_exec does."""

    def write(text: str) -> str:
        path = tmp_path / "checker"
        path.write_text(text)
        path.chmod(0o755)
        return f"required pam_exec.so expose_authtok quiet {path}"

    return write


@contextlib.asynccontextmanager
async def asking(name: str, **others: float):
    users = PamUsers(name, **others)
    try:
        yield users
    finally:
        await users.close()


async def test_pam_lets_in_who_has_the_password_and_nobody_else(
    service: Callable[..., str], script: Callable[[str], str]
) -> None:
    async with asking(service(script(CHECKER))) as users:
        for name, password in (("alice", "s e c"), ("bob@example.org", "pässwörd")):
            assert await users.authenticate(Password(name, "", password.encode())) == Account(name)
            assert await users.authenticate(Password(name, name, password.encode())) == Account(name)
            for wrong in ("", "s e", "s e c ", "S E C", "x" * 1000, "s e c\0", "s e c\0x", "\n", "s e c:"):
                assert await users.authenticate(Password(name, "", wrong.encode())) is None
            assert await users.authenticate(Password(name, "carol", password.encode())) is None
        assert await users.authenticate(Password("bob@example.org", "", "pässwörd".encode("latin-1"))) is None
        assert await users.authenticate(Password("carol", "", b"s e c")) is None
        assert len(users._workers) == 1
        await users.reload()


@pytest.mark.parametrize(
    ("auth", "account", "good"),
    [
        ("required pam_permit.so", "required pam_permit.so", True),
        ("required pam_deny.so", "required pam_permit.so", False),
        ("required pam_permit.so", "required pam_deny.so", False),
        ("required pam_permit.so", "required pam_nowhere.so", False),
        ("required pam_nowhere.so", "required pam_permit.so", False),
    ],
)
async def test_both_phases_of_pam_must_agree(service: Callable[..., str], auth: str, account: str, good: bool) -> None:
    async with asking(service(auth, account)) as users:
        assert (await users.authenticate(Password("alice", "", b"x")) is not None) is good


@pytest.mark.parametrize("phase", ["auth", "account"])
async def test_pam_is_told_where_from(service, script, tmp_path: Path, phase: str) -> None:
    told = tmp_path / "told"
    line = script(f'#!/bin/sh\necho "$PAM_TYPE=$PAM_RHOST" >>{told}\n')
    others = "required pam_permit.so"
    name = service(line, others) if phase == "auth" else service(others, line.replace("expose_authtok ", ""))
    sources = {"192.0.2.7": "192.0.2.7", "2001:db8::/64": "2001:db8::", "": "", "192.0.2.8": "192.0.2.8"}
    async with asking(name) as users:
        for source in sources:  # of one process, each by itself
            assert await users.authenticate(Password("alice", "", b"x"), source) == Account("alice")
        assert len(users._workers) == 1
    assert told.read_text().splitlines() == [f"{phase}={host}" for host in sources.values()]


async def test_pam_is_not_asked_about_invalid_names_and_empty_passwords(service: Callable[..., str]) -> None:
    async with asking(service("required pam_permit.so")) as users:
        for name in ("", "../alice", "a b", "a:b", "a/b", ".a", "x" * 300, "a\nb"):
            assert await users.authenticate(Password(name, "", b"x")) is None
        assert await users.authenticate(Password("alice", "", b"")) is None
        assert await users.authenticate(Token("alice", "XOAUTH2", b"x")) is None
        assert await users.authenticate(Verified("alice", "bob", "XOAUTH2")) is None
        assert await users.authenticate(Password("alice", "", b"x" * 512)) is None
        assert not users._workers


async def test_a_service_that_is_not_there_lets_nobody_in() -> None:
    async with asking(f"pop3d-nowhere-{os.getpid()}") as users:
        assert await users.authenticate(Password("alice", "", b"x")) is None


async def test_who_proved_himself_elsewhere_still_has_to_be_let_in(service: Callable[..., str]) -> None:
    async with asking(service("required pam_deny.so")) as users:
        assert await users.authenticate(Verified("alice", "", "XOAUTH2")) == Account("alice")
        assert await users.authenticate(Password("alice", "", b"x")) is None
        assert await users.authenticate(Verified("../alice", "", "XOAUTH2")) is None
        assert len(users._workers) == 1
    async with asking(service("required pam_permit.so", "required pam_deny.so")) as users:
        assert await users.authenticate(Verified("alice", "", "XOAUTH2")) is None
    async with asking(service("required pam_permit.so", "required pam_debug.so acct=authinfo_unavail")) as users:
        with pytest.raises(AuthUnavailable):
            await users.authenticate(Verified("alice", "", "XOAUTH2"))


SHADOWED = """
mount --make-rprivate /
mount --bind {folder}/passwd /etc/passwd
mount --bind {folder}/shadow /etc/shadow
exec {python} -P {worker} {service}
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="hides /etc/shadow behind another: install util-linux")
def test_the_machines_own_passwords(service: Callable[..., str], tmp_path: Path) -> None:
    name = service("required pam_unix.so nullok", "required pam_unix.so")
    stored = (  # "s e c"
        "$6$saltsalt$8Ku78eH6t7YFk034XmO0St4yA0Z3KDJakPNut/b3xp6YvPzoAt1Gw2/Gl8NaI3EOC.gEoDPPmqEbbETIi.BHZ/"
    )
    shadow = {"alice": stored, "empty": "", "locked": f"!{stored}", "old": stored}
    passwd = [f"{user}:x:{4000 + n}:4000::/nonexistent:/bin/false" for n, user in enumerate(shadow)]
    (tmp_path / "passwd").write_text(Path("/etc/passwd").read_text() + "\n".join(passwd) + "\n")
    lines = [f"{user}:{secret}:19000:0:99999:7::{'1' if user == 'old' else ''}:" for user, secret in shadow.items()]
    (tmp_path / "shadow").write_text("\n".join(lines) + "\n")
    script = SHADOWED.format(folder=tmp_path, python=sys.executable, worker=WORKER, service=name)
    good = [("login", "alice", "s e c"), ("account", "alice", ""), ("account", "empty", "")]
    bad = [("login", user, "s e c") for user in ("empty", "locked", "old", "nobody-at-all")]
    bad += [("login", "alice", "s e c "), ("login", "empty", "x")]
    bad += [("account", user, "") for user in ("old", "nobody-at-all")]
    text = "".join(f"{what}:{user.encode().hex()}:{secret.encode().hex()}:\n" for what, user, secret in good + bad)
    done = subprocess.run(
        ["unshare", "-m", "sh", "-ec", script], input=text, capture_output=True, text=True, timeout=60
    )
    if done.returncode == 32 or "unshare failed" in done.stderr:
        pytest.skip(f"no file can be mounted here: {done.stderr}")
    answers = [line.split(" ")[0] == "0" for line in done.stdout.splitlines()]
    assert answers == [True] * len(good) + [False] * len(bad), (done.stdout, done.stderr)


async def test_many_at_once(service: Callable[..., str], script: Callable[[str], str]) -> None:
    async with asking(service(script(CHECKER))) as users:
        questions = [Password("alice", "", b"s e c" if n % 2 else b"wrong") for n in range(2 * _TOGETHER + 4)]
        answers = await asyncio.gather(*(users.authenticate(question) for question in questions))
        assert [answer is not None for answer in answers] == [n % 2 == 1 for n in range(len(questions))]
        assert len(users._workers) == len(users._idle) <= _KEPT


async def test_a_source_that_is_down_refuses_for_now(service: Callable[..., str]) -> None:
    # pam_debug answers what it is told to: here what pam_ldap and pam_sss say when their server is gone
    async with asking(service("required pam_debug.so auth=authinfo_unavail")) as users:
        with pytest.raises(AuthUnavailable, match="PAM cannot tell: Authentication service cannot retrieve"):
            await users.authenticate(Password("alice", "", b"x"))
    async with asking(service("required pam_debug.so auth=system_err")) as users:  # a wrong password, by pam_exec
        assert await users.authenticate(Password("alice", "", b"x")) is None
    async with asking(service("required pam_permit.so", "required pam_debug.so acct=new_authtok_reqd")) as users:
        assert await users.authenticate(Password("alice", "", b"x")) is None


async def test_a_module_that_hangs_is_given_up(service, script, tmp_path: Path) -> None:
    hangs = f"echo $$ > {tmp_path}/pid\nexec sleep 60\n"
    name = service(script("#!/bin/sh\n" + hangs))
    async with asking(name, seconds_max=1) as users:
        with pytest.raises(AuthUnavailable, match="PAM did not answer in 1 s"):
            await users.authenticate(Password("alice", "", b"s e c"))
        assert not users._workers
        with contextlib.suppress(ProcessLookupError):  # pam_exec takes its program out of our reach
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    script(CHECKER)
    async with asking(name) as users:
        assert await users.authenticate(Password("alice", "", b"s e c")) is not None


async def test_a_module_that_crashes_takes_nothing_with_it(service, script) -> None:
    async with asking(service(script("#!/bin/sh\nkill -KILL $PPID\n"))) as users:
        with pytest.raises(AuthUnavailable, match="the process that asks PAM ended"):
            await users.authenticate(Password("alice", "", b"s e c"))
        script(CHECKER)
        assert await users.authenticate(Password("alice", "", b"s e c")) is not None
        (worker,) = users._idle
        worker.process.kill()
        await worker.process.wait()
        with pytest.raises(AuthUnavailable, match="ended"):
            await users.authenticate(Password("alice", "", b"s e c"))
        assert await users.authenticate(Password("alice", "", b"s e c")) is not None


async def test_who_gives_up_takes_no_place(service, script) -> None:
    async with asking(service(script("#!/bin/sh\nexec sleep 5\n"))) as users:
        asked = asyncio.ensure_future(users.authenticate(Password("alice", "", b"x")))
        while not users._workers:
            await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert not users._workers
        assert users._turns._free == _TOGETHER


def test_the_extra_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pam", None)
    monkeypatch.delitem(sys.modules, "pop3d.auth.pam")
    listen = {"host": "127.0.0.1", "tls": "none"}
    config = Config.model_validate({"state": tmp_path / "state", "listen": [listen], "auth": {"backend": "pam"}})
    with pytest.raises(AuthError, match=re.escape(f"needs the Python module pam: {install_line('pam')}")):
        assemble(config)


# --- the daemon ---


def configure(site: Site, name: str, mechanisms: str = "") -> None:
    auth = f'backend = "pam"\n{mechanisms}\n[auth.pam]\nservice = "{name}"\n[limits]\nauth_penalty = 0'
    site.config.write_text(site.config.read_text().replace('users = "users"', auth))


async def log_in(site: Site, user: str, password: str) -> int:
    async with Session() as session, asyncio.timeout(30):
        await session.connect("127.0.0.1", site.port, tls=client_context(site.certificate), implicit=True, timeout=10)
        await session.login(user, password)
        found = (await session.stat()).messages
        await session.quit()
        return found


async def test_the_daemon_and_its_log(site: Site, service, script) -> None:
    site.maildir("alice", {"new/1.host": b"Subject: x\n\nhello\n"})
    configure(site, service(script(CHECKER)))
    daemon = await asyncio.to_thread(Daemon, site)
    try:
        assert await log_in(site, "alice", "s e c") == 1
        assert await log_in(site, "bob@example.org", "pässwörd") == 0
        with pytest.raises(LoginRefused):
            await log_in(site, "alice", "other-password")
        script("#!/bin/sh\nkill -KILL $PPID\n")
        with pytest.raises(TryLater, match="cannot be checked now"):
            await log_in(site, "alice", "s e c")
    finally:
        assert await asyncio.to_thread(daemon.end) == 0
    assert "PAM refused 'alice': " in daemon.log
    assert "the process that asks PAM ended" in daemon.log
    assert "Traceback" not in daemon.log
    for secret in ("s e c", "pässwörd", "other-password", b"other-password".hex()):
        assert secret not in daemon.log


async def test_tokens_are_checked_beside_pam(site: Site, service) -> None:
    site.maildir("alice", {"new/1.host": b"Subject: x\n\nhello\n"})
    (site.root / "keys.json").write_text(json.dumps(key_set()))
    tokens = f'[auth.oauth]\nissuer = "{NAME}"\naudience = "{AUDIENCE}"\njwks = "keys.json"'
    name = service("required pam_permit.so")
    configure(site, name, f'mechanisms = ["plain", "oauthbearer"]\n{tokens}')

    async def show(token: str) -> None:
        async with Session() as session, asyncio.timeout(30):
            tls = client_context(site.certificate)
            await session.connect("127.0.0.1", site.port, tls=tls, implicit=True, timeout=10)
            assert (await session.capa())["SASL"] == ("PLAIN", "OAUTHBEARER")
            await session.authenticate("OAUTHBEARER", bearer_client("alice", token))
            await session.quit()

    daemon = await asyncio.to_thread(Daemon, site)
    try:
        assert await log_in(site, "alice", "s e c") == 1
        await show(token())
        with pytest.raises(LoginRefused):
            await show(token(email="bob"))
        (PLACE / name).write_text("auth required pam_permit.so\naccount required pam_deny.so\n")
        with pytest.raises(LoginRefused):  # who may not log in may not with a token either
            await show(token())
    finally:
        assert await asyncio.to_thread(daemon.end) == 0
    assert "token of 'alice' refused: its user has no mailbox here" in daemon.log
