"""What guessing costs, by a clock of the test's own."""

import contextlib
import heapq
import itertools
import tracemalloc
from collections.abc import Callable
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3d.abuse import attempts
from pop3d.abuse.addresses import Trusted
from pop3d.abuse.attempts import Attempt
from pop3d.abuse.login_throttle import KNOWN_FOR, LoginThrottle, TooMany
from pop3d.config import Limits


class Site:
    """Penalties, and a time that passes when it is told to."""

    def __init__(self, trusted: str = "", **limits: float) -> None:
        self.now = 1000.0
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        networks = Trusted([ip_network(trusted)] if trusted else [])
        limits_of_it = Limits(**limits)  # type: ignore[arg-type]
        self.penalties = LoginThrottle(limits_of_it, networks, b"key", clock=lambda: self.now, later=self._later)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._calls, (self.now + seconds, next(self._count), call))

    def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        while self._calls and self._calls[0][0] <= until:
            self.now, _, call = heapq.heappop(self._calls)
            call()
        self.now = until

    def begin(self, address: str = "192.0.2.1", user: str = "alice", *, served: bool = True) -> Attempt:
        return self.penalties.begin(address, user, served=served)

    def fail(self, address: str = "192.0.2.1", user: str = "alice", *, served: bool = True) -> float:
        """One login that is checked and refused, from its beginning until it is told; seconds."""
        attempt = self.begin(address, user, served=served)
        assert attempt.turn.is_set()
        wait = self.penalties.failed(attempt)
        self.sleep(wait)
        return wait

    def accept(self, address: str = "192.0.2.1", user: str = "alice") -> None:
        self.penalties.accepted(self.begin(address, user), address, user)

    def guesses(self, seconds: float, guesser: Callable[[], list[Attempt]]) -> int:
        """How many logins are checked in that time; all are wrong. ``guesser``: begins new ones, every 100 ms."""
        waiting: list[Attempt] = []
        checked = 0
        for _ in range(round(seconds * 10)):
            waiting += guesser()
            for attempt in [one for one in waiting if one.turn.is_set()]:
                waiting.remove(attempt)
                self.penalties.failed(attempt)
                checked += 1
            self.sleep(0.1)
        for attempt in waiting:
            self.penalties.release(attempt)
        return checked


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
    site.penalties.accepted(attempts[0], "192.0.2.1", "user0")
    assert attempts[4].turn.is_set()
    site.penalties.release(attempts[5])  # waits no more
    site.penalties.accepted(attempts[1], "192.0.2.1", "user1")
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
    site.penalties.release(second)  # a cancelled exchange
    site.penalties.release(second)
    assert third.turn.is_set()


def test_who_logged_in_lately_is_checked_at_once_beside_an_attack() -> None:
    site = Site()
    site.accept(user="owner")
    for _ in range(3):
        site.fail(user="owner2")
    attack = [site.begin() for _ in range(5)]
    owner = site.begin(user="owner")
    assert owner.turn.is_set()
    site.penalties.accepted(owner, "192.0.2.1", "owner")
    assert site.begin(user="owner").turn.is_set()
    assert sum(attempt.turn.is_set() for attempt in attack) == 4  # of a user who has not failed


def test_guessing_a_known_users_password_has_its_own_penalty() -> None:
    site = Site()
    site.accept()
    assert [site.fail() for _ in range(3)] == [2, 4, 8]
    assert [site.begin().turn.is_set() for _ in range(3)] == [True, False, False]
    assert site.begin(user="bob").turn.is_set()  # nobody else has failed here


def test_a_known_user_is_guessed_no_faster_than_another() -> None:
    site = Site()
    site.accept()
    owner = site.guesses(60, lambda: [site.begin() for _ in range(20)] if site.now == 1000 else [])
    other = Site()
    assert owner <= other.guesses(60, lambda: [other.begin() for _ in range(20)] if other.now == 1000 else [])


def test_a_known_user_is_forgotten_after_a_week() -> None:
    for age, known in ((KNOWN_FOR - 1, True), (KNOWN_FOR + 1, False)):
        site = Site()
        site.accept()
        site.sleep(age)
        for number in range(4):
            site.penalties.failed(site.begin(user=f"user{number}"))
        assert site.begin().turn.is_set() is known


def test_who_is_known_is_told_and_remembered_by_the_same_key() -> None:
    site = Site()
    site.accept()
    assert site.penalties.changed
    site.penalties.changed = False
    site.sleep(60)
    site.accept()
    assert not site.penalties.changed  # it was known already
    again = Site()
    again.penalties.remember(site.penalties.known())
    assert [age for _, age in again.penalties.known()] == [60]
    again.sleep(KNOWN_FOR - 61)
    for number in range(6):
        again.penalties.failed(again.begin(user=f"user{number}"))
    assert again.begin().turn.is_set()
    again.sleep(1)
    assert not again.begin().turn.is_set()


def test_an_account_is_known_by_its_name_and_by_how_it_was_spelled() -> None:
    site = Site()
    attempt = site.begin(user="alias")
    site.penalties.accepted(attempt, "192.0.2.1", "alice")
    assert len(site.penalties.known()) == 2
    for number in range(4):
        site.penalties.failed(site.begin(user=f"user{number}"))
    assert [site.begin(user=name).turn.is_set() for name in ("alias", "alice", "bob")] == [True, True, False]


def test_a_good_login_takes_back_what_the_same_user_failed_here() -> None:
    site = Site()
    assert [site.fail() for _ in range(3)] == [2, 4, 8]
    site.accept("192.0.2.1", "alice")
    assert site.fail(user="bob") == 2  # as if nobody had failed
    assert site.fail() == 2
    site.accept()
    assert site.fail() == 2  # she is known now, with failures of her own
    assert site.fail(user="bob") == 4  # bob's are his


def test_a_good_login_takes_back_nothing_of_others() -> None:
    site = Site()
    for _ in range(3):
        site.fail(user="alice")
        site.accept(user="guesser")
    assert site.fail(user="alice") == 15


def test_a_mechanism_that_cannot_serve_counts_against_no_other_way_to_log_in() -> None:
    site = Site(auth_failures_per_account=3)
    told = [site.fail(served=False), site.fail(served=False), site.fail(user="nobody")]
    assert told == [2, 4, 8]  # as an unknown user is told, for the third time at this address
    for number in range(2, 5):
        site.penalties.failed(site.begin(f"192.0.2.{number}", served=False))
    with pytest.raises(TooMany, match="of this user"):  # as unknown ones are, and only by this mechanism
        site.begin("192.0.2.2", served=False)
    site.sleep(20)  # its place is free again
    assert site.begin("192.0.2.2").turn.is_set()


# --- many users behind one address ---


def test_who_guesses_one_password_does_not_hold_up_others_at_the_same_address() -> None:
    site = Site()
    for attempt in [site.begin(user="victim") for _ in range(3)]:
        site.penalties.failed(attempt)
    attack = [site.begin(user="victim") for _ in range(17)]
    for number in range(5):
        attempt = site.begin(user=f"new{number}")
        site.sleep(1)
        assert attempt.turn.is_set()
        site.penalties.accepted(attempt, "192.0.2.1", f"new{number}")
    assert not any(attempt.turn.is_set() for attempt in attack)


def test_guessing_many_users_passwords_from_one_address_becomes_slow() -> None:
    site = Site()
    names = map(str, itertools.count())
    in_half_a_minute = site.guesses(30, lambda: [site.begin(user=next(names)) for _ in range(20 * (site.now == 1000))])
    assert in_half_a_minute <= 30  # one a second
    later = 0
    for _ in range(10):
        begun = site.now

        def spray(begun: float = begun) -> list[Attempt]:
            return [site.begin(user=next(names)) for _ in range(20 * (site.now == begun))]

        later += site.guesses(60, spray)
    assert later <= 10 * 6  # one every 15 s, and what was forgotten meanwhile


def test_an_address_that_guessed_is_free_again_after_a_while() -> None:
    site = Site()
    for number in range(40):
        site.guesses(1, lambda number=number: [site.begin(user=f"user{number}")] if site.now % 1 < 0.05 else [])  # type: ignore[misc]
    site.sleep(20 * 60)
    assert all(site.begin(user=f"new{number}").turn.is_set() for number in range(4))


def test_trusted_addresses_have_no_penalty_and_no_place() -> None:
    site = Site(trusted="192.0.2.0/24", auth_failures_total=6000)
    assert [site.fail(user=f"user{number}") for number in range(20)] == [0] * 20
    site.sleep(2)
    assert all(site.begin(user=f"new{number}").turn.is_set() for number in range(20))


def test_the_limit_of_an_account_holds_for_trusted_addresses_known_there_or_not() -> None:
    site = Site(trusted="192.0.2.1/32", auth_failures_total=6000)
    for _ in range(2):
        for _ in range(30):
            assert site.fail() == 0
        with pytest.raises(TooMany, match="of this user"):
            site.begin()
        site.sleep(61)
        site.accept()


def test_an_attack_from_elsewhere_does_not_keep_a_known_user_of_a_trusted_address_out() -> None:
    site = Site(trusted="192.0.2.1/32")
    site.accept()
    for number in range(30):
        site.penalties.failed(site.begin(f"198.51.100.{number}"))
    assert site.begin().turn.is_set()


# --- one host with many addresses, and many hosts ---


def honest_seconds(site: Site, attack: Callable[[], list[Attempt]], address: str) -> tuple[float, float]:
    """Guesses a second, and the longest time that a new user from ``address`` waited for his turn."""
    begun, guesses, longest = site.now, 0, 0.0
    for number in range(12):
        guesses += site.guesses(4, attack)
        honest = site.begin(address.format(number), f"honest{number}")
        asked = site.now
        while not honest.turn.is_set():
            guesses += site.guesses(0.1, attack)
        longest = max(longest, site.now - asked)
        site.penalties.accepted(honest, address.format(number), f"honest{number}")
    return guesses / (site.now - begun), longest


def test_one_host_with_a_56_guesses_once_a_second_and_keeps_nobody_out() -> None:
    site = Site()
    names = map(str, itertools.count())

    def attack() -> list[Attempt]:
        return [site.begin(f"2001:db8:1:{next(hosts) % 256:x}::1", next(names)) for _ in range(20)]

    hosts = itertools.count()
    rate, waited = honest_seconds(site, attack, "2001:db8:5:{}00::1")
    assert rate <= 1.3
    assert waited <= 0.2


def test_many_hosts_together_guess_ten_times_a_second_and_a_new_user_waits_no_second() -> None:
    site = Site()
    names, hosts = map(str, itertools.count()), itertools.count()

    def attack() -> list[Attempt]:
        begun = []
        for _ in range(10):
            number = next(hosts) % 5000
            with contextlib.suppress(TooMany):
                begun.append(site.begin(f"10.0.{number // 250}.{number % 250}", next(names)))
        return begun

    site.guesses(60, attack)  # each has failed
    rate, waited = honest_seconds(site, attack, "198.51.100.{}")
    assert rate <= 10.5
    assert waited <= 1


def test_many_at_once_from_one_address_delay_one_from_elsewhere_by_one() -> None:
    site = Site(auth_penalty=0)
    many = [site.begin(user=f"user{number}") for number in range(50)]
    assert sum(attempt.turn.is_set() for attempt in many) == 10
    one = site.begin("198.51.100.7", "cheap")
    site.sleep(0.2)
    assert one.turn.is_set()
    assert sum(attempt.turn.is_set() for attempt in many) <= 11
    site.sleep(5)
    assert all(attempt.turn.is_set() for attempt in many)


def test_the_owner_gets_in_from_an_address_that_has_not_failed() -> None:
    site = Site()
    for number in range(30):
        site.penalties.failed(site.begin(f"192.0.2.{number}"))
        site.sleep(0.5)
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


def test_beyond_the_total_the_known_are_checked_at_once_and_others_in_turn() -> None:
    site = Site(auth_failures_total=20)
    site.accept("198.51.100.7", "owner")
    for number in range(4):
        site.penalties.failed(site.begin(f"192.0.2.{number}", f"user{number}"))
        site.sleep(3.3)
    attack, new = site.begin("192.0.2.1", "user9"), site.begin("198.51.100.8")
    third = site.begin("192.0.2.2", "user8")
    assert site.begin("198.51.100.7", "owner").turn.is_set()
    site.sleep(3.3)
    assert new.turn.is_set()
    site.penalties.release(attack)
    site.sleep(3.3)
    assert third.turn.is_set()


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
    monkeypatch.setattr(attempts, "ENTRIES_MAX", 3)
    site = Site()
    for number in range(4):
        site.fail(f"192.0.2.{number}", f"user{number}")
    assert site.fail("192.0.2.0") == 2  # forgotten: it was there longest ago
    assert site.fail("192.0.2.3") == 4


def test_tables_are_bounded_in_octets_however_long_names_are() -> None:
    site = Site()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(500):
            user, address = f"{number}" * 3000, f"10.0.{number % 250}.{number // 250}"
            site.penalties.failed(site.begin(address, user))
            attempt = site.begin(f"10.1.{number % 250}.{number // 250}", user + "x")
            site.penalties.accepted(attempt, "10.1.1.1", user + "x")
            site.sleep(20)
        each = (tracemalloc.get_traced_memory()[0] - before) / 500
    finally:
        tracemalloc.stop()
    assert each < 8 * 500  # octets: of each login, an entry in four tables


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
            site.penalties.release(open_attempts.pop(which % len(open_attempts)))
        elif running:
            attempt = running[which % len(running)]
            open_attempts.remove(attempt)
            if what == "accepted":
                site.penalties.accepted(attempt, "192.0.2.1", "somebody")
            else:
                site.penalties.failed(attempt)
    for attempt in open_attempts:
        site.penalties.release(attempt)
    site.sleep(1000)
    for number in range(3):  # nothing is held for ever
        fresh = site.begin(f"192.0.2.{number}", f"user{number}")
        assert fresh.turn.is_set()
        assert fresh.place.checking == 1
        assert not fresh.place.waiting
        assert not any(gate.waiting for gate in fresh.gates)
        site.penalties.release(fresh)
        assert fresh.place.checking == 0
    assert site.penalties._all.under_way == 0
