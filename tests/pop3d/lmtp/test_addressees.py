"""Which names are tried for an address, and in which order."""

import asyncio

import pytest

from pop3d.auth import Account
from pop3d.auth.names import UserNames
from pop3d.config import Lmtp
from pop3d.lmtp import replies
from pop3d.lmtp.addressees import Addressees
from pop3d.lmtp.grammar import mail_path


class Nobody:
    """Knows no user, and who was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def account(self, name: str) -> Account | None:
        self.asked.append(name)
        return None


LOCAL = {"local_domains": ["example.org"]}


@pytest.mark.parametrize(
    ("address", "config", "names", "asked"),
    [
        ("A+b+c@Example.ORG", {}, UserNames(), ["A+b+c@example.org", "A@example.org"]),
        ("A+b@Example.ORG", LOCAL, UserNames(), ["A+b@example.org", "A+b", "A@example.org", "A"]),
        ("a+b@other.example", LOCAL, UserNames(), ["a+b@other.example", "a@other.example"]),
        ("a-b+c@b.example", {"recipient_delimiter": "+-"}, UserNames(), ["a-b+c@b.example", "a@b.example"]),
        ("a+b@b.example", {"recipient_delimiter": ""}, UserNames(), ["a+b@b.example"]),
        ("+a@b.example", {}, UserNames(), ["+a@b.example"]),
        ("A", {}, UserNames("lower", "example.org"), ["a@example.org"]),
        ("a@example.org", LOCAL, UserNames("lower", "example.org"), ["a@example.org"]),
        ('"x@y"@example.org', LOCAL, UserNames(), ["x@y@example.org"]),
        ('"x@y+z"@example.org', LOCAL, UserNames(), ["x@y+z@example.org"]),
        ('"a\\"b"@b.example', {}, UserNames(), ['a"b@b.example']),
        ("@relay.example:a@b.example", {}, UserNames(), ["a@b.example"]),
    ],
)
def test_names_that_are_tried(address: str, config: dict[str, object], names: UserNames, asked: list[str]) -> None:
    users = Nobody()
    path = mail_path(address, replies.BAD_RECIPIENT, utf8=False)
    assert asyncio.run(Addressees(users, names, Lmtp.model_validate(config)).account(path)) is None
    assert users.asked == asked
