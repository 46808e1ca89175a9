from ipaddress import ip_network

from pop3d.abuse.addresses import Trusted
from pop3d.abuse.connection_limits import ConnectionLimits
from pop3d.config import Limits


class Connection:
    def __init__(self, address: str) -> None:
        self.address = address
        self.cut_for: str | None = None

    def abort(self, reason: str) -> None:
        self.cut_for = reason


def test_connections_in_all_and_per_address() -> None:
    guard = ConnectionLimits(Limits(connections=3, connections_per_ip=2))
    first, second = Connection("a"), Connection("a")
    assert guard.admit(first) is None
    assert guard.admit(second) is None
    assert guard.admit(Connection("a")) == "too many connections from this address"
    assert guard.admit(Connection("b")) is None
    assert guard.admit(Connection("c")) == "too many connections"
    guard.release(first)
    assert guard.admit(Connection("c")) is None


def test_strangers_per_address_are_those_not_logged_in() -> None:
    guard = ConnectionLimits(Limits(unauthenticated_per_ip=1))
    first = Connection("a")
    assert guard.admit(first) is None
    assert guard.admit(Connection("a")) is not None
    guard.logged_in(first)
    assert guard.admit(Connection("a")) is None


def test_a_64_of_ipv6_is_one_address() -> None:
    guard = ConnectionLimits(Limits(connections_per_ip=2, unauthenticated_per_ip=1))
    first = Connection("2001:db8::1")
    assert guard.admit(first) is None
    assert guard.admit(Connection("2001:db8::2")) == "too many connections from this address have not logged in"
    assert guard.admit(Connection("2001:db8:0:1::2")) is None
    guard.logged_in(first)
    assert guard.admit(Connection("2001:db8::2")) is None
    assert guard.admit(Connection("2001:db8::3")) == "too many connections from this address"


def test_of_trusted_addresses_only_the_limits_on_all_count() -> None:
    trusted = Trusted([ip_network("192.0.2.0/24")])
    guard = ConnectionLimits(Limits(connections=4, connections_per_ip=1, unauthenticated_per_ip=1), trusted)
    connections = [Connection("192.0.2.1") for _ in range(4)]
    assert [guard.admit(connection) for connection in connections] == [None] * 4
    assert guard.admit(Connection("192.0.2.2")) == "too many connections"
    guard.logged_in(connections[0])
    for connection in connections:
        guard.release(connection)
    assert not guard._of_address
    assert not guard._strangers


def test_the_oldest_stranger_goes_and_users_stay() -> None:
    guard = ConnectionLimits(Limits(unauthenticated=2))
    user, old, new, newest = (Connection(name) for name in "abcd")
    assert guard.admit(user) is None
    guard.logged_in(user)
    for connection in (old, new, newest):
        assert guard.admit(connection) is None
    assert old.cut_for is not None
    assert user.cut_for is new.cut_for is newest.cut_for is None
    guard.release(old)
    guard.release(new)
    assert guard.admit(Connection("e")) is None
    assert newest.cut_for is None


def test_what_left_is_forgotten() -> None:
    guard = ConnectionLimits(Limits())
    for number in range(100):
        connection = Connection(str(number))
        assert guard.admit(connection) is None
        guard.release(connection)
    assert not guard._of_address
    assert not guard._strangers
    assert not guard._strangers_of_address
