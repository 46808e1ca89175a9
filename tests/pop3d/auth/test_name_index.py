"""Who is found by which spelling of a name, and who by none."""

import pytest

from pop3d.auth.name_index import NameIndex
from pop3d.auth.names import AS_IS, UserNames


def index(names: UserNames, *users: str) -> NameIndex:
    return NameIndex(users, names)


def found(names: UserNames, users: str, said: str) -> str | None:
    """As a login finds them: by the name, else by its key."""
    among = index(names, *users.split())
    return among.find(names(said)) or among.find(names.key(said))


@pytest.mark.parametrize(
    ("users", "said", "user"),
    [
        ("alice@example.org", "Alice@Example.ORG", "alice@example.org"),
        ("Alice@Example.ORG", "alice@example.org", "Alice@Example.ORG"),  # called as the file spells it
        ("Alice@Example.ORG", "ALICE@example.org", "Alice@Example.ORG"),
        ("alice Alice", "alice", "alice"),  # two users, each by the own name
        ("alice Alice", "Alice", "Alice"),
        ("alice Alice", "ALICE", "alice"),
        ("Alice aLice", "alice", None),  # which of the two?
        ("Alice aLice", "aLice", "aLice"),
        ("a@x.org a@X.org", "a@x.org", None),  # one name: neither may have the other's mail
        ("a@x.org a@X.org", "a@X.org", None),
        ("A@x.org A@X.org a@x.org", "a@x.org", "a@x.org"),
        ("A@x.org A@X.org aA@x.org", "a@x.org", None),
        ("\u212aim", "kim", None),
    ],
)
def test_lower_domain(users: str, said: str, user: str | None) -> None:
    assert found(UserNames("lower-domain"), users, said) == user


@pytest.mark.parametrize(
    ("users", "said", "user"),
    [
        ("Alice@Example.ORG", "aLICE@example.org", "Alice@Example.ORG"),
        ("alice Alice", "alice", None),
        ("alice Alice bob", "BOB", "bob"),
    ],
)
def test_lower(users: str, said: str, user: str | None) -> None:
    assert found(UserNames("lower"), users, said) == user


def test_as_is_and_a_default_domain() -> None:
    assert found(AS_IS, "alice Alice", "ALICE") is None
    assert found(AS_IS, "alice Alice", "Alice") == "Alice"
    with_domain = UserNames("lower", "example.org")
    assert found(with_domain, "alice@example.org", "Alice") == "alice@example.org"
    assert found(with_domain, "alice", "alice@Example.org") == "alice"
    assert found(with_domain, "alice alice@example.org", "alice") is None


def test_clashes_are_named() -> None:
    clashing = index(UserNames("lower"), "Bob", "alice", "BOB", "bob", "carol").clashes
    assert clashing == {"bob": ["Bob", "BOB", "bob"]}
