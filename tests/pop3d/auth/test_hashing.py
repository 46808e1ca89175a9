"""Where passwords are checked: in threads or processes, off the event loop, bounded; the daemon with all schemes."""

import asyncio
import base64
import hashlib
import multiprocessing
import multiprocessing.spawn
import os
import poplib
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pop3core.events import Password
from pop3d.auth import Account, AuthUnavailable, crypt_hashes
from pop3d.auth import hashing as hashing_module
from pop3d.auth.crypt_hashes import is_native
from pop3d.auth.hashing import Hashing, variants
from pop3d.auth.passwords import hashed, parse_secret
from pop3d.auth.schemes import SHA512_CRYPT
from pop3d.auth.users_file import UsersFile
from pop3d.extras import install_line
from tests.loops import more_turns_than
from tests.pop3d.auth.test_passwords import MADE_ELSEWHERE, SHA512
from tests.site import Daemon, Site

SLOW = "{SHA512-CRYPT}$6$rounds=1000000$abc$" + "a" * 86


@pytest.mark.parametrize(
    ("sent", "tried"),
    [
        (b"plain", [b"plain"]),
        ("é".encode(), ["é".encode(), b"\xe9"]),
        (b"\xe9", [b"\xe9", "é".encode()]),
        ("€".encode(), ["€".encode()]),  # not in Latin-1
    ],
)
def test_passwords_are_tried_in_utf8_and_latin_1(sent: bytes, tried: list[bytes]) -> None:
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


@pytest.fixture
def hashing() -> Iterator[Hashing]:
    made = Hashing()
    yield made
    made.close()
    for worker in multiprocessing.active_children():
        worker.join(20)


@pytest.fixture
def without_libcrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process."""
    monkeypatch.setattr(crypt_hashes, "_native_schemes", frozenset)


NO_LIBCRYPT = """
import ctypes
found = ctypes.CDLL
def library(name, *more, **others):
    if str(name).startswith("libcrypt.so"):
        raise OSError
    return found(name, *more, **others)
ctypes.CDLL = library
"""


def customized(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str = "") -> None:
    """Daemons have no libcrypt, and run ``code`` first."""
    (folder / "without").mkdir()
    (folder / "without/sitecustomize.py").write_text(NO_LIBCRYPT + code)
    monkeypatch.setenv("PYTHONPATH", str(folder / "without"), prepend=os.pathsep)


@pytest.mark.skipif(not is_native(SHA512_CRYPT), reason="needs libcrypt of libxcrypt (Debian: libcrypt1)")
async def test_what_libcrypt_checks_needs_no_process(hashing: Hashing) -> None:
    stored = parse_secret(SHA512)
    async with more_turns_than(20):
        assert await hashing.matches(stored, (b"x", b"secret"))
        assert not any(await asyncio.gather(*(hashing.matches(stored, (b"x",)) for _ in range(20))))
    assert multiprocessing.active_children() == []


@pytest.mark.usefixtures("without_libcrypt")
async def test_what_holds_the_lock_runs_in_a_process(hashing: Hashing) -> None:
    stored = parse_secret(SHA512)
    assert await hashing.matches(stored, (b"x", b"secret"))
    assert not await hashing.matches(stored, (b"x",))
    workers = multiprocessing.active_children()
    assert workers
    async with more_turns_than(20):
        assert not any(await asyncio.gather(*(hashing.matches(stored, (b"x",)) for _ in range(20))))


@pytest.mark.usefixtures("without_libcrypt")
async def test_a_worker_that_dies_is_replaced(hashing: Hashing) -> None:
    stored = parse_secret(SHA512)
    assert await hashing.matches(stored, (b"secret",))
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
    with pytest.raises(AuthUnavailable, match="ended"):
        await hashing.matches(stored, (b"secret",))
    assert await hashing.matches(stored, (b"secret",))


@pytest.mark.usefixtures("without_libcrypt")
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


@pytest.mark.usefixtures("without_libcrypt")
async def test_workers_leave_signals_to_the_daemon(hashing: Hashing) -> None:
    stored = parse_secret(SHA512)
    assert await hashing.matches(stored, (b"secret",))
    for worker in multiprocessing.active_children():
        worker.terminate()
    assert await hashing.matches(stored, (b"secret",))


async def test_only_so_many_password_checks_wait(hashing: Hashing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing_module, "WAITING_MAX", 3)
    stored = parse_secret(hashed("secret"))
    answers = await asyncio.gather(*(hashing.matches(stored, (b"secret",)) for _ in range(5)), return_exceptions=True)
    assert answers[:3] == [True] * 3
    assert [type(answer) for answer in answers[3:]] == [AuthUnavailable] * 2
    assert await hashing.matches(parse_secret("{PLAIN}x"), (b"x",))
    assert await hashing.matches(stored, (b"secret",))


async def test_who_waits_comes_next_by_how_many_of_the_same_source_were_before_him(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # one at a time: they end in the order in which they were let in
    hashing = Hashing()
    stored = parse_secret(hashed("secret"))
    done: list[str] = []

    async def check(source: str) -> None:
        assert await hashing.matches(stored, (b"secret",), source)
        done.append(source)

    floods = [asyncio.create_task(check(source)) for source in "aaaabbbb"]
    await asyncio.sleep(0)
    await check("c")
    assert done == ["a", "b", "c"]  # the one under way, the first of b, and the first of c
    given_up = [asyncio.create_task(check("d")) for _ in range(4)]
    await asyncio.sleep(0)
    for task in given_up:
        task.cancel()
    await asyncio.gather(*floods)
    assert (done.count("a"), done.count("b"), done.count("d")) == (4, 4, 0)
    await asyncio.gather(*(check("e") for _ in range(3)))  # the place was not lost with those who gave up
    assert done.count("e") == 3
    hashing.close()


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
async def test_threads_that_hash_give_way_to_the_event_loop(hashing: Hashing) -> None:
    ours = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert await hashing.in_a_thread(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())) == min(
        19, ours + 5
    )
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == ours


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


@pytest.mark.parametrize("native", [True, False])
def test_the_daemon_takes_every_scheme(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    if not native:
        customized(tmp_path, monkeypatch)
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
def test_a_check_that_dies_is_no_failed_login(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    customized(tmp_path, monkeypatch)
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
        "a login could not be checked: a process that checks passwords of crypt(3) did not start, or ended"
        in daemon.log
    )
    assert "authentication failed" not in daemon.log
    assert "Traceback" not in daemon.log


@needs_proc
def test_workers_die_with_a_daemon_that_is_killed(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    customized(tmp_path, monkeypatch)
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
    customized(tmp_path, monkeypatch, "import sys\nsys.modules['passlib'] = sys.modules['bcrypt'] = None\n")
    daemon = serving(site, f"a:{SHA512}\nb:{SHA512}\nc:{MADE_ELSEWHERE[3]}\nd:{MADE_ELSEWHERE[0]}\n")
    try:
        for name in ("a", "b", "c", "nobody"):
            assert logged_in(site, name, "secret").startswith("-ERR [AUTH] wrong user name or password")
        assert logged_in(site, "d", "secret").startswith("+OK")
    finally:
        assert daemon.end() == 0
    lines = [line for line in daemon.log.splitlines() if install_line("crypt") in line]
    assert len(lines) == 2
    assert "2 users (a, b) of {SHA512-CRYPT} cannot log in" in lines[0]
    assert "1 user (c) of {BLF-CRYPT} cannot log in" in lines[1]
