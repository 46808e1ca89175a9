"""Sockets that listen: which families a host means, and what their connections inherit."""

import errno
import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from pop3d.net import listening
from pop3d.net.listening import bound, give_up_lost_clients


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
IPV4, IPV6 = int(socket.AF_INET), int(socket.AF_INET6)


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listens(sockets: list[socket.socket], stack: ExitStack) -> tuple[int, dict[int, str]]:
    """The port, which all have, and the address by family."""
    for sock in sockets:
        stack.enter_context(sock).listen()
    (port,) = {sock.getsockname()[1] for sock in sockets}
    return port, {int(sock.family): sock.getsockname()[0] for sock in sockets}


def answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 5).close()
    except ConnectionRefusedError:
        return False
    return True


@needs_ipv6
@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("*", {IPV6: "::", IPV4: "0.0.0.0"}),
        ("0.0.0.0", {IPV4: "0.0.0.0"}),
        ("::", {IPV6: "::"}),
        ("::1", {IPV6: "::1"}),
        ("127.0.0.1", {IPV4: "127.0.0.1"}),
    ],
)
def test_a_host_means_these_families_and_no_other(host: str, addresses: dict[int, str], opened: ExitStack) -> None:
    port, found = listens(bound(host, 0), opened)
    assert found == addresses
    assert answers("127.0.0.1", port) == (IPV4 in addresses)
    assert answers("::1", port) == (IPV6 in addresses)


def test_a_name_means_all_its_addresses(opened: ExitStack) -> None:
    _, found = listens(bound("localhost", 0), opened)
    assert set(found.values()) <= {"127.0.0.1", "::1"} and found


@pytest.mark.parametrize("code", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
@pytest.mark.parametrize("lacking", [IPV6, IPV4])
def test_a_family_that_the_machine_lacks_is_left_out_and_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, opened: ExitStack, code: int, lacking: int
) -> None:
    if lacking == IPV4 and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    real = listening.open_socket

    def refused(address: tuple[int, str], port: int, **options: Any) -> socket.socket:
        if address[0] == lacking:
            raise OSError(code, "not here")
        return real(address, port, **options)

    monkeypatch.setattr(listening, "open_socket", refused)
    caplog.set_level(logging.INFO, "pop3d")
    monkeypatch.setattr(logging.getLogger("pop3d"), "propagate", True)
    _, found = listens(bound("*", 0), opened)
    assert set(found) == {IPV4, IPV6} - {lacking}
    (told,) = set(caplog.messages)  # a test before may have left a handler, which catches it too
    assert told.startswith("not listening on ") and "host *: not here" in told


def test_without_any_family_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(address: tuple[int, str], port: int, **_: Any) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "not here")

    monkeypatch.setattr(listening, "open_socket", refused)
    with pytest.raises(OSError, match="not here"):
        bound("*", 0)


@needs_ipv6
def test_a_port_that_is_taken_leaves_nothing_open(opened: ExitStack) -> None:
    taken = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    port = taken.getsockname()[1]
    with pytest.raises(OSError, match="in use"):
        bound("*", port)
    listens(bound("::", port), opened)  # it was bound first, and is free again


@needs_ipv6
def test_the_system_s_choice_is_made_again_when_it_is_taken_in_the_other_family(
    monkeypatch: pytest.MonkeyPatch, opened: ExitStack
) -> None:
    real, taken = listening.open_socket, [IPV4]

    def in_use(address: tuple[int, str], port: int, **options: Any) -> socket.socket:
        if address[0] in taken:
            taken.remove(address[0])
            raise OSError(errno.EADDRINUSE, "taken")
        return real(address, port, **options)

    monkeypatch.setattr(listening, "open_socket", in_use)
    _, found = listens(bound("*", 0), opened)
    assert set(found) == {IPV4, IPV6}


@pytest.mark.parametrize("name", ["a" * 64, "nowhere.invalid", ".."])
def test_what_is_no_name_is_an_oserror(name: str) -> None:
    with pytest.raises(OSError, match=r"."):
        bound(name, 0)


OPTIONS = {"TCP_KEEPIDLE": 45, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 90_000}


@pytest.mark.skipif(not all(hasattr(socket, name) for name in OPTIONS), reason="the system lacks an option")
@pytest.mark.parametrize(
    ("lost_after", "write_timeout", "options"),
    [
        (90, 60, OPTIONS),
        # a client that takes nothing, and lives, has all of its write_timeout
        (90, 300, {**OPTIONS, "TCP_USER_TIMEOUT": 305_000}),
        (3, 1, {"TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 6_000}),
    ],
)
def test_connections_inherit_when_their_client_is_given_up(
    lost_after: float, write_timeout: float, options: dict[str, int], opened: ExitStack
) -> None:
    sockets = bound("127.0.0.1", 0)
    give_up_lost_clients(sockets[0], lost_after, write_timeout)
    listens(sockets, opened)
    opened.enter_context(socket.create_connection(sockets[0].getsockname(), 5))
    accepted = opened.enter_context(sockets[0].accept()[0])
    assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert {name: accepted.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in options} == options
