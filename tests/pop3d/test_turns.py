"""One client does not keep the event loop from all others: the attacks that did, and a short run of the fuzzer."""

import asyncio
import base64
from collections.abc import Iterator

import pytest

from pop3d import session
from pop3d.testing import serving
from tests.fuzz import turns
from tests.fuzz.hostile import PLAIN, Attack, kinds
from tests.fuzz.measured import Measured
from tests.pop3d.test_session import LOGIN, connected

SECONDS_MAX = 0.02  # of the thread's CPU; four times of what is promised, for a machine with much else to do
MESSAGES, MILLION = 3_000, 200_000
ALICE, LARGE = (b"USER %b\r\nPASS secret\r\n" % user for user in (b"alice", b"million"))
MARKED = b"".join(b"DELE %d\r\n" % number for number in range(1, MESSAGES + 1))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    with Measured(tmp_path_factory.mktemp("turns"), MESSAGES, MILLION) as running:
        yield running


def sasl(answer: bytes) -> list[bytes]:
    return [b"AUTH PLAIN\r\n", base64.b64encode(answer) + b"\r\n"] * 10


@pytest.mark.parametrize(
    ("road", "lines"),
    [
        pytest.param(b"", sasl("\ufdfa".encode() * 3000 + b"\0u\0p"), id="SASLprep of 12 KiB"),
        pytest.param(ALICE + MARKED, [b"LIST\r\n"] * 2730, id="LIST of marked messages"),
        pytest.param(ALICE + MARKED, [b"UIDL\r\n"] * 2730, id="UIDL of marked messages"),
        pytest.param(LARGE, [b"RSET\r\n"] * 2730, id="RSET of a large mailbox"),
        pytest.param(LARGE + MARKED, [b"QUIT\r\n"], id="QUIT with marks"),
        pytest.param(LARGE, [b"LIST\r\n"], id="LIST of a large mailbox"),
        pytest.param(ALICE, [b"TOP 1 60000\r\n"] * 50, id="TOP of many lines"),
        pytest.param(ALICE, [b"TOP 3 0\r\n"] * 500, id="TOP of headers alone"),
        pytest.param(ALICE, [b"CAPA\r\n"] * 2730, id="CAPA"),
    ],
)
def test_no_long_turn(daemon: Measured, road: bytes, lines: list[bytes]) -> None:
    attack = Attack(PLAIN, road, lines)
    first = daemon.longest(attack.listener, attack.said)
    assert turns.steady(daemon, attack, first) < SECONDS_MAX


async def test_a_session_gives_way_between_its_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_TURN", 0.0)  # as if each command took long
    async with serving({"alice": [b"x\n"], "bob": [b"x\n"]}) as server, connected(server) as alice:
        await alice.ask(*LOGIN)
        async with connected(server) as bob:
            await bob.ask("USER bob", "PASS secret")
            done = asyncio.ensure_future(alice.ask(*["STAT"] * 2500))
            answered = 0
            while not done.done():
                assert await bob.ask("NOOP") == ["+OK"]
                answered += 1
            assert await done == ["+OK 1 3"] * 2500
            assert answered > 20


async def test_a_session_that_gave_way_can_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_TURN", 0.0)
    async with serving({"alice": [b"x\n"]}) as server:
        async with connected(server) as alice:
            await alice.ask(*LOGIN)
            alice.writer.write(b"STAT\r\n" * 2500)
            await alice.writer.drain()
            await asyncio.sleep(0.01)
            await server.server.drain(5)
            said = await asyncio.wait_for(alice.reader.read(), 10)
        assert said.endswith(b"-ERR [SYS/TEMP] shutting down; closing\r\n")
        assert server.server.sessions == 0


def test_every_command_and_mechanism_is_a_kind() -> None:
    found = " ".join(kinds({"alice": 1, "million": 1}, 1))
    for name in ("STAT in TRANSACTION", "STLS in AUTHORIZATION", "AUTH SCRAM-SHA-256", "a PROXY header"):
        assert name in found


def test_the_fuzzer_shows_the_longest_turn_of_each_kind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    some = {name: make for name, make in kinds({"alice": 100, "million": 100}, 100).items() if "NOOP" in name}
    monkeypatch.setattr(turns, "kinds", lambda *_: some)
    monkeypatch.setattr(turns, "SMALLER_SECONDS", 0.5)
    few = ["--seconds", "0.1", "--messages", "100", "--million", "100", "--seed", "1"]
    assert turns.main([*few, "--limit", "1000"]) == 0
    assert turns.main([*few, "--limit", "0"]) == 1
    told = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-1].partition(":")[0] for line in told if " ms  " in line].count(
        "NOOP in TRANSACTION, many"
    ) == 2
    assert told[-1] == "2 kinds have a turn of more than 0 ms"
