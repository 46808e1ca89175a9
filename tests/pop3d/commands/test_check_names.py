"""`pop3d check` and names that only differ in their spelling."""

import re
import subprocess

import pytest

from tests.maildirs import files
from tests.pop3d.commands.findings import change, found, only
from tests.site import Site

pytestmark = pytest.mark.usefixtures("one_message")


def test_two_users_who_are_one(site: Site) -> None:
    with (site.root / "users").open("a") as users:
        users.write("bob@x.org:{PLAIN}x\nBob@x.org:{PLAIN}y\nbob@X.ORG:{PLAIN}x\n")
    only(site, "fault", r"users lines 2 and 4: 'bob@x.org' and 'bob@X.ORG' are one name, 'bob@x.org', so none of them")
    change(site, "[auth]", '[auth]\nusernames = "lower"')
    only(site, "fault", r"users lines 2 and 3 and 4: 'bob@x.org' and 'Bob@x.org' and 'bob@X.ORG' are one name")
    change(site, '"lower"', '"as-is"')
    assert found(site) == []


def test_a_mailbox_in_another_spelling(site: Site, run_pop3d) -> None:
    with (site.root / "users").open("a") as users:
        users.write("Bob@Example.ORG:{PLAIN}x\n")
    other = site.maildir("bob@example.org", {"new/1.host": b"1\n"})
    said = only(
        site, "fault", r"mail/bob@example.org: the mailbox of 'Bob@Example.ORG' is .*/mail/Bob@Example.ORG, and"
    )
    assert f"mv {other} {site.root / 'mail/Bob@Example.ORG'}" in said
    site.maildir("Bob@Example.ORG", {"new/2.host": b"2\n"})
    said = only(site, "fault", "shown to nobody")
    words = re.search(r"`pop3d (import .*)`", said)
    assert words is not None
    assert run_pop3d(*words[1].split(), "--config", str(site.config)).returncode == 0
    assert len(files(site.root / "mail/Bob@Example.ORG")) == 2
    change(site, "[auth]", '[auth]\nusernames = "as-is"')
    assert found(site) == []  # it may be of a program that has users of its own


def test_folders_of_domains(site: Site) -> None:
    (site.root / "users").write_text("bob@example.org:{PLAIN}x\n")
    change(site, "mail/{user}", "mail/{domain}/{local}/Maildir")
    site.maildir("Example.org/bob/Maildir", {"new/1.host": b"1\n"})
    told = r"mail/Example.org/bob/Maildir: the mailbox of 'bob@example.org' is .*/example.org/bob/Maildir"
    _obey(only(site, "fault", told))
    assert found(site) == []
    assert len(files(site.root / "mail/example.org/bob/Maildir")) == 1


@pytest.mark.parametrize("there", [(), ("example.org",), ("example.org/bob",), ("example.org/bob/Maildir",)])
@pytest.mark.parametrize("other", ["Example.org/bob", "example.org/Bob", "Example.org/BOB"])
def test_what_to_do_can_be_done(site: Site, other: str, there: tuple[str, ...]) -> None:
    """Also where the folder above a mailbox is not there in that spelling, or is without a mailbox."""
    (site.root / "users").write_text("bob@example.org:{PLAIN}x\n")
    change(site, "mail/{user}", "mail/{domain}/{local}/Maildir")
    site.maildir(f"{other}/Maildir", {"new/1.host": b"1\n"})
    for folder in there:
        (site.root / "mail" / folder).mkdir(parents=True, exist_ok=True)
    _obey(only(site, "fault", "shown to nobody"))
    assert found(site) == []
    assert len(files(site.root / "mail/example.org/bob/Maildir")) == 1


def _obey(told: str) -> None:
    """Do what a finding says behind its first semicolon."""
    command = told.partition("; ")[2].partition(", or name the user")[0]
    subprocess.run(["/bin/sh", "-ec", command], check=True, timeout=60)


def test_where_users_are_in_no_file(site: Site) -> None:
    text = site.config.read_text().replace('users = "users"', 'backend = "pam"')
    site.config.write_text(text)
    site.maildir("Alice@Example.ORG", {"new/1.host": b"1\n"})
    told = [text for kind, text in found(site) if "shown to nobody" in text]
    assert len(told) == 1
    assert "'Alice@example.org'" in told[0]


def test_users_of_a_database_whom_no_login_finds(site: Site, database: str) -> None:
    from tests.postgres import execute  # needs an extra, as the fixture does

    execute(
        database,
        "insert into pop3_users values ('Alice', 'x', null), ('bob@Example.ORG', 'x', null), ('c@x.org', 'x', null)",
    )
    change(site, 'users = "users"', f'backend = "postgres"\n[auth.postgres]\nconninfo = "{database}"')
    said = only(site, "fault", "1 user, such as 'bob@Example.ORG', for it is looked up as 'bob@example.org'")
    assert "let `query` compare with lower(name)" in said
    query = "select password, name from pop3_users where lower(name) = lower(%(user)s)"
    change(site, "[auth.postgres]", f'[auth.postgres]\nquery = "{query}"')
    assert found(site) == []
    execute(database, "alter table pop3_users rename to others")
    assert [kind for kind, _ in found(site)] == ["fault"]  # of the query alone
