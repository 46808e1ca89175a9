"""The extra fields of a Dovecot passwd-file: what is obeyed, what forbids, what is named only."""

from ipaddress import ip_network

import pytest

from pop3d.auth.extra_fields import FIELDS, FieldMeaning, meaning_of, read_extra_fields


def test_a_table_that_names_each_field_once_and_says_why() -> None:
    names = [row.name for row in FIELDS]
    assert len(names) == len(set(names))
    assert all(row.why and "*" not in row.name[:-1] for row in FIELDS)


@pytest.mark.parametrize(
    ("name", "meaning", "row"),
    [
        ("nologin", FieldMeaning.OBEYED, "nologin"),
        ("proxy", FieldMeaning.FORBIDS, "proxy"),
        ("proxy_maybe", FieldMeaning.FORBIDS, "proxy_maybe"),
        ("proxy_timeout", FieldMeaning.UNUSED, "proxy_*"),
        ("userdb_mail_path", FieldMeaning.UNUSED, "userdb_mail*"),
        ("userdb_nice", FieldMeaning.UNUSED, "userdb_*"),
        ("colour", FieldMeaning.UNUSED, "colour"),
    ],
)
def test_the_row_of_a_field(name: str, meaning: FieldMeaning, row: str) -> None:
    assert (meaning_of(name).meaning, meaning_of(name).name) == (meaning, row)


@pytest.mark.parametrize(
    ("text", "forbidden"),
    [
        ("", ""),
        ("nodelay=y userdb_mail=maildir:~/Maildir k5principals=a@B", ""),
        ("nologin", "nologin"),
        ("nologin=no", "nologin"),  # Dovecot looks at the name alone
        ("userdb_mail=x  nologin=y reason=moved", "nologin"),
        ("colour=blue\tnologin", "nologin"),
        ("proxy=y nologin", "nologin"),
        ("nologin:default", "nologin"),
        ("nologin:protected=y", "nologin"),
        ("nologin nologin:remove", ""),
        ("nologin:remove nologin", "nologin"),
        (":default =x", ""),
        ("proxy host=10.0.0.1", "proxy: the mailbox is on another server"),
        ("host=10.0.0.1", "host: the mailbox is on another server"),
        ("nopassword=y", "nopassword: any password would do"),
        ("noauthenticate", "noauthenticate: this entry authenticates nobody"),
        ("user=bob", "user: the login would be another user's"),
        ("user=alice", ""),
        ("fail=y", "fail: every login fails"),
        ("expired=y", "expired: the password has expired"),
        (
            "allow_real_nets=10.0.0.0/8",
            "allow_real_nets: networks of proxies are not checked for a user; use allow_nets",
        ),
        ("delay_until=1000", ""),
        ("delay_until=999+30", ""),
        ("delay_until=1001+30", "delay_until: not before 1001"),
        ("delay_until=soon", "delay_until: not a time in seconds since 1970"),
        ("delay_until=" + "9" * 5000, "delay_until: not a time in seconds since 1970"),
    ],
)
def test_what_forbids_a_login(text: str, forbidden: str) -> None:
    assert read_extra_fields(text, "alice", now=1000).forbidden == forbidden


def test_networks_that_a_user_may_log_in_from() -> None:
    read = read_extra_fields("allow_nets=192.0.2.9/24,2001:db8::/32,local,::ffff:198.51.100.0/120,203.0.113.7", "alice")
    assert read.networks == tuple(
        map(ip_network, ("192.0.2.0/24", "2001:db8::/32", "198.51.100.0/24", "203.0.113.7/32"))
    )
    assert (read.forbidden, read.faults) == ("", ())


def test_a_network_that_is_none_lets_nobody_in() -> None:
    read = read_extra_fields("allow_nets=office,10.0.0.0/8", "alice")
    assert (read.networks, read.forbidden) == ((ip_network("10.0.0.0/8"),), "")
    assert read.faults == ("allow_nets: 'office' is no network",)
    for text in ("allow_nets=office", "allow_nets=", "allow_nets", "allow_nets=local"):
        assert read_extra_fields(text, "alice").forbidden == "allow_nets: no network is left to log in from", text


def test_of_two_lists_of_networks_what_is_in_both() -> None:
    read = read_extra_fields("allow_nets=10.0.0.0/8,192.0.2.0/24,::/0 allow_nets=10.1.0.0/16,192.0.0.0/8", "alice")
    assert read.networks == (ip_network("10.1.0.0/16"), ip_network("192.0.2.0/24"))
    for text in ("allow_nets=10.0.0.0/8 allow_nets=11.0.0.0/8", "allow_nets=x allow_nets=11.0.0.0/8"):
        assert read_extra_fields(text, "alice").forbidden, text


def test_what_has_no_effect_is_named_once() -> None:
    read = read_extra_fields("colour=a nodelay colour=b userdb_mail=maildir:~/M nologin", "alice")
    assert read.unused == ("colour", "nodelay", "userdb_mail")
