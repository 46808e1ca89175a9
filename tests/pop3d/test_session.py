"""Sessions against a server in this process: what a store does wrong, what a client does at the wrong moment."""

import asyncio
import gc
import shutil
import ssl
from collections import Counter
from collections.abc import Collection
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from pop3core.answers import Content
from pop3core.maildrop import Listing
from pop3d.auth import Account
from pop3d.net.channel import Channel
from pop3d.stores import RemovalFailed, StoreError
from pop3d.testing import RunningServer, serving


class Wire:
    """A client that says octets and reads lines."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, *lines: str) -> list[str]:
        """A reply's first line for each line said."""
        self.writer.write("".join(f"{line}\r\n" for line in lines).encode())
        return [await self.line() for _ in lines]

    async def line(self) -> str:
        return (await asyncio.wait_for(self.reader.readline(), 10)).decode("latin-1").removesuffix("\r\n")


@asynccontextmanager
async def connected(server: RunningServer):
    context = ssl.create_default_context(cafile=server.certificate)
    reader, writer = await asyncio.open_connection(
        server.host, server.port, ssl=context, server_hostname="localhost", limit=1 << 24
    )
    wire = Wire(reader, writer)
    assert (await wire.line()).startswith("+OK")
    try:
        yield wire
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


LOGIN = ("USER alice", "PASS secret")


class FaultyDrop:
    """Three messages; how they fail is said by the test."""

    def __init__(self) -> None:
        self.messages = Listing([200_000, 5, 5], [b"1", b"2", b"3"])
        self.closed = False
        self.released: list[int] = []
        self.waits = asyncio.Event()

    async def read(self, number: int, offset: int) -> Content:
        if number == 2:
            raise StoreError("this message is broken", code="SYS/PERM")
        if number == 3:
            raise RuntimeError("a bug in a store")
        if offset:
            raise StoreError("the disk is gone")
        return Content(b"x" * 60_000, last=False)

    def release(self, number: int) -> None:
        self.released.append(number)

    async def remove(self, numbers: Collection[int]) -> None:
        raise RemovalFailed([2], "cannot")

    async def close(self) -> None:
        self.closed = True


class FaultyStore:
    def __init__(self, drop: FaultyDrop) -> None:
        self.drop = drop

    async def open(self, account: Account, *, utf8: bool) -> FaultyDrop:
        return self.drop


@pytest.fixture
async def faulty():
    """A server whose store is `FaultyStore`; and the drop."""
    drop = FaultyDrop()
    async with serving({"alice": []}) as server:
        server.server.store = FaultyStore(drop)
        yield server, drop


async def test_a_message_that_fails_at_once_is_err_and_the_session_lives(faulty) -> None:
    server, _drop = faulty
    async with connected(server) as wire:
        replies = await wire.ask(*LOGIN, "RETR 2", "NOOP")
        assert replies[2:] == ["-ERR [SYS/PERM] this message is broken", "+OK"]


async def test_a_message_that_fails_in_the_middle_is_cut_off_without_a_terminator(faulty) -> None:
    server, drop = faulty
    async with connected(server) as wire:
        await wire.ask(*LOGIN)
        wire.writer.write(b"RETR 1\r\nNOOP\r\n")
        rest = await asyncio.wait_for(wire.reader.read(), 10)
        assert rest == b"+OK 200000 octets\r\n" + b"x" * 60_000
    assert drop.closed


async def test_a_bug_in_a_store_ends_its_session_only(faulty, caplog: pytest.LogCaptureFixture) -> None:
    server, drop = faulty
    async with connected(server) as other, connected(server) as wire:
        await wire.ask(*LOGIN)
        wire.writer.write(b"RETR 3\r\n")
        assert await wire.line() == ""
        assert drop.closed
        assert (await other.ask("CAPA"))[0].startswith("+OK")
    assert "a bug in a store" in caplog.text


async def test_quit_tells_what_could_not_be_removed(faulty) -> None:
    server, drop = faulty
    async with connected(server) as wire:
        replies = await wire.ask(*LOGIN, "DELE 2", "DELE 3", "QUIT")
        assert replies[-1] == "-ERR [SYS/TEMP] 1 of 2 deleted messages could not be removed"
        assert await wire.line() == ""
        assert drop.closed


async def test_top_releases_what_it_does_not_need(faulty) -> None:
    server, drop = faulty

    async def read(number: int, offset: int) -> Content:
        return Content(b"Subject: x\r\n\r\nbody\r\n", last=False)

    drop.read = read
    async with connected(server) as wire:
        assert (await wire.ask(*LOGIN, "TOP 1 0"))[2].startswith("+OK")
        assert [await wire.line() for _ in range(3)] == ["Subject: x", "", "."]
        await wire.ask("NOOP")
    assert drop.released == [1]


async def test_a_store_that_cannot_open_is_sys_temp_and_no_failed_login() -> None:
    class Closed:
        async def open(self, account: Account, *, utf8: bool) -> FaultyDrop:
            raise StoreError("this mailbox cannot be opened now")

    async with serving({"alice": []}) as server:
        server.server.store = Closed()
        async with connected(server) as wire:
            for _ in range(5):
                replies = await wire.ask(*LOGIN)
                assert replies[1] == "-ERR [SYS/TEMP] this mailbox cannot be opened now"


async def test_a_client_that_goes_during_a_commit_does_not_undo_it() -> None:
    async with serving({"alice": [b"one\n", b"two\n"]}) as server:
        async with connected(server) as wire:
            await wire.ask(*LOGIN, "DELE 1")
            wire.writer.write(b"QUIT\r\n")
        async with asyncio.timeout(10):
            while server.server.sessions:
                await asyncio.sleep(0.01)
        assert server.store.messages("alice") == [b"two\r\n"]


async def test_three_refused_passwords_end_the_connection() -> None:
    async with serving({"alice": []}) as server, connected(server) as wire:
        for _ in range(2):
            assert (await wire.ask("USER alice", "PASS wrong"))[1] == "-ERR [AUTH] wrong user name or password"
        assert "too many failed logins" in (await wire.ask("USER nobody", "PASS wrong"))[1]
        assert await wire.line() == ""


async def test_guesses_wait_and_the_owner_does_not() -> None:
    """Nothing here waits for a minute: the penalties are still running when the server ends."""
    async with serving({"alice": [], "bob": []}, limits={"auth_penalty": 60, "auth_penalty_max": 60}) as server:
        async with connected(server) as wire:
            assert (await wire.ask(*LOGIN, "QUIT"))[1].startswith("+OK")
        async with AsyncExitStack() as guesses:
            wires = [await guesses.enter_async_context(connected(server)) for _ in range(6)]
            for wire in wires:
                wire.writer.write(b"USER bob\r\nPASS wrong\r\n")
            answers = [asyncio.ensure_future(wire.reader.readline()) for wire in wires]
            assert [(await answer)[:3] for answer in answers] == [b"+OK"] * 6
            refusals = [asyncio.ensure_future(wire.reader.readline()) for wire in wires]
            async with connected(server) as wire:
                assert (await wire.ask(*LOGIN, "QUIT"))[1].startswith("+OK")
            assert not any(refusal.done() for refusal in refusals)
            await asyncio.wait_for(server.server.drain(5), 30)  # nobody waits for a penalty
            assert not any(said.startswith(b"+OK") for said in await asyncio.gather(*refusals))


async def test_who_waits_too_long_is_refused_unchecked_for_now(caplog: pytest.LogCaptureFixture) -> None:
    limits = {"auth_penalty": 0.2, "auth_penalty_max": 0.2}
    async with serving({"alice": []}, limits=limits) as server, AsyncExitStack() as guesses:
        wires = [await guesses.enter_async_context(connected(server)) for _ in range(12)]
        answers = await asyncio.gather(*(wire.ask("USER alice", "PASS wrong") for wire in wires))
    told = Counter(answer for _, answer in answers)
    assert told.keys() == {
        "-ERR [AUTH] wrong user name or password",
        "-ERR [SYS/TEMP] too many failed logins, try again later",
    }
    assert told["-ERR [AUTH] wrong user name or password"] < 8
    assert 'user=alice reason="too many failed logins before this one"' in caplog.text


async def test_beyond_the_limit_of_an_account_logins_are_refused_unchecked() -> None:
    async with serving({"alice": []}, limits={"auth_failures_per_account": 2}) as server:
        async with connected(server) as wire:
            for _ in range(2):
                assert "[AUTH]" in (await wire.ask("USER alice", "PASS wrong"))[1]
        async with connected(server) as wire:
            assert (await wire.ask(*LOGIN))[1] == "-ERR [SYS/TEMP] too many failed logins, try again later"
            assert (await wire.ask("USER bob", "PASS x"))[1] == "-ERR [AUTH] wrong user name or password"


async def test_bad_commands_end_the_connection() -> None:
    async with serving({"alice": []}, limits={"bad_commands": 3}) as server, connected(server) as wire:
        assert [line[:4] for line in await wire.ask("A", "B", "C")] == ["-ERR"] * 3
        assert await wire.line() == ""


async def test_a_plaintext_client_on_the_tls_port_is_dropped() -> None:
    async with serving({"alice": []}) as server:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(b"USER alice\r\nPASS secret\r\n")
        answer = await asyncio.wait_for(reader.read(), 10)
        assert b"OK" not in answer
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def test_a_session_that_was_cut_leaves_no_circle_behind() -> None:
    """Memory is free again at once, and not when the collector comes by."""
    async with serving({"alice": [b"x" * 78 + b"\n"] * 2 + [b"y" * 4_000_000 + b"\n"]}) as server:
        gc.collect()
        gc.disable()
        try:
            async with connected(server) as wire:
                await wire.ask(*LOGIN, "RETR 3")
                wire.writer.transport.abort()
            while server.server.sessions:
                await asyncio.sleep(0.01)
            assert not [thing for thing in gc.get_objects() if isinstance(thing, Channel)]
        finally:
            gc.enable()


async def test_a_hundred_sessions_at_once() -> None:
    mailboxes = {f"u{number}": [b"x" * 10_000 + b"\n"] for number in range(100)}

    async def session(server: RunningServer, user: str) -> None:
        async with connected(server) as wire:
            replies = await wire.ask(f"USER {user}", "PASS secret", "STAT", "RETR 1")
            assert replies[2] == "+OK 1 10002"
            assert len(await wire.line()) == 10_000
            assert await wire.line() == "."
            assert await wire.ask("DELE 1", "QUIT") == ["+OK marked as deleted", "+OK bye"]

    async with serving(mailboxes, limits={"unauthenticated_per_ip": 100}) as server:
        await asyncio.gather(*(session(server, user) for user in mailboxes))
        assert not any(server.store.messages(user) for user in mailboxes)


async def test_the_server_reads_no_further_than_it_answers() -> None:
    """A client that pipelines a hundred megabytes of RETR and reads nothing costs little memory."""
    import tracemalloc

    async with serving({"alice": [b"x" * 1_000_000 + b"\n"]}) as server, connected(server) as wire:
        await wire.ask(*LOGIN)
        wire.reader._transport.pause_reading()  # type: ignore[attr-defined]
        tracemalloc.start()
        wire.writer.write(b"RETR 1\r\n" * 100)
        for _ in range(50):
            await asyncio.sleep(0.01)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 4 * 1024 * 1024


async def test_what_needs_no_waiting_is_answered_without_a_task() -> None:
    async with serving({"alice": [b"x" * 78 + b"\n"] * 3}) as server, connected(server) as wire:
        await wire.ask(*LOGIN)
        woken = 0
        listen = Channel.listen

        async def counted(self, hear):
            nonlocal woken
            woken += 1
            await listen(self, hear)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Channel, "listen", counted)
            for _ in range(20):
                assert await wire.ask("NOOP", "STAT", "LIST 2") == ["+OK", "+OK 3 240", "+OK 2 80"]
        assert woken == 0


@asynccontextmanager
async def talking(server: RunningServer, *options: str):
    """OpenSSL's own client behind the greeting; what it reads by itself: K for a key update, R to negotiate again."""
    address = f"{server.host}:{server.port}"
    client = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-msg", "-CAfile", server.certificate, "-connect", address, *options,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert client.stdin is not None
    assert client.stdout is not None
    try:
        async with asyncio.timeout(30):
            await client.stdout.readuntil(b"+OK localhost")
            yield client.stdin, client.stdout
    finally:
        client.terminate()
        await client.wait()


needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is missing")


@needs_openssl
async def test_a_key_update_is_answered_before_the_next_reply() -> None:
    """RFC 8446 §4.6.3."""
    async with serving({"alice": [b"x"]}) as server, talking(server, "-tls1_3") as (stdin, stdout):
        stdin.write(b"K\n")
        await stdout.readuntil(b">>> TLS 1.3, Handshake [length 0005], KeyUpdate")
        stdin.write(b"CAPA\n")
        await stdout.readuntil(b"<<< TLS 1.3, Handshake [length 0005], KeyUpdate")
        await stdout.readuntil(b"+OK capabilities")


@needs_openssl
async def test_what_tls_itself_has_to_say_waits_for_no_reply() -> None:
    """A client that wants to negotiate again is told at once that this is not done."""
    async with serving({"alice": [b"x"]}) as server, talking(server, "-tls1_2") as (stdin, stdout):
        stdin.write(b"R\n")
        assert b"no_renegotiation" in await stdout.readuntil(b"no_renegotiation")
