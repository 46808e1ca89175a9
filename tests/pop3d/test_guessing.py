"""Guessing passwords on a real server: what is told of a right guess, of users, and of those who are none."""

import asyncio
import base64
import hashlib
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pop3core.answers import NoSecret, ScramSecret
from pop3core.events import Credential
from pop3core.sasl import scram
from pop3core.sasl.base import SecretKind
from pop3d.assembly import assemble
from pop3d.auth import Account, AuthUnavailable, CannotServe
from pop3d.auth.passwords import hashed
from pop3d.config import Config
from pop3d.server import Server

ALL = ["plain", "login", "apop", "scram-sha-256"]
SSHA = "{SSHA256}" + base64.b64encode(hashlib.sha256(b"secretsalt").digest() + b"salt").decode()


class Client:
    """One that speaks clear text."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, greeting: str) -> None:
        self.reader, self.writer, self.greeting = reader, writer, greeting

    async def ask(self, line: str) -> str:
        self.writer.write(f"{line}\r\n".encode())
        return await self.line()

    async def line(self) -> str:
        return (await asyncio.wait_for(self.reader.readline(), 20)).decode().removesuffix("\r\n")

    async def login(self, user: str, password: str) -> str:
        await self.ask(f"USER {user}")
        return await self.ask(f"PASS {password}")

    async def apop(self, user: str, password: str) -> str:
        stamp = re.search("<.*>", self.greeting)
        assert stamp is not None
        return await self.ask(f"APOP {user} {hashlib.md5((stamp[0] + password).encode()).hexdigest()}")

    async def scram(self, user: str, password: str) -> list[str]:
        """All that the server says behind the proof."""
        steps = scram.client(user, password.encode(), "nonce")
        first = await self.ask(f"AUTH SCRAM-SHA-256 {base64.b64encode(next(steps) or b'').decode()}")
        proof = steps.send(base64.b64decode(first[2:])) or b""
        said = [await self.ask(base64.b64encode(proof).decode())]
        if said[0].startswith("+ "):
            steps.send(base64.b64decode(said[0][2:]))  # raises for an impostor
            said.append(await self.ask(""))
        return said


@asynccontextmanager
async def site(
    folder: Path, users: str, auth: dict[str, object] | None = None, limits: dict[str, float] | None = None
) -> AsyncIterator[Server]:
    """A server with these users, as `assemble` makes it."""
    (folder / "users").write_text(users)
    config = Config.model_validate(
        {
            "hostname": "localhost",
            "state": folder / "state",
            "listen": [{"host": "127.0.0.1", "port": 0, "tls": "none"}],
            "auth": {"users": folder / "users", "mechanisms": ALL, **(auth or {})},
            "store": {"backend": "memory"},
            "limits": {"auth_penalty": 0.3, "auth_penalty_max": 0.3, **(limits or {})},
        }
    )
    server = assemble(config)
    await server.start()
    try:
        yield server
    finally:
        await server.drain(1)


@asynccontextmanager
async def connected(server: Server, host: str = "") -> AsyncIterator[Client]:
    """A client of the first listener; ``host``: by that address of it."""
    address, port = server.addresses[0]
    reader, writer = await asyncio.open_connection(host or address, port)
    greeting = (await reader.readline()).decode()
    try:
        yield Client(reader, writer, greeting)
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


REFUSED = "-ERR [AUTH] wrong user name or password"
LATER = "-ERR [SYS/TEMP] too many failed logins, try again later"


def holds_a_place(server: Server) -> bool:
    """Whether a login is being checked, or its refusal has not been told."""
    return any(place.checking for place in server._throttle._places.values())


@pytest.mark.parametrize("mechanism", ["PASS", "APOP", "SCRAM"])
async def test_a_right_guess_waits_for_its_turn_as_a_wrong_one_does(tmp_path: Path, mechanism: str) -> None:
    limits = {"auth_penalty": 1.0, "auth_penalty_max": 10.0}
    async with (
        site(tmp_path, "alice:{PLAIN}secret\n", limits=limits) as server,
        connected(server) as first,
        connected(server) as guess,
        connected(server) as right,
    ):
        assert await first.login("alice", "wrong") == REFUSED
        while holds_a_place(server):  # for an instant yet
            await asyncio.sleep(0.01)
        wrong = asyncio.create_task(guess.login("alice", "wrong"))
        while not holds_a_place(server):
            await asyncio.sleep(0.01)
        begun = time.monotonic()
        match mechanism:
            case "PASS":
                answer = await right.login("alice", "secret")
            case "APOP":
                answer = await right.apop("alice", "secret")
            case _:
                answer = (await right.scram("alice", "secret"))[-1]
        assert answer.startswith("+OK")
        assert time.monotonic() - begun > 1  # of the 2 s that the wrong one takes
        assert await wrong == REFUSED


@pytest.mark.parametrize("password", ["secret", "wrong"])
async def test_beyond_the_limit_nothing_tells_a_right_guess_from_a_wrong_one(tmp_path: Path, password: str) -> None:
    async with (
        site(tmp_path, "alice:{PLAIN}secret\n", limits={"auth_failures_per_account": 1}) as server,
        connected(server) as client,
    ):
        assert await client.login("alice", "wrong") == REFUSED
        assert await client.login("ALICE", password) == LATER  # whose account it is counts, not how it is spelled
        assert await client.apop("alice", password) == LATER
        assert await client.scram("alice", password) == [LATER]


class Away:
    """An authenticator whose source goes away between the secret and the login."""

    async def authenticate(self, credential: Credential, source: str = "") -> Account | None:
        raise AuthUnavailable("away")

    async def secret(self, username: str, kind: SecretKind, server_nonce: str) -> ScramSecret:
        return ScramSecret(b"salt", 4096, *scram.verifier(b"secret", b"salt"), server_nonce)

    async def reload(self) -> None: ...

    async def close(self) -> None: ...


@pytest.mark.parametrize("password", ["secret", "wrong"])
async def test_a_source_of_users_that_is_away_tells_nothing_either(tmp_path: Path, password: str) -> None:
    async with site(tmp_path, "alice:{PLAIN}secret\n") as server:
        server.authenticator = Away()
        async with connected(server) as client:
            said = await client.scram("alice", password)
        assert said == ["-ERR [SYS/TEMP] logins cannot be checked now, try again later"]


async def test_a_mechanism_that_cannot_serve_is_no_failed_login(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pop3d")
    async with site(tmp_path, f"alice:{SSHA}\n", limits={"auth_failures_per_account": 2}) as server:
        for number in range(5):
            async with connected(server) as client:
                said = await client.scram("alice", "secret") if number % 2 else [await client.apop("alice", "secret")]
                assert said == [REFUSED]  # as an unknown user
                assert (await client.login("alice", "secret")).startswith("+OK")
        assert "authentication failed" not in caplog.text
        assert caplog.text.count("mechanism not served by the stored secret") == 5
        async with connected(server) as client:
            assert await client.apop("nobody", "secret") == REFUSED
    assert caplog.text.count("authentication failed") == 1


# a bell, a replacement character, two directions, only what SASLprep removes, more than it prepares
@pytest.mark.parametrize("password", ["se\acret", "se\ufffdcret", "\u0627a\u0627", "\u00ad", "ü" * 513])
async def test_a_plain_secret_that_saslprep_refuses_serves_only_what_sends_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, password: str
) -> None:
    caplog.set_level("INFO", "pop3d")
    async with site(
        tmp_path, f"alice:{{PLAIN}}{password}\n", {"mechanisms": ["plain", "apop", "scram-sha-256"]}
    ) as server:
        for guess in ("secret", ""):
            async with connected(server) as client:
                assert await client.scram("alice", guess) == [REFUSED]
                assert await client.apop("alice", guess) == REFUSED
                plain = base64.b64encode(f"\0alice\0{password}".encode()).decode()
                if len(password.encode()) <= 1024:
                    assert (await client.ask(f"AUTH PLAIN {plain}")).startswith("+OK")
    assert caplog.text.count("mechanism not served by the stored secret") == 4
    assert "authentication failed" not in caplog.text
    assert "fault of ours" not in caplog.text


async def test_who_is_known_survives_a_restart(tmp_path: Path) -> None:
    for known in (False, True):
        async with site(tmp_path, "alice:{PLAIN}secret\nbob:{PLAIN}secret\n") as server:
            begin = server._throttle.begin
            for number in range(6):
                server._throttle.failed(begin("127.0.0.1", f"user{number}"))
            alice, bob = begin("127.0.0.1", "alice"), begin("127.0.0.1", "bob")
            assert (alice.turn.is_set(), bob.turn.is_set()) == (known, False)
            server._throttle.release(alice)
            server._throttle.release(bob)
            async with connected(server) as client:
                assert (await client.login("alice", "secret")).startswith("+OK")
    kept = (tmp_path / "state" / "keep" / "known-users").read_bytes()
    assert b"alice" not in kept
    assert b"127.0.0.1" not in kept


async def test_trusted_networks_have_no_penalty_and_no_limit_of_connections(tmp_path: Path) -> None:
    limits = {"auth_penalty": 60, "auth_penalty_max": 60, "connections_per_ip": 1, "unauthenticated_per_ip": 1}
    trusted: dict[str, object] = {"trusted_networks": ["127.0.0.0/8"]}
    async with (
        site(tmp_path, "alice:{PLAIN}secret\n", trusted, limits) as server,
        connected(server) as one,
        connected(server) as other,
    ):
        assert [await one.login("alice", "wrong") for _ in range(2)] == [REFUSED] * 2  # at once
        assert (await other.login("alice", "secret")).startswith("+OK")


async def test_who_goes_away_while_a_login_waits_keeps_no_connection(tmp_path: Path) -> None:
    limits = {"auth_penalty": 30, "auth_penalty_max": 30}
    async with site(tmp_path, "alice:{PLAIN}secret\n", limits=limits) as server:
        for _ in range(12):
            async with connected(server) as client:
                await client.ask("USER alice")
                client.writer.write(b"PASS wrong\r\n")
                await client.writer.drain()
        async with asyncio.timeout(15):
            while server.sessions:
                await asyncio.sleep(0.01)
        assert holds_a_place(server)  # the penalty goes on


# --- users who are there, and users who are not ---


def verifier(iterations: int, salt: bytes) -> str:
    parts = (salt, *scram.verifier(b"secret", salt, iterations))
    return f"{{SCRAM-SHA-256}}{iterations}," + ",".join(base64.b64encode(part).decode() for part in parts)


async def shown(server: Server, names: list[str]) -> list[tuple[int, int]]:
    """Iterations, and octets of the salt, that SCRAM shows for these names."""
    found = []
    for name in names:
        answer = await server.authenticator.secret(name, "SCRAM-SHA-256", "nonce")  # type: ignore[attr-defined]
        assert isinstance(answer, ScramSecret | NoSecret)
        found.append((answer.iterations, len(answer.salt)))
    return found


async def test_unknown_users_look_like_the_sites_own(tmp_path: Path) -> None:
    users = "".join(f"user{number}:{verifier(15_000, b's' * 16)}\n" for number in range(3))
    users += f"other:{verifier(4096, b's' * 40)}\nhash:{hashed('secret')}\n"
    names = [f"nobody{number}" for number in range(200)]
    async with site(tmp_path, users) as server:
        unknown = await shown(server, names)
        assert set(unknown) == {(15_000, 16), (4096, 40)}
        assert 25 < unknown.count((4096, 40)) < 85  # a quarter, as with the users
        assert (await shown(server, ["hash"]))[0] in {(15_000, 16), (4096, 40)}
        assert isinstance(await server.authenticator.secret("hash", "SCRAM-SHA-256", ""), CannotServe)  # type: ignore[attr-defined]
        assert await shown(server, names) == unknown
        (tmp_path / "users").write_text(users + f"one-more:{verifier(15_000, b's' * 16)}\n")
        await server.authenticator.reload()
        again = await shown(server, names)
        moved = sum(before != after for before, after in zip(unknown, again, strict=True))
        assert moved < 30  # a twentieth: no more than must
    async with site(tmp_path, users) as server:
        assert await shown(server, names) == unknown  # a restart changes nothing


async def test_a_site_without_verifiers_shows_what_its_users_would_have(tmp_path: Path) -> None:
    async with site(tmp_path, f"alice:{hashed('secret')}\nbob:{{PLAIN}}secret\n") as server:
        assert set(await shown(server, ["alice", "bob", "carol", "dora"])) == {(4096, 16)}
