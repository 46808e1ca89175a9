"""`pop3d user` with users in a real PostgreSQL."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from pop3d.auth.passwords import parse_secret
from tests.postgres import execute


def configure(folder: Path, database: str, *lines: str, mechanisms: str = '["plain"]') -> None:
    more = "\n".join(lines)
    (folder / "pop3d.toml").write_text(
        '[[listen]]\nhost = "127.0.0.1"\nport = 0\ntls = "none"\n'
        f'[auth]\nbackend = "postgres"\nmechanisms = {mechanisms}\n[auth.postgres]\nconninfo = "{database}"\n{more}\n'
    )


@pytest.fixture
def user(run_pop3d, tmp_path: Path):
    """`pop3d user ...` in the folder of the configuration."""
    return lambda *words, **more: run_pop3d("user", *words, cwd=tmp_path, **more)


def test_users_are_added_changed_listed_and_removed(user, tmp_path: Path, database: str) -> None:
    configure(tmp_path, database, mechanisms='["plain", "scram-sha-256"]')
    done = user("add", "Alice@Example.ORG", "--password-stdin", stdin="s e c\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "added Alice@example.org to the database\n", "")
    [(name, password)] = execute(database, "select name, password from pop3_users")
    assert name == "Alice@example.org"
    assert parse_secret(str(password)).scheme == "SCRAM-SHA-256"
    done = user("add", "Alice@EXAMPLE.org", "--password-stdin", stdin="x\n")
    assert (done.returncode, done.stdout) == (65, "")
    assert done.stderr.startswith("pop3d: not added: the database has a user 'Alice@example.org' already; ")
    done = user("passwd", "Alice@EXAMPLE.org", "--password-stdin", "--scheme", "argon2id", stdin="n\n")
    assert (done.returncode, done.stdout) == (0, "changed the password of Alice@example.org in the database\n")
    assert parse_secret(str(execute(database, "select password from pop3_users")[0][0])).scheme == "ARGON2ID"
    execute(
        database, "insert into pop3_users values ('bob', '{NOPE}hidden-one', null), ('carol', '{PLAIN}hidden', null)"
    )
    done = user("list")
    assert (done.returncode, done.stdout) == (0, "Alice@example.org\tARGON2ID\nbob\t?\ncarol\tPLAIN\n")
    done = user("remove", "alice@Example.org")
    assert (done.returncode, done.stdout, done.stderr.count("no user")) == (67, "", 1)
    done = user("remove", "Alice@Example.org")
    assert (done.returncode, done.stdout) == (0, "removed Alice@example.org from the database, the mail stays\n")
    assert execute(database, "select count(*) from pop3_users") == [(2,)]


def test_who_is_added_logs_in(user, tmp_path: Path, database: str) -> None:
    import asyncio

    from pop3core.events import Password
    from pop3d.auth import Account
    from pop3d.auth.postgres import PostgresUsers
    from pop3d.config import PostgresUsers as Configured

    configure(tmp_path, database)
    for scheme in ("argon2id", "scram-sha-256", "plain"):
        assert user("add", scheme, "--password-stdin", "--scheme", scheme, stdin="s ü c\n").returncode == 0

    async def log_in() -> None:
        users = PostgresUsers(database, Configured.model_validate({"conninfo": database}).query)
        for scheme in ("argon2id", "scram-sha-256", "plain"):
            assert await users.authenticate(Password(scheme, "", "s ü c".encode())) == Account(scheme)
            assert await users.authenticate(Password(scheme, "", b"wrong")) is None
        await users.close()

    asyncio.run(log_in())


def test_a_table_of_ones_own(user, tmp_path: Path, database: str) -> None:
    execute(database, "create table mailbox (address text primary key, hash text)")
    query = "select hash as password from mailbox where address = %(user)s"
    configure(tmp_path, database, f'query = "{query}"')
    for words, key in (
        (("add", "alice", "--password-stdin"), "add_user"),
        (("passwd", "alice", "--password-stdin"), "set_password"),
        (("remove", "alice"), "remove_user"),
        (("list",), "list_users"),
    ):
        done = user(*words, stdin="x\n")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (78, "", 1)
        assert f"does not use our table pop3_users, and nothing says how to do this; set `{key}`" in done.stderr
    configure(
        tmp_path,
        database,
        f'query = "{query}"',
        'add_user = "insert into mailbox values (%(user)s, %(password)s)"',
        'set_password = "update mailbox set hash = %(password)s where address = %(user)s"',
        'remove_user = "delete from mailbox where address = %(user)s"',
        'list_users = "select address as name, hash as password from mailbox"',
    )
    assert user("add", "alice", "--password-stdin", "--scheme", "plain", stdin="a\n").returncode == 0
    assert user("passwd", "alice", "--password-stdin", "--scheme", "plain", stdin="b\n").returncode == 0
    assert execute(database, "select * from mailbox") == [("alice", "{PLAIN}b")]
    assert user("list").stdout == "alice\tPLAIN\n"
    assert user("remove", "alice").returncode == 0
    assert execute(database, "select * from mailbox") == []


def test_another_role_edits(user, tmp_path: Path, database: str) -> None:
    execute(database, "drop role if exists looker")
    execute(database, "create role looker login")
    execute(database, "grant select on pop3_users to looker")
    reader = database.replace("owner", "looker")
    configure(tmp_path, reader)
    done = user("add", "alice", "--password-stdin", "--scheme", "plain", stdin="a\n")
    assert (done.returncode, done.stderr.count("\n")) == (78, 1)
    assert "permission denied" in done.stderr
    assert "set `admin_conninfo` in [auth.postgres]" in done.stderr
    configure(tmp_path, reader, f'admin_conninfo = "{database}"')
    assert user("add", "alice", "--password-stdin", "--scheme", "plain", stdin="a\n").returncode == 0
    execute(database, "revoke select on pop3_users from looker")


@pytest.mark.parametrize("words", [("add", "a b"), ("add", "../x"), ("passwd", "nobody"), ("remove", "nobody")])
def test_an_error_is_one_line_and_changes_nothing(user, tmp_path: Path, database: str, words) -> None:
    configure(tmp_path, database)
    more = () if words[0] == "remove" else ("--password-stdin",)
    done = user(*words, *more, stdin="x\n")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (65 if words[0] == "add" else 67, "", 1)
    assert execute(database, "select * from pop3_users") == []


def test_a_database_that_is_not_there(user, tmp_path: Path) -> None:
    configure(tmp_path, f"host={tmp_path} dbname=mail user=x password=hidden")
    done = user("list")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (75, "", 1)
    assert done.stderr.startswith("pop3d: not listed: users in PostgreSQL: ")
    assert "hidden" not in done.stderr


def test_a_list_on_a_terminal(tmp_path: Path, database: str) -> None:
    configure(tmp_path, database)
    execute(database, "insert into pop3_users values ('alice', '{PLAIN}hidden', null), ('bob', 'hidden', null)")
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "pop3d", "user", "list"], stdout=theirs, stderr=theirs, cwd=tmp_path, timeout=60
    )
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 0
    for word in ("name", "alice", "PLAIN", "bob", "no scheme"):
        assert word in shown
    assert "hidden" not in shown
