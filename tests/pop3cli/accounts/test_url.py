"""An account as a URL: user, host, port and kind of TLS, or a refusal that says why."""

from __future__ import annotations

import pytest

from pop3cli.accounts.url import Account, parse_account
from pop3cli.errors import UsageFault


@pytest.mark.parametrize(
    ("url", "account"),
    [
        ("pop3s://alice@mail.example.org", Account("mail.example.org", 995, "alice")),
        ("POP3S://alice@10.0.0.1:8000/", Account("10.0.0.1", 8000, "alice")),
        ("pop3s://a@[::1]:995", Account("::1", 995, "a")),
        ("pop3s://alice%40example.org@mail.example.org", Account("mail.example.org", 995, "alice@example.org")),
        ("pop3://alice@host", Account("host", 110, "alice", stls=True)),
        ("pop3://alice@host:1110", Account("host", 1110, "alice", stls=True)),
        ("pop3s://j%C3%B6rg@host", Account("host", 995, "jörg")),
    ],
)
def test_accounts(url: str, account: Account) -> None:
    assert parse_account(url) == account


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("alice", "not a POP3 URL; give pop3s://user@host"),
        ("imaps://alice@host", "not a POP3 URL"),
        ("pop3s://alice:pa55@host", "a password in the account's URL: other users of this machine could read it"),
        ("pop3s://host", "no user in it"),
        ("pop3s://", "not of the form"),
        ("pop3s://a@.example.org", "not of the form"),
        ("pop3s://a@host/INBOX", "not of the form"),
        ("pop3s://a@host:99999", "Port out of range"),
        ("pop3s://a@host:x", "[Pp]ort"),
        ("pop3s://a@[::1", "Invalid IPv6"),
        ("pop3s://a%0D%0ADELE@host", "no blanks or control characters"),
        ("pop3s://a%20b@host", "no blanks or control characters"),
        ("pop3s://%FF@host", "not UTF-8"),
    ],
)
def test_accounts_that_are_none(url: str, text: str) -> None:
    with pytest.raises(UsageFault, match=text) as caught:
        parse_account(url)
    assert caught.value.status == 2
    assert "pa55" not in str(caught.value)


def test_a_user_may_be_missing_where_nobody_is_needed() -> None:
    assert parse_account("pop3s://host", user_required=False) == Account("host", 995, None)


def test_the_url_in_full_means_the_same() -> None:
    for url in ("pop3s://a@h", "pop3://a%40b%2F@h:1", "pop3s://a@[::1]:9", "pop3s://j%C3%B6rg@h"):
        account = parse_account(url)
        assert parse_account(account.url) == account
