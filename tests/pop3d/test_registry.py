"""Who is logged in: entered at login, gone when the lock is free."""

import asyncio
import time
from pathlib import Path

from pop3d.registry import Registry
from tests.pop3d.test_guessing import connected, site


class Session:
    """One that does nothing."""

    user = "alice"
    address = "192.0.2.1"
    since = seconds = 0.0
    tls_version = mechanism = ""

    def close(self, reason: str) -> None:
        raise AssertionError(reason)

    abort = close


def test_sessions_of_a_user() -> None:
    registry, first, second, other = Registry(), Session(), Session(), Session()
    registry.add("alice", first)
    registry.add("bob", other)
    registry.add("alice", second)
    assert list(registry) == [first, second, other] and len(registry) == 3
    assert registry.of("alice") == (first, second) and registry.of("carol") == ()
    registry.discard("alice", first)
    registry.discard("alice", first)
    registry.discard("bob", first)  # of somebody else
    assert list(registry) == [second, other]
    registry.discard("alice", second)
    registry.discard("bob", other)
    assert len(registry) == 0 and not registry._of_user  # of users who are gone, nothing is left


async def test_a_session_is_there_from_its_login_until_its_lock_is_free(tmp_path: Path) -> None:
    async with site(tmp_path, "alice:{PLAIN}secret\n") as server:
        async with connected(server) as client:
            await client.ask("USER alice")
            assert len(server.registry) == 0
            before = time.time()
            assert (await client.ask("PASS secret")).startswith("+OK")
            (session,) = server.registry
            assert server.registry.of("alice") == (session,)
            assert (session.user, session.address, session.mechanism) == ("alice", "127.0.0.1", "USER")
            assert before - 1 < session.since < time.time() + 1 and 0 < session.seconds < time.time() - before + 1
            assert (await client.ask("QUIT")).startswith("+OK")
            assert len(server.registry) == 0
        async with connected(server) as client:
            assert (await client.login("alice", "secret")).startswith("+OK")
            (session,) = server.registry
            session.abort("told to go")
            assert await client.line() == ""
            while len(server.registry):
                await asyncio.sleep(0.01)
