"""What becomes of a name that somebody says, and which names may never be one."""

import itertools

import pytest

from pop3d.auth.names import AS_IS, UserNames

LOWER_DOMAIN, LOWER = UserNames("lower-domain"), UserNames("lower")


@pytest.mark.parametrize(
    ("said", "as_is", "lower_domain", "lower"),
    [
        ("alice", "alice", "alice", "alice"),
        ("Alice", "Alice", "Alice", "alice"),
        ("Alice@Example.ORG", "Alice@Example.ORG", "Alice@example.org", "alice@example.org"),
        ("A@B@C", "A@B@C", "A@B@c", "a@b@c"),
        ("Alice@", "Alice@", "Alice@", "alice@"),
        ("@Example.ORG", "@Example.ORG", "@example.org", "@example.org"),
        ("JÜRGEN@BÜRO.Example", "JÜRGEN@BÜRO.Example", "JÜRGEN@bÜro.example", "jÜrgen@bÜro.example"),
        ("Alice+X@Example.ORG", "Alice+X@Example.ORG", "Alice+X@example.org", "alice+x@example.org"),
        ("\udcff@\udcffA", "\udcff@\udcffA", "\udcff@\udcffa", "\udcff@\udcffa"),
        ("", "", "", ""),
    ],
)
def test_only_ascii_letters_change(said: str, as_is: str, lower_domain: str, lower: str) -> None:
    for names, wanted in ((AS_IS, as_is), (LOWER_DOMAIN, lower_domain), (LOWER, lower)):
        assert names(said) == wanted
        assert names(names(said)) == wanted
        assert names.key(names(said)) == names.key(said)
    assert (AS_IS.key(said), LOWER_DOMAIN.key(said), LOWER.key(said)) == (as_is, lower, lower)


def test_a_name_without_a_domain_is_given_one() -> None:
    for rule, wanted in (("as-is", "Al@Example.org"), ("lower-domain", "Al@example.org"), ("lower", "al@example.org")):
        names = UserNames(rule, "Example.org")  # type: ignore[arg-type]
        assert names("Al") == names(names("Al")) == wanted
        assert names("Al@Example.net").lower() == "al@example.net"
        assert names("") == ""  # a token without a name names nobody


def test_letters_that_unicode_makes_alike_stay_apart() -> None:
    """A dotless i, a dotted capital, the Kelvin sign, a long s, sharp s, wide letters, composed and decomposed."""
    alike = ["k", "\u212a", "i", "\u0131", "\u0130", "s", "\u017f", "ss", "ß", "ｋ", "é", "e\u0301", "É", "ǆ", "ǅ"]
    for one, other in itertools.combinations(alike, 2):
        for names in (LOWER_DOMAIN, LOWER):
            assert names.key(f"{one}@x") != names.key(f"{other}@x")
            assert names.key(f"x@{one}") != names.key(f"x@{other}")
