"""The users file: reading, checking, adding."""

import asyncio
import concurrent.futures
import fcntl
import gc
import logging
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pop3core.answers import NoSecret, PlainSecret, ScramSecret
from pop3core.events import Password, ProofFailed, Token, Verified
from pop3core.sasl.scram import verifier
from pop3d.auth import Account, AuthError, AuthUnavailable, check_user_name
from pop3d.auth.passwords import hashed
from pop3d.auth.users_file import (
    UnknownUser,
    UserExists,
    UsersFile,
    add_user,
    read_lines,
    remove_user,
    set_password,
)
from pop3d.system.secret import secret_of
from tests.loops import more_turns_than


def users_file(folder: Path, text: str) -> UsersFile:
    path = folder / "users"
    path.write_text(text)
    return UsersFile(path)


async def check(users: UsersFile, name: str, secret: bytes, authzid: str = "") -> Account | None:
    return await users.authenticate(Password(name, authzid, secret))


# --- reading ---


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AuthError, match="pop3d user add"):
        UsersFile(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "\n", "# nobody yet\n  \n", "\ufeff"])
async def test_a_file_without_users_keeps_those_it_had_and_mail_waits(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("pop3d"), "propagate", True)
    none = "it has no users; add one with `pop3d user add`"
    users = users_file(tmp_path, text)
    users.tell_faults()
    assert none in caplog.text
    assert await check(users, "alice", b"secret") is None
    with pytest.raises(AuthUnavailable, match=none):
        await users.account("alice")
    (tmp_path / "users").write_text("alice:{PLAIN}secret\n")
    await users.reload()
    (tmp_path / "users").write_text(text)
    with pytest.raises(AuthError, match=none):
        await users.reload()
    assert await check(users, "alice", b"secret") == Account("alice")
    await users.close()


async def test_the_time_of_a_login_counts_and_not_that_of_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = users_file(tmp_path, "alice:{PLAIN}secret::::::delay_until=4000000000\n")
    found = [await check(users, "alice", b"secret")]
    monkeypatch.setattr("pop3d.auth.extra_fields.time.time", lambda: 4e9)
    found.append(await check(users, "alice", b"secret"))
    assert [one is not None and one.forbidden for one in found] == ["delay_until: not before 4000000000", ""]
    await users.close()


def test_a_file_of_which_no_line_can_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AuthError, match="no line can be read; line 2: a line is name:"):
        users_file(tmp_path, "# users\nalice\nroot:x:0:0:root:/root:/bin/bash\nbob:{NOPE}x\n")


@pytest.mark.parametrize("secret", ["*", "!", "!!", "{SHA512-CRYPT}!$6$x$y", "{PLAIN}y::::::nologin"])
async def test_the_last_user_can_be_locked(tmp_path: Path, secret: str) -> None:
    users = users_file(tmp_path, "alice:{PLAIN}y\n")
    (tmp_path / "users").write_text(f"alice:{secret}\n")
    await users.reload()
    account = await check(users, "alice", b"y")
    assert account is None or account.forbidden
    await users.close()


FAULTY = [
    "bob:*",
    "bob:!!",
    "bob:x",
    "bob:",
    "bob:{SHA512-CRYPT}!$6$abc$def",
    "bob:{NOPE}secret",
    "bob:secret",
    "bob",
    "b ob:{PLAIN}secret",
    "alice:{PLAIN}other",
    "bob:{PLAIN}\udcff",
    "bob:{ARGON2ID}secret",
    ":",
]


@pytest.mark.parametrize("line", FAULTY)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
async def test_a_faulty_line_costs_its_own_user(tmp_path: Path, line: str, end: str) -> None:
    text = f"# users{end}alice:{{PLAIN}}secret{end}{line}{end}carol:{{PLAIN}}secret"
    (tmp_path / "users").write_bytes(text.encode("utf-8", "surrogateescape"))
    users = UsersFile(tmp_path / "users")
    for name in ("alice", "carol"):
        assert await check(users, name, b"secret") == Account(name)
    for password in (b"secret", b"", b"*", b"x", b"!!", b"other", line.partition(":")[2].encode("utf-8", "replace")):
        assert await check(users, "bob", password) is None
    assert await check(users, "alice", b"other") is None
    await users.close()


async def test_who_cannot_log_in_still_gets_mail_and_is_let_in_by_no_mechanism(tmp_path: Path) -> None:
    users = users_file(tmp_path, "alice:{PLAIN}y\nbob:*:1:2::/home/bob\ncarol:{NOPE}z::::/home/carol\n")
    for name, why in (("bob", "locked"), ("carol", "an unknown scheme")):
        account = await users.account(name)
        assert account is not None
        assert account.home == f"/home/{name}"
        verified = await users.authenticate(Verified(name, "", "EXTERNAL"))
        assert verified is not None
        assert verified.forbidden.startswith(why)
        unknown = await users.secret("nobody", "SCRAM-SHA-256", "n")
        assert type(await users.secret(name, "SCRAM-SHA-256", "n")) is type(unknown) is NoSecret
    await users.close()


async def test_a_faulty_line_costs_its_user_what_an_unknown_user_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr("pop3d.auth.hashing.matches", lambda stored, _: seen.append(stored.scheme) or True)
    users = users_file(tmp_path, f"alice:{hashed('x')}\nbob:!\ncarol:{{NOPE}}x\n")
    for name in ("nobody", "bob", "carol"):
        assert await check(users, name, b"x") is None
        assert seen == ["ARGON2ID"]
        seen.clear()
    await users.close()


def test_the_log_has_a_line_for_each_fault_and_not_too_many(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = ["alice:{PLAIN}y", *(f"u{n}:*" for n in range(30)), "bob:{SHA}nU4eI71bcnBGqeO0t9tXvY1u5oQ=::::::colour=1"]
    lines += ["left:{PLAIN}y::::::nologin", "away:{PLAIN}y::::::proxy=y", "here:{PLAIN}y::::::allow_nets=10.0.0.0/8,x"]
    users = users_file(tmp_path, "\n".join(lines))
    users.tell_faults()
    told = [record.getMessage().removeprefix(f"{tmp_path / 'users'}: ") for record in caplog.records]
    assert told[:20] == [
        f"line {n + 2}: locked: a marker stands where the secret belongs (user 'u{n}')" for n in range(20)
    ]
    assert told[20:] == [
        "and 11 more; `pop3d check` lists all",
        "1 user (away) cannot log in: proxy: the mailbox is on another server",
        "1 user (bob) with the field colour, which has no effect: no such field is known",
        "1 user (bob) with a weak secret, {SHA1}: `pop3d user passwd` stores a better one",
    ]


@pytest.mark.parametrize("name", ["alice", "alice@example.org", "jürgen", "a.b-c_d+e", "x" * 255])
def test_valid_user_names_are_accepted(name: str) -> None:
    check_user_name(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".a", "a/b", "a:b", "a b", "a\tb", "a\0", "a\n", "\x1b[31m", "a\u202eb", "x" * 256, "\udcff"],
)
def test_invalid_user_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a user name"):
        check_user_name(name)


# --- checking ---


async def test_a_plain_password_must_match_exactly(tmp_path: Path) -> None:
    users = users_file(tmp_path, "alice:{PLAIN}s ü c:::::/home/alice\n")
    assert await check(users, "alice", "s ü c".encode()) == Account("alice", None)
    assert await check(users, "alice", "s ü c ".encode()) is None
    assert await check(users, "alice", b"") is None
    assert await check(users, "Alice", "s ü c".encode()) is None
    assert await check(users, "nobody", "s ü c".encode()) is None
    await users.close()


async def test_a_password_is_checked_by_argon2id(tmp_path: Path) -> None:
    users = users_file(tmp_path, f"alice:{hashed('pässword')}::::/home/alice\n")
    assert await check(users, "alice", "pässword".encode()) == Account("alice", "/home/alice")
    assert await check(users, "alice", b"password") is None
    assert await check(users, "alice", b"\xff\xfe") is None
    await users.close()


async def test_nobody_acts_as_somebody_else(tmp_path: Path) -> None:
    users = users_file(tmp_path, "alice:{PLAIN}a\nbob:{PLAIN}b\n")
    assert await check(users, "alice", b"a", authzid="alice") == Account("alice")
    assert await check(users, "alice", b"a", authzid="bob") is None
    await users.close()


async def test_an_unknown_user_costs_a_hash_where_hashes_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def noting(stored, password):
        seen.append(stored.scheme)
        return True  # and even if it matched

    monkeypatch.setattr("pop3d.auth.hashing.matches", noting)
    users = users_file(tmp_path, f"alice:{hashed('x')}\nbob:{{PLAIN}}y\n")
    assert await check(users, "nobody", b"x") is None
    assert seen == ["ARGON2ID"]
    await users.close()
    users = users_file(tmp_path, "bob:{PLAIN}y\n")
    assert await check(users, "nobody", b"x") is None
    assert seen == ["ARGON2ID", "PLAIN"]
    await users.close()


async def test_hashing_does_not_stop_the_event_loop(tmp_path: Path) -> None:
    users = users_file(tmp_path, f"alice:{hashed('x')}\n")
    async with more_turns_than(20):
        await asyncio.gather(*(check(users, "alice", b"y") for _ in range(4)))
    await users.close()


async def test_users_are_reloaded_and_a_faulty_file_is_not(tmp_path: Path) -> None:
    users = users_file(tmp_path, "alice:{PLAIN}old\n")
    (tmp_path / "users").write_text("alice:{PLAIN}new\n")
    await users.reload()
    assert await check(users, "alice", b"new") is not None
    (tmp_path / "users").write_text("alice:faulty\n")
    with pytest.raises(AuthError):
        await users.reload()
    assert await check(users, "alice", b"new") is not None
    await users.close()


def test_no_secret_in_any_repr(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("alice:{PLAIN}hidden-one\nbob:hidden-one\nhidden-one\n")
    assert "hidden-one" not in repr(read_lines(tmp_path / "users"))
    assert "hidden-one" not in repr(Password("alice", "", b"hidden-one"))


# --- adding ---


def test_add_makes_the_file_and_keeps_every_other_line(tmp_path: Path) -> None:
    path = tmp_path / "users"
    add_user(path, "alice", "secret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = path.read_text()
    assert first.startswith("alice:{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$")
    path.write_text(f"# comment\n\n{first.rstrip()}")
    path.chmod(0o640)
    add_user(path, "bob", "x y", scheme="PLAIN")
    assert path.read_text() == f"# comment\n\n{first}bob:{{PLAIN}}x y\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["users"]


def test_add_refuses_what_would_not_be_read_back(tmp_path: Path) -> None:
    path = tmp_path / "users"
    add_user(path, "alice", "secret", scheme="PLAIN")
    before = path.read_bytes()
    with pytest.raises(UserExists):
        add_user(path, "alice", "other")
    for name, password in (("a:b", "x"), ("bob", ""), ("bob", "a:b"), ("bob", "a\nb")):
        with pytest.raises(ValueError, match=r"user name|password|secret"):
            add_user(path, name, password, scheme="PLAIN")
    assert path.read_bytes() == before


def test_add_to_a_file_with_faulty_lines_leaves_them(tmp_path: Path) -> None:
    path = tmp_path / "users"
    faulty = b"\xef\xbb\xbffaulty\r\n  \n\xff\xfe:{NOPE}x\n\tindented:{PLAIN}y\ndora:*\ndora:x"
    path.write_bytes(faulty)
    add_user(path, "bob", "x", scheme="PLAIN")
    assert path.read_bytes() == faulty + b"\nbob:{PLAIN}x\n"
    for name in ("dora", "indented"):
        with pytest.raises(UserExists):
            add_user(path, name, "x")
    set_password(path, "indented", "z", scheme="PLAIN")
    remove_user(path, "dora")
    assert path.read_bytes() == b"\xef\xbb\xbffaulty\r\n  \n\xff\xfe:{NOPE}x\n\tindented:{PLAIN}z\nbob:{PLAIN}x\n"


def test_add_through_a_link_keeps_the_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "users").symlink_to("real/users")
    add_user(tmp_path / "users", "alice", "x", scheme="PLAIN")
    assert (tmp_path / "users").is_symlink()
    assert (tmp_path / "real/users").read_text() == "alice:{PLAIN}x\n"


def test_a_name_that_would_be_a_comment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="comment"):
        add_user(tmp_path / "users", "#alice", "x")


# --- editing ---

FILE = (
    b"# users\r\n\n"
    b"alice:{PLAIN}old:1000:1000::/home/alice::userdb_quota=1:2\r\n"
    b"bob:{NOPE}faulty, but not ours to touch\n"
    b"  # no comment\n"
    b"#carol:{PLAIN}x\n"
    b"carol:{PLAIN}y"
)


def test_another_password_leaves_everything_else(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_bytes(FILE)
    set_password(path, "alice", "new", scheme="PLAIN")
    assert path.read_bytes() == FILE.replace(b"{PLAIN}old", b"{PLAIN}new")
    set_password(path, "carol", "z", scheme="PLAIN")
    set_password(path, "bob", "mended", scheme="PLAIN")
    assert path.read_bytes() == (
        FILE.replace(b"{PLAIN}old", b"{PLAIN}new")
        .replace(b"{NOPE}faulty, but not ours to touch", b"{PLAIN}mended")
        .replace(b"carol:{PLAIN}y", b"carol:{PLAIN}z")
    )
    for name in ("nobody", "", "#carol", "  # no comment"):
        with pytest.raises(UnknownUser):
            set_password(path, name, "x", scheme="PLAIN")
    with pytest.raises(ValueError, match="empty"):
        set_password(path, "alice", "")


def test_a_user_removed_leaves_everything_else(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_bytes(FILE)
    remove_user(path, "bob")
    assert path.read_bytes() == FILE.replace(b"bob:{NOPE}faulty, but not ours to touch\n", b"")
    remove_user(path, "carol")
    assert path.read_bytes().endswith(b"#carol:{PLAIN}x\n")
    with pytest.raises(UnknownUser):
        remove_user(path, "carol")


def test_a_name_that_stands_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("bob:{PLAIN}x\nalice:{PLAIN}a\nbob:{PLAIN}y\n")
    with pytest.raises(AuthError, match="lines 1 and 3: the user 'bob' stands there twice"):
        set_password(path, "bob", "z")
    remove_user(path, "bob")  # every line: nobody of that name is let in any more
    assert path.read_text() == "alice:{PLAIN}a\n"


def test_mode_owner_and_attributes_stay(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("bob:{PLAIN}x\n")
    if os.geteuid() == 0:
        os.chown(path, 12345, 54321)
    path.chmod(0o640)
    try:
        os.setxattr(path, "user.note", b"kept")
    except OSError:
        attributes = {}
    else:
        attributes = {"user.note": b"kept"}
    os.utime(path, (0, 0))
    before = path.stat()
    set_password(path, "bob", "y", scheme="PLAIN")
    after = path.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert {name: os.getxattr(path, name) for name in os.listxattr(path) if name == "user.note"} == attributes
    assert after.st_ino != before.st_ino
    assert after.st_mtime > 0  # whoever looks at the time sees that it has changed


def test_what_a_crash_left_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "users"
    (tmp_path / ".users.new").write_text("half a li")
    add_user(path, "bob", "x", scheme="PLAIN")
    assert (path.read_text(), os.listdir(tmp_path)) == ("bob:{PLAIN}x\n", ["users"])


def test_a_link_and_its_target_have_one_lock(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "users").symlink_to("real/users")
    editing = subprocess.Popen(
        [sys.executable, "-c", HOLD_THE_LOCK, str(tmp_path / "real")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert editing.stdin is not None
    assert editing.stdout is not None
    editing.stdout.readline()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        adding = pool.submit(add_user, tmp_path / "users", "bob", "x", scheme="PLAIN")
        with pytest.raises(TimeoutError):
            adding.result(0.3)
        assert not (tmp_path / "real/users").exists()
        editing.communicate()
        adding.result(20)
    assert (tmp_path / "real/users").read_text() == "bob:{PLAIN}x\n"


HOLD_THE_LOCK = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_an_editor_that_never_ends_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pop3d.system.atomic_edit._LOCK_PATIENCE", 0.05)
    holder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with pytest.raises(TimeoutError, match="another process"):
        add_user(tmp_path / "users", "bob", "x", scheme="PLAIN")
    os.close(holder)
    assert os.listdir(tmp_path) == []


def test_what_is_no_file_is_not_exchanged(tmp_path: Path) -> None:
    (tmp_path / "users").mkdir()
    with pytest.raises(OSError, match="not a regular file"):
        remove_user(tmp_path / "users", "bob")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="symbolic links"):
        add_user(tmp_path / "loop", "bob", "x", scheme="PLAIN")
    assert (tmp_path / "loop").is_symlink()


def test_many_editors_at_once_lose_no_user(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("# first\nold:{PLAIN}x\n")
    (tmp_path / "link").symlink_to("users")
    script = (
        "import sys; from pathlib import Path; from pop3d.auth.users_file import add_user, remove_user\n"
        "path, me = Path(sys.argv[1]), sys.argv[2]\n"
        "for n in range(8): add_user(path, f'{me}-{n}', 'x', scheme='PLAIN')\n"
        "remove_user(path, f'{me}-0')\n"
    )
    editors = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path / ("link" if n % 2 else "users")), f"e{n}"])
        for n in range(6)
    ]
    assert [editor.wait(60) for editor in editors] == [0] * 6
    wanted = {"old"} | {f"e{n}-{m}" for n in range(6) for m in range(1, 8)}
    assert {line.name for line in read_lines(users)} == wanted
    assert users.read_text().startswith("# first\nold:{PLAIN}x\n")
    assert sorted(os.listdir(tmp_path)) == ["link", "users"]


# --- SCRAM and APOP ---


async def test_a_scram_verifier_serves_passwords_and_scram(tmp_path: Path) -> None:
    users = users_file(tmp_path, f"alice:{hashed('s e c', 'SCRAM-SHA-256')}\nbob:{{PLAIN}}s e c\n")
    for name in ("alice", "bob"):
        assert await check(users, name, b"s e c") == Account(name)
        assert await check(users, name, b"sec") is None
        kept = await users.secret(name, "SCRAM-SHA-256", "nonce")
        assert isinstance(kept, ScramSecret)
        assert kept.server_nonce == "nonce"
        assert verifier(b"s e c", kept.salt, kept.iterations) == (kept.stored_key, kept.server_key)
        assert await users.authenticate(Verified(name, "", "SCRAM-SHA-256")) == Account(name)
        assert await users.authenticate(Verified(name, "carol", "SCRAM-SHA-256")) is None
    assert await users.secret("bob", "APOP", "") == PlainSecret(b"s e c")
    assert isinstance(await users.secret("alice", "APOP", ""), NoSecret)
    assert await users.authenticate(Token("bob", "XOAUTH2", b"x")) is None
    assert await users.authenticate(ProofFailed("bob", "APOP")) is None
    await users.close()


async def test_an_unknown_user_has_a_salt_that_stays(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text(f"bob:{hashed('x')}\ncarol:{{PLAIN}}x\n")
    seen = []
    for _ in range(2):
        users = UsersFile(path, b"the same secret")
        seen.append([await users.secret(name, "SCRAM-SHA-256", "n") for name in ("nobody", "bob", "carol")])
        await users.close()
    assert seen[0] == seen[1]
    nobody, bob, carol = seen[0]
    assert isinstance(nobody, NoSecret)
    assert isinstance(bob, NoSecret)
    assert isinstance(carol, ScramSecret)
    assert len({one.salt for one in (nobody, bob, carol)}) == 3
    assert {(len(one.salt), one.iterations) for one in (nobody, bob, carol)} == {(16, 4096)}


def test_the_secret_of_the_site(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = tmp_path / "state"
    made = secret_of(state)
    assert len(made) == 32
    assert secret_of(state) == made
    assert stat.S_IMODE((state / "keep" / "secret").stat().st_mode) == 0o600
    assert [path.name for path in (state / "keep").iterdir()] == ["secret"]
    (state / "keep" / "secret").write_bytes(b"torn")
    assert secret_of(state) not in (made, b"torn")
    (tmp_path / "file").write_bytes(b"")
    assert len(secret_of(tmp_path / "file")) == 32
    assert "salts of unknown users change" in caplog.text


def test_processes_that_start_at_once_agree_on_the_secret(tmp_path: Path) -> None:
    made = f"print(secret_of(Path({str(tmp_path)!r})))"
    program = f"from pathlib import Path; from pop3d.system.secret import secret_of; {made}"
    started = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({process.communicate(timeout=60)[0] for process in started}) == 1
    assert [path.name for path in (tmp_path / "keep").iterdir()] == ["secret"]


async def test_many_users_are_no_work_for_the_garbage_collector(tmp_path: Path) -> None:
    many = 2_000
    path = tmp_path / "users"
    line = "user{}@example.org:{{PLAIN}}secret:1:1::/home/{}::allow_nets=192.0.2.0/24 userdb_mail=x\n"
    path.write_text("".join(line.format(number, number) for number in range(many)))
    gc.collect()
    before = len(gc.get_objects())
    users = UsersFile(path)
    await users.reload()
    gc.collect()
    assert len(gc.get_objects()) - before < many / 10
    account = await users.account("user7@example.org")
    assert account is not None
    assert (account.home, [str(network) for network in account.networks]) == ("/home/7", ["192.0.2.0/24"])
    await users.close()
