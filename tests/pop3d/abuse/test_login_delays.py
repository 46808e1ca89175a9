"""How long ago each account logged in."""

import pytest

from pop3d.abuse import login_delays
from pop3d.abuse.login_delays import LoginDelays


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_login_too_soon_changes_nothing() -> None:
    clock = Clock()
    delays = LoginDelays(clock)
    assert not delays.is_too_soon("alice", 60)
    delays.logged_in("alice", 60)
    clock.now += 59
    assert delays.is_too_soon("alice", 60)
    assert not delays.is_too_soon("bob", 60)
    assert not delays.is_too_soon("alice", 30)  # a shorter one since
    clock.now += 1
    assert not delays.is_too_soon("alice", 60)


def test_what_is_over_is_forgotten_and_without_a_delay_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_delays, "_ACCOUNTS_MAX", 3)
    clock = Clock()
    delays = LoginDelays(clock)
    delays.logged_in("nobody", 0)
    for number in range(5):
        delays.logged_in(f"user{number}", 60)
    assert list(delays._last) == ["user2", "user3", "user4"]
    clock.now += 61
    delays.logged_in("alice", 60)
    assert list(delays._last) == ["alice"]
