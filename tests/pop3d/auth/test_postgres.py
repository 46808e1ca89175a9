"""Users in a real PostgreSQL."""

import base64
import math
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from pop3core.answers import NoSecret
from pop3core.events import Password, Verified
from pop3d.auth import Account, AuthUnavailable
from pop3d.auth.passwords import hashed
from pop3d.auth.postgres import PostgresUsers
from pop3d.auth.user_limits import UserLimits
from tests.postgres import execute

QUERY = "select password, home from pop3_users where name = %(user)s"


@pytest.fixture
async def users(database: str) -> AsyncIterator[PostgresUsers]:
    execute(
        database,
        "insert into pop3_users values ('alice', %s, '/home/alice'), ('bob', '{PLAIN}bob', null), ('eve', 'x', null)",
        hashed("secret"),
    )
    made = PostgresUsers(database, QUERY)
    yield made
    await made.close()


async def test_users_log_in(users: PostgresUsers) -> None:
    assert await users.authenticate(Password("alice", "", b"secret")) == Account("alice", "/home/alice")
    assert await users.authenticate(Password("bob", "", b"bob")) == Account("bob")
    assert await users.authenticate(Verified("bob", "", "SCRAM-SHA-256")) == Account("bob")
    for name, authzid, secret in (
        ("alice", "", b"Secret"),
        ("alice", "bob", b"secret"),
        ("nobody", "", b"secret"),
        ("eve", "", b"x"),
        ("bob' or true --", "", b"bob"),
        ("bob\0", "", b"bob"),
        ("../bob", "", b"bob"),
        ("\udc80", "", b"bob"),
    ):
        assert await users.authenticate(Password(name, authzid, secret)) is None
    assert await users.account("alice") == Account("alice", "/home/alice")
    assert await users.trouble() is None


async def test_another_spelling_opens_the_same_mailbox(database: str, users: PostgresUsers) -> None:
    query = "select password, name from pop3_users where lower(name) = lower(%(user)s)"
    lenient = PostgresUsers(database, query)
    assert lenient.account_name("bobby") == "bobby"
    assert await lenient.authenticate(Password("BOB", "", b"bob")) == Account("bob")
    assert lenient.account_name("BoB ") == "bob"
    execute(database, "insert into pop3_users values ('Bob', '{PLAIN}bob', null)")
    with pytest.raises(AuthUnavailable, match="2 rows"):
        await lenient.authenticate(Password("bob", "", b"bob"))
    await lenient.close()


async def test_limits_go_by_the_name_that_the_database_gives(users: PostgresUsers, database: str) -> None:
    query = "select password, name from pop3_users where name = split_part(%(user)s, '@', 1)"
    by_address = PostgresUsers(database, query)
    assert await by_address.authenticate(Password("Bob@example.org", "", b"bob")) is None
    assert await by_address.authenticate(Password("bob@example.org", "", b"wrong")) is None
    assert by_address.account_name("bob@example.org") == by_address.account_name("bob") == "bob"
    await by_address.close()


async def test_unknown_users_look_like_those_who_have_logged_in(users: PostgresUsers, database: str) -> None:
    verifier = base64.b64encode(b"s" * 24).decode() + ",c2E=,c2E="
    execute(database, f"insert into pop3_users values ('carol', '{{SCRAM-SHA-256}}15000,{verifier}', null)")
    before = await users.secret("nobody", "SCRAM-SHA-256", "")
    await users.secret("carol", "SCRAM-SHA-256", "")
    assert await users.secret("nobody", "SCRAM-SHA-256", "") == before  # asking teaches nothing
    assert await users.authenticate(Verified("carol", "", "SCRAM-SHA-256")) == Account("carol")
    after = await users.secret("nobody", "SCRAM-SHA-256", "")
    assert isinstance(after, NoSecret)
    assert (after.iterations, len(after.salt)) == (15_000, 24)


@pytest.mark.parametrize(
    ("query", "trouble"),
    [
        ("select passwort from pop3_users where name = %(user)s", "passwort"),
        ("select home from pop3_users where name = %(user)s", "no column `password`"),
        ("selct", "syntax"),
    ],
)
async def test_a_faulty_query_lets_nobody_in_and_is_found(database: str, query: str, trouble: str) -> None:
    faulty = PostgresUsers(database, query)
    assert trouble in str(await faulty.trouble())
    await faulty.close()


async def test_who_cannot_be_looked_up_is_not_refused(tmp_path: Path) -> None:
    nowhere = PostgresUsers(f"host={tmp_path} user=owner dbname=mail", QUERY)
    with pytest.raises(AuthUnavailable, match="users in PostgreSQL"):
        await nowhere.authenticate(Password("alice", "", b"secret"))
    await nowhere.close()


async def test_columns_that_restrict(database: str) -> None:
    execute(
        database,
        "create table site (name text, password text default '{PLAIN}x', nologin boolean, allow_nets text, "
        "nets cidr[], word text)",
    )
    execute(
        database,
        "insert into site (name, nologin, allow_nets, nets, word) values ('free', null, null, null, null), "
        "('no', false, '192.0.2.0/24, 2001:db8::/32', '{192.0.2.0/24,2001:db8::/32}', ''), "
        "('left', true, null, null, 'n'), ('nobody', false, '', '{}', '')",
    )
    networks = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))
    for columns in ("nologin, allow_nets", "word as nologin, nets as allow_nets"):
        users = PostgresUsers(database, f"select password, {columns} from site where name = %(user)s")
        found = {name: await users.account(name) for name in ("free", "no", "left", "nobody")}
        assert found == {
            "free": Account("free"),
            "no": Account("no", networks=networks),
            "left": Account("left", forbidden="nologin"),
            "nobody": Account("nobody", forbidden="allow_nets: no network is left to log in from"),
        }
        assert await users.authenticate(Password("left", "", b"x")) == found["left"]  # `pop3d.logins` refuses it
        await users.close()


async def test_a_user_who_cannot_log_in_still_gets_mail(users: PostgresUsers, database: str) -> None:
    execute(database, "insert into pop3_users values ('locked', '!$6$x', '/home/l')")
    for name, why in (("locked", "locked"), ("eve", "the secret is in another file")):
        account = await users.account(name)
        assert account is not None
        assert account.forbidden.startswith(why)
        assert await users.authenticate(Password(name, "", b"x")) is None
        assert type(await users.secret(name, "SCRAM-SHA-256", "")) is NoSecret


async def test_limits_of_a_users_own(users: PostgresUsers, database: str, caplog: pytest.LogCaptureFixture) -> None:
    assert users.limits_of_users() == {UserLimits()}
    execute(database, "alter table pop3_users add quota_octets bigint, add login_delay int, add expire_days text")
    execute(database, "update pop3_users set quota_octets = 1000, login_delay = 60 where name = 'bob'")
    execute(database, "update pop3_users set expire_days = '30' where name = 'bob'")
    execute(database, "update pop3_users set expire_days = 'soon' where name = 'alice'")
    columns = "password, quota_octets, login_delay, expire_days"
    own = PostgresUsers(database, f"select {columns} from pop3_users where name = %(user)s")
    assert own.limits_of_users() == {UserLimits(login_delay=0, expire=math.inf)}
    limits = UserLimits(1000, login_delay=60, expire=30)
    assert await own.authenticate(Password("bob", "", b"bob")) == Account("bob", limits=limits)
    assert await own.account("bob") == Account("bob", limits=limits)
    assert await own.account("alice") == Account("alice", limits=UserLimits(expire=math.inf))
    assert "user 'alice' in PostgreSQL: expire: 'soon' is no number up to 36500, nor never" in caplog.text
    await own.close()
