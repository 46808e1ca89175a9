"""Secrets that other programs made: read, checked off the event loop, and bounded."""

import asyncio
import base64
import hashlib
import multiprocessing
import multiprocessing.spawn
import os
import poplib
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pop3core.events import Password
from pop3d.auth import Account, AuthUnavailable
from pop3d.auth import hashing as hashing_module
from pop3d.auth.hashing import Hashing, variants
from pop3d.auth.passwords import PASSWORD_OCTETS_MAX, UnknownScheme, cost_of, hashed, matches, parse_secret
from pop3d.auth.users_file import UsersFile
from tests.site import Daemon, Site

# of "secret", with the program that made each
MADE_ELSEWHERE = [
    # doveadm pw, Dovecot 2.3.19
    "{SSHA512}gi8K2T0988twGgL/Dx9qCJB1q1WVUBVOWekiwnytYq7NcR1IWk5ZK78K+Oe4MZJlALN7eqjb27yM6rEw4fFaSVMD57Y=",
    "{SSHA256.HEX}d0d05fca5357b518ecc2e4571c55d0a01412ec1abf71c0fbbe73a0295b68b30e0c37a48a",
    "{SSHA256.b64}4L5MpnqwsFiEM0rldXnlMJDmTHZcTeahs+a24IbuutohFO9+",
    "{BLF-CRYPT}$2y$05$LvpXYbE7icwcx0I4wh3rQO3/zekjr.JyNQwgnyR9GZd6FbjstUQ82",
    "{SHA512-CRYPT}$6$Q/zyw4lgnOwg84jW$eMsd9Pv9AVmEziVen6EOvDnFVCIvNS2jjpy0ELJ07kS2DM1/V8o/lprxHVxJMkm7/rqqXD/EvUZycPhpFBJQm.",
    # openssl passwd, OpenSSL 3.0
    "{sha512-crypt}$6$abc$IdWKNKTJEb8LxY7CGg8YBXlvtfZzFw7Mp/r6niK9YB2mdvgY..TKjv1T..8RadRt2qvUHYRLr/TsVArtr91iR1",
    "{SHA256-CRYPT}$5$rounds=1000$abc$Mz4DiYKTnNKbZLo/mIp3d8Y4aQBhv3uhSwxLDy55/Y8",
]  # fmt: skip
SHA512 = MADE_ELSEWHERE[5]
SLOW = "{SHA512-CRYPT}$6$rounds=1000000$abc$" + "a" * 86


def crypted(password: str) -> str:
    """Of `password`, by OpenSSL where it is there."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    made = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"], input=f"{password}\n", capture_output=True, text=True, check=True
    )
    return "{SHA512-CRYPT}" + made.stdout.strip()


@pytest.mark.parametrize("text", MADE_ELSEWHERE, ids=lambda text: text[: text.index("}") + 4])
def test_secrets_of_other_programs(text: str) -> None:
    stored = parse_secret(text)
    assert matches(stored, b"secret")
    for wrong in (b"", b"Secret", b"secret ", b"secret\0", b"\xff", b"x" * 2000, text.encode()):
        assert not matches(stored, wrong), wrong
    assert text[-10:] not in repr(stored)


@pytest.mark.parametrize("scheme", ["SSHA256", "SSHA512", "SSHA512.HEX", "SSHA256.B64", "SHA256-CRYPT", "SHA512-CRYPT",
                                    "BLF-CRYPT", "SCRAM-SHA-256", "ARGON2ID", "PLAIN"])  # fmt: skip
@pytest.mark.parametrize("password", ["secret", "pässwörd €", " s e c ", "x" * 72])
def test_secrets_that_dovecot_makes(scheme: str, password: str) -> None:
    doveadm = shutil.which("doveadm")
    if doveadm is None:
        pytest.skip("needs Debian's dovecot-core (doveadm)")
    made = subprocess.run(
        [doveadm, "-c", "/dev/null", "pw", "-s", scheme, "-p", password], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"doveadm does not: {made.stderr}")
    stored = parse_secret(made.stdout.removesuffix("\n"))
    assert matches(stored, password.encode())
    assert not matches(stored, b"y" + password.encode())
    assert matches(stored, password.encode() + b"x") == (scheme == "BLF-CRYPT" and len(password) == 72)


@pytest.mark.parametrize("option", ["-5", "-6"])
@pytest.mark.parametrize("password", ["secret", "pässwörd €", "x" * 200])
def test_secrets_that_openssl_makes(option: str, password: str) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    command = ["openssl", "passwd", option, "-salt", "ab./XY09", "-stdin"]
    made = subprocess.run(command, input=f"{password}\n", capture_output=True, text=True, check=True).stdout.strip()
    stored = parse_secret(("{SHA256-CRYPT}" if option == "-5" else "{SHA512-CRYPT}") + made)
    assert matches(stored, password.encode())
    assert not matches(stored, password.encode() + b"x")


def test_bcrypt_looks_at_72_octets_as_it_always_has() -> None:
    import bcrypt

    stored = parse_secret("{BLF-CRYPT}" + bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode())
    assert matches(stored, b"x" * 72)
    assert matches(stored, b"x" * 100)
    assert not matches(stored, b"x" * 71)


def test_a_hash_that_is_faulty_behind_its_parameters_matches_nothing() -> None:
    assert not matches(parse_secret("{ARGON2ID}$argon2id$v=19$m=8,t=1,p=1$c2FsdA$x"), b"x")
    assert not matches(parse_secret("{BLF-CRYPT}$2y$04$LvpXYbE7icwcx0I4wh3rQz" + "a" * 31), b"x")
    assert not matches(parse_secret(hashed("x", "SCRAM-SHA-256")), b"x\x07")
    with pytest.raises(UnknownScheme, match="cannot be used with SCRAM"):
        hashed("x\x07", "SCRAM-SHA-256")
    assert not matches(parse_secret("{PLAIN}" + "x" * 2000), b"x" * (PASSWORD_OCTETS_MAX + 1))


# --- text in Latin-1 ---


@pytest.mark.parametrize(
    ("sent", "tried"),
    [
        (b"plain", [b"plain"]),
        ("é".encode(), ["é".encode(), b"\xe9"]),
        (b"\xe9", [b"\xe9", "é".encode()]),
        ("€".encode(), ["€".encode()]),  # not in Latin-1
    ],
)
def test_variants(sent: bytes, tried: list[bytes]) -> None:
    assert list(variants(sent, latin1=True)) == tried
    assert variants(sent, latin1=False) == (sent,)


async def test_latin1_passwords(tmp_path: Path) -> None:
    def salted(password: bytes) -> str:
        return "{SSHA256}" + base64.b64encode(hashlib.sha256(password + b"salt").digest() + b"salt").decode()

    path = tmp_path / "users"
    old, new = b"\xe9", "é".encode()
    path.write_text(f"new:{salted(new)}\nold:{salted(old)}\nclear:{{PLAIN}}é\n")
    strict, lenient = UsersFile(path), UsersFile(path, latin1_passwords=True)
    for name, stored in (("new", new), ("old", old), ("clear", new)):
        for sent in (old, new):
            assert await strict.authenticate(Password(name, "", sent)) == (Account(name) if sent == stored else None)
            assert await lenient.authenticate(Password(name, "", sent)) == Account(name)
        assert await lenient.authenticate(Password(name, "", "è".encode())) is None
    await strict.close()
    await lenient.close()


# --- where they are checked ---


@pytest.fixture
def hashing() -> Iterator[Hashing]:
    made = Hashing()
    yield made
    made.close()
    for worker in multiprocessing.active_children():
        worker.join(20)


async def test_what_holds_the_lock_runs_in_a_process(hashing: Hashing) -> None:
    stored = parse_secret(SHA512)
    assert await hashing.matches(stored, (b"x", b"secret"))
    assert not await hashing.matches(stored, (b"x",))
    workers = multiprocessing.active_children()
    assert workers
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counter = asyncio.create_task(count())
    assert not any(await asyncio.gather(*(hashing.matches(stored, (b"x",)) for _ in range(20))))
    counter.cancel()
    assert turns > 20


async def test_a_worker_that_dies_is_replaced(hashing: Hashing) -> None:
    stored = parse_secret(SHA512)
    assert await hashing.matches(stored, (b"secret",))
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
    with pytest.raises(AuthUnavailable, match="ended"):
        await hashing.matches(stored, (b"secret",))
    assert await hashing.matches(stored, (b"secret",))


async def test_processes_that_cannot_be_started(hashing: Hashing) -> None:
    stored = parse_secret(SHA512)
    executable = multiprocessing.spawn.get_executable()
    multiprocessing.set_executable("/nowhere/python")
    try:
        for _ in range(2):
            with pytest.raises(AuthUnavailable, match="did not start"):
                await hashing.matches(stored, (b"secret",))
    finally:
        multiprocessing.set_executable(executable)
    assert await hashing.matches(stored, (b"secret",))


async def test_workers_leave_signals_to_the_daemon(hashing: Hashing) -> None:
    stored = parse_secret(SHA512)
    assert await hashing.matches(stored, (b"secret",))
    for worker in multiprocessing.active_children():
        worker.terminate()
    assert await hashing.matches(stored, (b"secret",))


async def test_only_so_many_wait(hashing: Hashing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing_module, "WAITING_MAX", 3)
    stored = parse_secret(hashed("secret"))
    answers = await asyncio.gather(*(hashing.matches(stored, (b"secret",)) for _ in range(5)), return_exceptions=True)
    assert answers[:3] == [True] * 3
    assert [type(answer) for answer in answers[3:]] == [AuthUnavailable] * 2
    assert await hashing.matches(parse_secret("{PLAIN}x"), (b"x",))
    assert await hashing.matches(stored, (b"secret",))


async def test_who_waits_comes_next_by_how_many_of_the_same_source_were_before_him(hashing: Hashing) -> None:
    stored = parse_secret(hashed("secret"))
    done: list[str] = []

    async def check(source: str) -> None:
        assert await hashing.matches(stored, (b"secret",), source)
        done.append(source)

    many = os.cpu_count() or 1
    floods = [asyncio.create_task(check("a")) for _ in range(4 * many)]
    floods += [asyncio.create_task(check("b")) for _ in range(4 * many)]
    await asyncio.sleep(0)
    await check("c")
    # before him: those under way, the first of b, and perhaps some that ended at the same moment
    assert len(done) <= 3 * many + 1
    given_up = [asyncio.create_task(check("d")) for _ in range(4 * many)]
    await asyncio.sleep(0)
    for task in given_up:
        task.cancel()
    await asyncio.gather(*floods)
    assert (done.count("a"), done.count("b"), done.count("d")) == (4 * many, 4 * many, 0)
    await asyncio.gather(*(check("e") for _ in range(2 * many)))  # no place was lost with those who gave up
    assert done.count("e") == 2 * many


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
async def test_threads_that_hash_give_way_to_the_event_loop(hashing: Hashing) -> None:
    ours = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert await hashing.in_a_thread(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())) == min(
        19, ours + 5
    )
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == ours


async def test_an_unknown_user_costs_what_most_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("pop3d.auth.hashing.matches", lambda stored, _: seen.append(cost_of(stored)) or True)
    fast, slow = hashed("x"), "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$c2VjcmV0LWluLWNsZWFy"
    path = tmp_path / "users"
    for secrets, cost in (
        ((fast, slow, slow), ("ARGON2ID", "$argon2id$v=19$m=65536,t=3,p=4")),
        ((fast, slow, fast), ("ARGON2ID", "$argon2id$v=19$m=19456,t=2,p=1")),
        ((MADE_ELSEWHERE[0], MADE_ELSEWHERE[3], MADE_ELSEWHERE[3]), ("BLF-CRYPT", "$2y$05")),
        (("{PLAIN}x", MADE_ELSEWHERE[0]), ("SSHA512", "")),
        ((), ("ARGON2ID", "$argon2id$v=19$m=19456,t=2,p=1")),
    ):
        path.write_text("".join(f"u{n}:{secret}\n" for n, secret in enumerate(secrets)))
        users = UsersFile(path)
        assert await users.authenticate(Password("nobody", "", b"x")) is None
        assert seen.pop() == cost
        assert not seen
        await users.close()
    assert cost_of(parse_secret(MADE_ELSEWHERE[6])) == ("SHA256-CRYPT", "$5$rounds=1000")
    assert cost_of(parse_secret(SHA512)) == ("SHA512-CRYPT", "$6")
    assert cost_of(parse_secret(hashed("x", "SCRAM-SHA-256"))) == ("SCRAM-SHA-256", "4096")


# --- the daemon ---


def logged_in(site: Site, user: str, password: str) -> str:
    client = poplib.POP3_SSL("localhost", site.port, context=site.context(), timeout=30)
    try:
        client.user(user)
        return client.pass_(password).decode()
    except poplib.error_proto as refused:
        return refused.args[0].decode()
    finally:
        client.close()


def serving(site: Site, users: str) -> Daemon:
    (site.root / "users").write_text(users)
    site.config.write_text(f"{site.config.read_text()}\n[limits]\nauth_penalty = 0.1\n")
    return Daemon(site)


def workers_of(daemon: Daemon) -> list[int]:
    """Processes that check passwords, found as ps(1) would find them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = re.search(r"^PPid:\s*(\d+)", (folder / "status").read_text(), re.MULTILINE)
            if parent and int(parent[1]) == daemon.process.pid and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            pass
    return found


def wait_until(true: Callable[[], object]) -> None:
    patience = time.monotonic() + 20
    while not true():
        assert time.monotonic() < patience
        time.sleep(0.02)


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


def test_the_daemon_takes_every_scheme(site: Site) -> None:
    daemon = serving(site, "".join(f"u{n}:{text}\n" for n, text in enumerate(MADE_ELSEWHERE)))
    try:
        for n in range(len(MADE_ELSEWHERE)):
            assert logged_in(site, f"u{n}", "secret").startswith("+OK")
            assert logged_in(site, f"u{n}", "secrets").startswith("-ERR [AUTH] wrong")
        assert logged_in(site, "nobody", "secret").startswith("-ERR [AUTH] wrong")
    finally:
        assert daemon.end() == 0
    assert "Traceback" not in daemon.log


@needs_proc
def test_a_check_that_dies_is_no_failed_login(site: Site) -> None:
    daemon = serving(site, f"alice:{SHA512}\nbob:{SLOW}\n")
    try:
        client = poplib.POP3_SSL("localhost", site.port, context=site.context(), timeout=30)
        client.user("bob")
        client._putcmd("PASS secret")
        wait_until(lambda: workers_of(daemon))
        for worker in workers_of(daemon):
            os.kill(worker, 9)
        with pytest.raises(poplib.error_proto, match=r"-ERR \[SYS/TEMP\] "):
            client._getresp()
        client.close()
        assert logged_in(site, "alice", "secret").startswith("+OK")
    finally:
        assert daemon.end() == 0
    assert (
        "a login could not be checked: a process that checks SHA-crypt passwords did not start, or ended" in daemon.log
    )
    assert "authentication failed" not in daemon.log
    assert "Traceback" not in daemon.log


@needs_proc
def test_workers_die_with_a_daemon_that_is_killed(site: Site) -> None:
    daemon = serving(site, f"alice:{SHA512}\n")
    assert logged_in(site, "alice", "secret").startswith("+OK")
    workers = workers_of(daemon)
    assert workers
    daemon.process.kill()
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    daemon.process.communicate()


def test_without_the_extra_only_those_users_stay_outside(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "without").mkdir()
    (tmp_path / "without/sitecustomize.py").write_text(
        "import sys\nsys.modules['passlib'] = sys.modules['bcrypt'] = None\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "without"), prepend=os.pathsep)
    daemon = serving(site, f"a:{SHA512}\nb:{SHA512}\nc:{MADE_ELSEWHERE[3]}\nd:{MADE_ELSEWHERE[0]}\n")
    try:
        for name in ("a", "b", "c", "nobody"):
            assert logged_in(site, name, "secret").startswith("-ERR [AUTH] wrong user name or password")
        assert logged_in(site, "d", "secret").startswith("+OK")
    finally:
        assert daemon.end() == 0
    lines = [line for line in daemon.log.splitlines() if "pip install 'pop3core[crypt]'" in line]
    assert len(lines) == 2
    assert "2 users of {SHA512-CRYPT} cannot log in" in lines[0]
    assert "1 users of {BLF-CRYPT} cannot log in" in lines[1]
