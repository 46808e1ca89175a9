import os
import pwd

import pytest

from pop3d.system.privileges import Identity, IdentityDoubt, ProcessIdentity, process_identity, resolve


def test_by_name_and_by_number() -> None:
    me = pwd.getpwuid(os.getuid())
    assert resolve(me.pw_name, None) == Identity(me.pw_uid, me.pw_gid)
    assert resolve("#1000", "#1001") == Identity(1000, 1001)
    assert resolve(me.pw_name, "#7") == Identity(me.pw_uid, 7)
    assert resolve("root", "root") == Identity(0, 0)


@pytest.mark.parametrize(
    ("user", "group", "words"),
    [
        ("no-such-user", None, "no user"),
        ("root", "no-such-group", "no group"),
        ("#1000", None, "`group` must be given"),
        ("#-1", "#0", "no number"),
        ("#", "#0", "no number"),
        ("#1000", "#٣", "no number"),
    ],
)
def test_what_cannot_be_resolved(user: str, group: str | None, words: str) -> None:
    with pytest.raises(LookupError, match=words):
        resolve(user, group)


@pytest.mark.parametrize(
    ("us", "user", "expected", "becomes"),
    [
        (0, None, ProcessIdentity(None, IdentityDoubt.NOBODY), None),
        (0, "#1000", ProcessIdentity(Identity(1000, 7)), Identity(1000, 7)),
        (0, "root", ProcessIdentity(Identity(0, 7), IdentityDoubt.ROOT), Identity(0, 7)),
        (1000, None, ProcessIdentity(None), None),
        (1000, "#1000", ProcessIdentity(Identity(1000, 7)), None),
        (1000, "#1001", ProcessIdentity(Identity(1001, 7), IdentityDoubt.ANOTHER), None),
        (1000, "root", ProcessIdentity(Identity(0, 7), IdentityDoubt.ROOT), None),
    ],
)
def test_whom_a_process_becomes(
    us: int, user: str | None, expected: ProcessIdentity, becomes: Identity | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: us)
    assert process_identity(user, "#7") == expected
    assert expected.becomes == becomes
