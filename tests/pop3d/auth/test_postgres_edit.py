"""Editing users in a real PostgreSQL."""

from collections.abc import Iterator

import pytest

from pop3d.auth import AuthError, AuthUnavailable
from pop3d.auth.names import UserNames
from pop3d.auth.postgres_edit import UsersTable, UserStatements
from pop3d.auth.users_file import UnknownUser, UserExists
from pop3d.config import PostgresUsers
from tests.postgres import Cluster, Relay, execute

OURS = PostgresUsers.model_validate({"conninfo": "dbname=x"})


def statements(**others: str) -> UserStatements:
    found = OURS.statements
    made = {
        "query": OURS.query,
        "add": found["add_user"],
        "set_password": found["set_password"],
        "remove": found["remove_user"],
        "list": found["list_users"],
    }
    return UserStatements(**{**made, **others})  # type: ignore[arg-type]


@pytest.fixture
def table(database: str) -> Iterator[UsersTable]:
    with UsersTable(database, statements(), UserNames(), 10) as made:
        yield made


def rows(database: str) -> list[tuple[object, ...]]:
    return execute(database, "select name, password from pop3_users order by name")


def test_users_come_change_and_go(database: str, table: UsersTable) -> None:
    table.add("alice", "{PLAIN}a")
    with pytest.raises(UserExists, match="'alice'"):
        table.add("alice", "{PLAIN}b")
    table.add("o'neil; drop table pop3_users--", "{PLAIN}x")
    table.set_password("alice", "{PLAIN}%(user)s")
    assert rows(database) == [("alice", "{PLAIN}%(user)s"), ("o'neil; drop table pop3_users--", "{PLAIN}x")]
    table.remove("o'neil; drop table pop3_users--")
    for method in (lambda: table.remove("bob"), lambda: table.set_password("bob", "x"), lambda: table.called("bob")):
        with pytest.raises(UnknownUser, match="'bob'"):
            method()
    assert rows(database) == [("alice", "{PLAIN}%(user)s")]


def test_a_user_by_any_spelling_that_a_login_may_have(database: str, table: UsersTable) -> None:
    for name in ("alice@example.org", "Bob@Example.ORG"):
        table.add(name, "{PLAIN}a")
    assert table.called("Alice@Example.ORG") == "alice@example.org"
    assert table.called("Bob@Example.ORG") == "Bob@Example.ORG"  # to the letter, though no login finds it
    lenient = statements(query="select password, name from pop3_users where lower(name) = lower(%(user)s)")
    with UsersTable(database, lenient, UserNames(), 10) as other:
        assert other.called("bob@example.org") == "Bob@Example.ORG"
        with pytest.raises(UserExists, match=r"'Bob@Example\.ORG'"):
            other.add("bob@example.org", "{PLAIN}b")


def test_a_long_list_comes_in_pieces(database: str, table: UsersTable) -> None:
    execute(database, "insert into pop3_users select 'user' || i, '{PLAIN}x' from generate_series(1, 2500) i")
    pieces = list(table.users())
    assert [len(piece) for piece in pieces] == [1000, 1000, 500]
    assert {name for piece in pieces for name, _ in piece} == {f"user{number}" for number in range(1, 2501)}


def test_one_that_changes_many_changes_none(database: str) -> None:
    execute(database, "insert into pop3_users values ('alice', '{PLAIN}a'), ('bob', '{PLAIN}b')")
    with (
        UsersTable(
            database, statements(remove="delete from pop3_users where %(user)s <> ''"), UserNames(), 10
        ) as table,
        pytest.raises(AuthError, match="would change 2 users"),
    ):
        table.remove("alice")
    assert len(rows(database)) == 2


def test_what_the_database_refuses(cluster: Cluster, database: str) -> None:
    execute(database, "drop role if exists reader")
    execute(database, "create role reader login")
    execute(database, "grant select on pop3_users to reader")
    execute(database, "insert into pop3_users values ('alice', '{PLAIN}a')")
    with (
        UsersTable(database.replace("owner", "reader"), statements(), UserNames(), 10) as table,
        pytest.raises(AuthError, match=r"permission denied.*admin_conninfo"),
    ):
        table.set_password("alice", "{PLAIN}b")
    execute(database, "revoke select on pop3_users from reader")
    with (
        UsersTable(database, statements(list="select nonsense"), UserNames(), 10) as table,
        pytest.raises(AuthError, match="mend the statement: declare"),
    ):
        next(table.users())
    with (
        UsersTable(database, statements(list="select 1 as one"), UserNames(), 10) as table,
        pytest.raises(AuthError, match="no columns `name` and `password`, but one"),
    ):
        next(table.users())
    with pytest.raises(AuthUnavailable, match="does not exist"):
        UsersTable(database.replace("dbname=", "dbname=no"), statements(), UserNames(), 10)


def test_a_database_that_falls_silent(cluster: Cluster, database: str) -> None:
    way = Relay(cluster)
    try:
        with UsersTable(way.conninfo(database), statements(), UserNames(), 1) as table:
            way.freeze()
            with pytest.raises(AuthUnavailable, match="no answer for 1 seconds"):
                table.called("alice")
    finally:
        way.close()
