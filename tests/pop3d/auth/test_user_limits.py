"""Limits of one user: what is written down, in our words and in Dovecot's, and what is no limit."""

import math
from decimal import Decimal

import pytest

from pop3d.auth.extra_fields import read_extra_fields
from pop3d.auth.user_limits import NO_LIMITS, UserLimits, read_limit_columns, read_user_limits


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("", NO_LIMITS),
        ("colour=blue userdb_home=/x", NO_LIMITS),
        ("quota_octets=1000 quota_messages=7", UserLimits(1000, 7)),
        ("quota_octets=2M", UserLimits(2 * 2**20)),
        ("quota_octets=0", UserLimits(0)),
        ("userdb_quota_rule=*:storage=100M:messages=1000", UserLimits(100 * 2**20, 1000)),
        ("userdb_quota_rule=*:storage=100", UserLimits(100 * 1024)),  # kilobytes, as Dovecot has it
        ("userdb_quota_rule=*:bytes=100", UserLimits(100)),
        ("userdb_quota_rule=?:storage=1g", UserLimits(2**30)),
        ("userdb_quota_rule=*:messages=2K", UserLimits(None, 2048)),
        ("userdb_quota_rule=*:ignore", UserLimits(0, 0)),
        ("userdb_quota_rule=Trash:storage=+100M", NO_LIMITS),
        ("userdb_quota_storage_size=5T userdb_quota_message_count=9", UserLimits(5 * 2**40, 9)),
        ("userdb_quota_rule=*:storage=1M quota_octets=5", UserLimits(5)),
        ("login_delay=60", UserLimits(login_delay=60)),
        ("login_delay=0 expire=0", UserLimits(login_delay=0, expire=0)),
        ("expire=30", UserLimits(expire=30)),
        ("expire=Never", UserLimits(expire=math.inf)),
        ("require_tls", UserLimits(require_tls=True)),
        ("require_tls=no nologin", UserLimits(require_tls=True)),  # as with nologin: the name alone counts
    ],
)
def test_what_is_read(text: str, limits: UserLimits) -> None:
    read = read_extra_fields(text, "alice")
    assert (read.limits, read.faults) == (limits, ())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("quota_octets", "lots"),
        ("quota_octets", "-1"),
        ("quota_octets", "9" * 19 + "T"),
        ("quota_octets", ""),
        ("quota_messages", "1.5"),
        ("quota_messages", "\u0661"),
        ("userdb_quota_rule", "100M"),
        ("userdb_quota_rule", "*:storage=+10%"),
        ("userdb_quota_rule", "*:room=5"),
        ("login_delay", "86401"),
        ("login_delay", "soon"),
    ],
)
def test_what_cannot_be_read_leaves_what_is_configured(name: str, value: str) -> None:
    limits, faults = read_user_limits({name: value})
    assert limits == NO_LIMITS
    assert len(faults) == 1
    assert faults[0].startswith(f"{name}: ")


@pytest.mark.parametrize("value", ["soon", "", "-1", "36501", "30 days", "1e3"])
def test_a_time_that_cannot_be_read_lets_no_mail_go(value: str) -> None:
    limits, faults = read_user_limits({"expire": value})
    assert limits == UserLimits(expire=math.inf)
    assert len(faults) == 1


@pytest.mark.parametrize(
    ("row", "limits"),
    [
        ({}, NO_LIMITS),
        ({"quota_octets": None, "login_delay": None, "expire_days": None, "require_tls": None}, NO_LIMITS),
        ({"require_tls": False}, NO_LIMITS),
        ({"quota_octets": 100, "quota_messages": Decimal("1000")}, UserLimits(100, 1000)),
        ({"quota_octets": 2.0, "login_delay": 0}, UserLimits(2, login_delay=0)),
        ({"expire_days": 30}, UserLimits(expire=30)),
        ({"expire_days": "never", "require_tls": True}, UserLimits(expire=math.inf, require_tls=True)),
    ],
)
def test_columns_of_a_query(row: dict[str, object], limits: UserLimits) -> None:
    assert read_limit_columns(row) == (limits, [])


@pytest.mark.parametrize("days", [1.5, Decimal("-1"), Decimal("Infinity"), math.nan, True, b"30"])
def test_a_column_that_cannot_be_read_lets_no_mail_go(days: object) -> None:
    limits, faults = read_limit_columns({"expire_days": days})
    assert limits == UserLimits(expire=math.inf)
    assert len(faults) == 1
