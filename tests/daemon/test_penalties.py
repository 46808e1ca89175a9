"""What guessing costs, by a clock of the test's own."""

import heapq
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3d import penalties
from pop3d.config import Limits
from pop3d.penalties import Attempt, Penalties, TooMany, source_of


class Site:
    """Penalties, and a time that passes when it is told to."""

    def __init__(self, **limits: float) -> None:
        self.now = 1000.0
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self.penalties = Penalties(Limits(**limits), clock=lambda: self.now, later=self._later)  # type: ignore[arg-type]

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._calls, (self.now + seconds, next(self._count), call))

    def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        while self._calls and self._calls[0][0] <= until:
            self.now, _, call = heapq.heappop(self._calls)
            call()
        self.now = until

    def begin(self, address: str = "192.0.2.1", user: str = "alice") -> Attempt:
        return self.penalties.begin(address, user)

    def fail(self, address: str = "192.0.2.1", user: str = "alice") -> float:
        """One login that is checked and refused, from its beginning until it is told; seconds."""
        attempt = self.begin(address, user)
        assert attempt.turn.is_set()
        wait = self.penalties.failed(attempt)
        self.sleep(wait)
        return wait


def test_a_refusal_takes_longer_each_time_up_to_the_most() -> None:
    site = Site()
    assert [site.fail() for _ in range(6)] == [2, 4, 8, 15, 15, 15]


def test_what_the_check_took_is_part_of_the_penalty() -> None:
    site = Site()
    attempt = site.begin()
    site.sleep(0.7)
    assert site.penalties.failed(attempt) == pytest.approx(1.3)
    site.sleep(2)
    slow = site.begin()
    site.sleep(10)
    assert site.penalties.failed(slow) == 0


def test_many_connections_gain_nothing() -> None:
    site = Site()
    attempts = [site.begin() for _ in range(20)]
    checked = 0
    for _ in range(60):  # a minute in which every guess is wrong, and made as soon as it may be
        for attempt in [one for one in attempts if one.turn.is_set()]:
            attempts.remove(attempt)
            site.penalties.failed(attempt)
            checked += 1
        site.sleep(1)
    assert checked == 4 + 3  # those of an address that had not failed; then one every 15 s


def test_an_address_that_has_not_failed_has_four_places_and_a_good_login_frees_one() -> None:
    site = Site()
    attempts = [site.begin(user=f"user{number}") for number in range(6)]
    assert [attempt.turn.is_set() for attempt in attempts] == [True] * 4 + [False] * 2
    site.penalties.accepted(attempts[0])
    assert attempts[4].turn.is_set()
    site.penalties.leave(attempts[5])  # waits no more
    site.penalties.accepted(attempts[1])
    assert not attempts[5].turn.is_set()


def test_who_goes_away_gains_nothing_and_a_place_that_was_not_used_is_free() -> None:
    site = Site()
    site.fail()
    first, second = site.begin(), site.begin()
    assert (first.turn.is_set(), second.turn.is_set()) == (True, False)
    site.penalties.failed(first)
    site.sleep(3.9)  # the client of the first is gone, but not its penalty of 4 s
    assert not second.turn.is_set()
    site.sleep(0.2)
    assert second.turn.is_set()
    third = site.begin()
    site.penalties.leave(second)  # a cancelled exchange
    site.penalties.leave(second)
    assert third.turn.is_set()


def test_who_logged_in_lately_is_checked_at_once_beside_an_attack() -> None:
    site = Site()
    site.penalties.accepted(site.begin(user="owner"))
    for _ in range(3):
        site.fail(user="owner2")
    attack = [site.begin() for _ in range(5)]
    owner = site.begin(user="owner")
    assert owner.turn.is_set()
    site.penalties.accepted(owner)
    assert site.begin(user="owner").turn.is_set()
    assert sum(attempt.turn.is_set() for attempt in attack) == 1


def test_guessing_a_known_users_password_has_its_own_penalty() -> None:
    site = Site()
    site.penalties.accepted(site.begin())
    assert [site.fail() for _ in range(3)] == [2, 4, 8]
    assert [site.begin().turn.is_set() for _ in range(3)] == [True, False, False]
    assert site.begin(user="bob").turn.is_set()  # nobody else has failed here


def test_a_known_user_is_forgotten_after_a_day() -> None:
    site = Site()
    site.penalties.accepted(site.begin())
    site.sleep(24 * 3600 + 1)
    site.fail(user="bob")
    site.begin(user="bob")
    assert not site.begin().turn.is_set()


def test_the_owner_gets_in_from_an_address_that_has_not_failed() -> None:
    site = Site()
    for number in range(30):
        site.penalties.failed(site.begin(f"192.0.2.{number}"))
    with pytest.raises(TooMany, match="of this user"):
        site.begin("192.0.2.1")
    assert site.begin("198.51.100.7").turn.is_set()
    assert site.begin("192.0.2.1", "bob")  # another account is another matter
    site.sleep(61)
    site.begin("192.0.2.2")


def test_tokens_that_name_nobody_are_not_of_one_account() -> None:
    site = Site()
    for number in range(40):
        site.penalties.failed(site.begin(f"192.0.2.{number}", ""))
    site.begin("192.0.2.1", "")
    site.begin("192.0.2.1", "alice")


def test_beyond_the_total_only_the_known_are_checked() -> None:
    site = Site(auth_failures_total=20)
    site.penalties.accepted(site.begin("198.51.100.7", "owner"))
    for number in range(20):
        site.penalties.failed(site.begin(f"192.0.2.{number}", f"user{number}"))
    with pytest.raises(TooMany, match=r"^too many failed logins$"):
        site.begin("198.51.100.8")
    assert site.begin("198.51.100.7", "owner").turn.is_set()
    site.sleep(61)
    assert site.begin("198.51.100.8").turn.is_set()


def test_failures_are_forgiven_after_a_quarter_of_an_hour() -> None:
    site = Site()
    site.fail()
    assert site.fail() == 4
    site.sleep(901)
    assert site.fail() == 2


def test_without_penalties_nobody_waits() -> None:
    site = Site(auth_penalty=0)
    assert [site.fail() for _ in range(5)] == [0] * 5
    assert [site.begin().turn.is_set() for _ in range(4)] == [True] * 4


def test_no_more_than_fifty_wait() -> None:
    site = Site()
    for _ in range(4 + 50):
        site.begin()
    with pytest.raises(TooMany, match="wait"):
        site.begin()


def test_tables_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(penalties, "_ENTRIES_MAX", 3)
    site = Site()
    for number in range(4):
        site.fail(f"192.0.2.{number}", f"user{number}")
    assert site.fail("192.0.2.0") == 2  # forgotten: it was there longest ago
    assert site.fail("192.0.2.3") == 4


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("?", "?"),
    ],
)
def test_what_counts_as_one_address(address: str, source: str) -> None:
    assert source_of(address) == source


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["begin", "accepted", "failed", "leave", "sleep"]), st.integers(0, 2), st.integers(0, 5)
        )
    )
)
def test_whatever_happens_places_are_kept_and_freed(steps: list[tuple[str, int, int]]) -> None:
    site = Site()
    open_attempts: list[Attempt] = []
    for what, who, which in steps:
        running = [attempt for attempt in open_attempts if attempt.turn.is_set()]
        if what == "begin":
            open_attempts.append(site.begin(f"192.0.2.{who}", f"user{which}"))
        elif what == "sleep":
            site.sleep(which * 3)
        elif what == "leave" and open_attempts:
            site.penalties.leave(open_attempts.pop(which % len(open_attempts)))
        elif running:
            attempt = running[which % len(running)]
            open_attempts.remove(attempt)
            (site.penalties.accepted if what == "accepted" else site.penalties.failed)(attempt)
    for attempt in open_attempts:
        site.penalties.leave(attempt)
    site.sleep(60)
    for number in range(3):  # nothing is held for ever
        fresh = site.begin(f"192.0.2.{number}", "somebody")
        assert fresh.turn.is_set()
        assert fresh.source.checking == 1
        assert not fresh.source.waiting
