import os
import pwd

import pytest

from pop3d.system.privileges import Identity, resolve


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
