"""The client library against pop3d, over lines that are cut."""

import asyncio
from pathlib import Path

import pytest

from pop3cli import Client, Reconnect
from pop3cli.errors import (
    CommandRefused,
    ConnectionCut,
    LoginRefused,
    NoSuchMessage,
    NotValid,
    NoUniqueIds,
    ServerBroken,
    ServerDown,
    TooLarge,
    UsageFault,
)
from tests.line import Line
from tests.pop3cli.bent import PASSWORD, Bent, Talk
from tests.pop3cli.conftest import Liar, Mailbox, Serve
from tests.site import Daemon, Site

LARGE = b"Subject: large\r\n\r\n" + b"".join(b"%06d %s\r\n" % (line, b"x" * 60) for line in range(30_000))
SOON = Reconnect(attempts=3, pause=0.01)


@pytest.fixture
def mailbox(site: Site, daemon: Daemon) -> Path:
    """alice's, with five small messages and a large one."""
    mail = {f"cur/{n}.small:2,": b"Subject: %d\nFrom: bob@example.org\n\nbody %d\n" % (n, n) for n in range(1, 6)}
    return site.maildir("alice", {**mail, "cur/9.large:2,": LARGE.replace(b"\r\n", b"\n")})


def connect(site: Site, port: int | None = None, **options) -> Client:
    options = {"password": "secret", "cacert": site.certificate, "timeout": 20, "reconnect": SOON, **options}
    return Client.connect(f"pop3s://alice@localhost:{port or site.port}", **options)


def files(mailbox: Path) -> list[str]:
    return sorted(path.name.partition(":")[0] for path in (mailbox / "cur").iterdir())


async def test_messages_are_read_by_unique_id(site: Site, mailbox: Path) -> None:
    async with connect(site) as client:
        assert len(client) == 6
        messages = [message async for message in client]
        assert [message.uid for message in messages] == [*(f"{n}.small" for n in range(1, 6)), "9.large"]
        assert messages[5].octets == len(LARGE)
        assert (await messages[1].headers())["Subject"] == "2"
        assert (await messages[2].parse()).get_content() == "body 3\n"
        assert await messages[5].read() == LARGE
        assert await client["1.small"].read() == b"Subject: 1\r\nFrom: bob@example.org\r\n\r\nbody 1\r\n"
        assert "none" not in client
        with pytest.raises(KeyError):
            client["none"]
    assert len(files(mailbox)) == 6


async def test_headers_come_many_at_a_time(site: Site, mailbox: Path) -> None:
    async with Line(site.port) as line, connect(site, line.port) as client:
        subjects = [(await message.headers())["Subject"] async for message in client.messages(headers=True)]
        assert subjects == ["1", "2", "3", "4", "5", "large"]


async def test_an_orderly_end_deletes_what_was_marked(site: Site, mailbox: Path) -> None:
    async with connect(site) as client:
        async for message in client:
            if message.uid in ("2.small", "3.small", "4.small"):
                message.delete()
        client["3.small"].undelete()
        assert client["2.small"].deleted
        assert not client["3.small"].deleted
        assert len(files(mailbox)) == 6
    assert files(mailbox) == ["1.small", "3.small", "5.small", "9.large"]


async def test_an_exception_deletes_nothing(site: Site, mailbox: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with connect(site) as client:
            client["2.small"].delete()
            raise ZeroDivisionError
    assert len(files(mailbox)) == 6


async def test_a_cancelled_task_deletes_nothing(site: Site, mailbox: Path) -> None:
    async def work() -> None:
        async with connect(site) as client:
            client["2.small"].delete()
            async for _ in client["9.large"].stream():
                reading.set()
                await asyncio.sleep(0.001)

    reading = asyncio.Event()
    task = asyncio.create_task(work())
    await reading.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(files(mailbox)) == 6


async def test_commit_ends_a_session_and_the_next_question_begins_another(site: Site, mailbox: Path) -> None:
    async with Line(site.port) as line, connect(site, line.port) as client:
        client["1.small"].delete()
        await client.commit()
        assert len(files(mailbox)) == 5
        assert await client["2.small"].read()
        assert "1.small" not in client
        assert line.connections == 2
        client["2.small"].delete()
        client.rollback()
    assert len(files(mailbox)) == 5


async def test_a_refreshed_mailbox_has_what_arrived(site: Site, mailbox: Path) -> None:
    async with connect(site) as client:
        client["1.small"].delete()
        (mailbox / "new" / "20.late").write_bytes(b"Subject: late\n\n")
        assert "20.late" not in client
        await client.refresh()
        assert "20.late" in client
        assert len(files(mailbox)) == 6  # a refresh is no commit
    assert len(files(mailbox)) == 5


async def test_a_message_cut_off_is_read_on(site: Site, mailbox: Path) -> None:
    async with Line(site.port, cuts=[500_000, 900_000]) as line, connect(site, line.port) as client:
        assert await client["9.large"].read() == LARGE
        assert line.connections == 3
        assert (await client["1.small"].headers())["Subject"] == "1"


async def test_cuts_have_an_end(site: Site, mailbox: Path) -> None:
    async with Line(site.port, cuts=[500_000] * 9) as line:
        async with connect(site, line.port) as client:
            with pytest.raises(ConnectionCut):
                await client["9.large"].read()
        assert line.connections == 1 + SOON.attempts


async def test_without_a_policy_a_cut_is_an_error(site: Site, mailbox: Path) -> None:
    async with Line(site.port, cuts=[500_000]) as line:
        client = connect(site, line.port, reconnect=Reconnect(attempts=0))
        with pytest.raises(ConnectionCut, match="went away during RETR"):
            async with client:
                await client["9.large"].read()


async def test_headers_survive_a_cut(site: Site, mailbox: Path) -> None:
    # greeting, handshake and listing take less, the headers of the large message more
    (mailbox / "cur" / "8.headers:2,").write_bytes(b"Subject: 8\n" + b"X-Long: xxxxxxxxxx\n" * 20_000 + b"\n")
    async with Line(site.port, cuts=[100_000]) as line, connect(site, line.port) as client:
        subjects = [(await message.headers())["Subject"] async for message in client.messages(headers=True)]
        assert sorted(subjects) == ["1", "2", "3", "4", "5", "8", "large"]
        assert line.connections == 2


async def test_headers_sent_far_ahead_survive_a_cut(site: Site, mailbox: Path) -> None:
    for number in range(100, 700):
        (mailbox / "cur" / f"{number}.m:2,").write_bytes(b"Subject: %d\nX-Long: %s\n\n" % (number, b"x" * 900))
    async with Line(site.port, cuts=[300_000]) as line, connect(site, line.port) as client:
        subjects = [(await message.headers())["Subject"] async for message in client.messages(headers=True)]
        assert len(set(subjects)) == 606
        assert line.connections == 2


async def test_content_that_changed_behind_a_cut_is_not_joined(site: Site, mailbox: Path) -> None:
    async with Line(site.port, cuts=[500_000]) as line, connect(site, line.port) as client:
        with pytest.raises(ServerBroken, match="has changed"):
            async for _ in client["9.large"].stream():
                (mailbox / "cur" / "9.large:2,").write_bytes(LARGE.replace(b"x", b"y"))


async def test_a_message_that_is_gone_behind_a_cut_says_so(site: Site, mailbox: Path) -> None:
    async with Line(site.port, cuts=[500_000]) as line, connect(site, line.port) as client:
        with pytest.raises(NoSuchMessage, match="not there any more"):
            async for _ in client["9.large"].stream():
                (mailbox / "cur" / "9.large:2,").unlink(missing_ok=True)


async def test_deletions_are_said_again_when_the_cut_came_before_quit(site: Site, mailbox: Path) -> None:
    async with Line(site.port, cuts=[500_000]) as line:
        async with connect(site, line.port) as client:
            client["1.small"].delete()
            with pytest.raises(NotValid):  # the line is cut while nobody reads
                async for _ in client["9.large"].stream():
                    assert await client["2.small"].read()
        assert line.connections == 2
    assert len(files(mailbox)) == 5


async def test_a_cut_quit_is_an_error_and_never_said_again(serve: Serve) -> None:
    listing = {"LIST": b"+OK\r\n1 10\r\n2 10\r\n.\r\n", "UIDL": b"+OK\r\n1 one\r\n2 two\r\n.\r\n", "CAPA": b"-ERR\r\n"}
    liar = Liar({**listing, "QUIT": b""}, cut="QUIT")
    server = serve(liar)
    client = Client.connect(server.account(), password="x", tls=server.tls, reconnect=SOON)
    with pytest.raises(ConnectionCut, match="whether marked messages were deleted is unknown"):
        async with client:
            client["two"].delete()
    assert liar.seen.count(b"DELE 2\r\n") == 1
    assert liar.seen.count(b"QUIT\r\n") == 1


async def test_a_refused_dele_deletes_nothing(serve: Serve) -> None:
    listing = {"LIST": b"+OK\r\n1 10\r\n2 10\r\n.\r\n", "UIDL": b"+OK\r\n1 one\r\n2 two\r\n.\r\n", "CAPA": b"-ERR\r\n"}
    liar = Liar({**listing, "DELE": b"-ERR [SYS/PERM] read only\r\n"})
    server = serve(liar)
    with pytest.raises(CommandRefused, match="read only") as caught:
        async with Client.connect(server.account(), password="x", tls=server.tls) as client:
            client["two"].delete()
    assert (caught.value.code, caught.value.text) == ("SYS/PERM", "read only")
    assert b"RSET\r\n" in liar.seen
    assert b"QUIT\r\n" not in liar.seen


async def test_a_stream_that_was_left_does_not_end_as_if_it_were_whole(site: Site, mailbox: Path) -> None:
    async with connect(site) as client:
        with pytest.raises(NotValid, match="something else was asked"):
            async for _ in client["9.large"].stream():
                await client["1.small"].headers()
        assert await client["1.small"].read()
        with pytest.raises(TooLarge):
            await client["9.large"].read(1000)
        assert await client["1.small"].read()


async def test_unique_ids_that_are_none(serve: Serve) -> None:
    mail = {"LIST": b"+OK\r\n1 10\r\n2 10\r\n3 10\r\n.\r\n", "CAPA": b"-ERR\r\n"}
    server = serve(Liar({**mail, "UIDL": b"+OK\r\n1 one\r\n2 two\r\n3 one\r\n.\r\n"}))
    async with Client.connect(server.account(), password="x", tls=server.tls) as client:
        assert [message.uid async for message in client] == ["two"]
        assert client.shared == {"one"}
    server = serve(Liar({**mail, "UIDL": b"+OK\r\n1 one\r\n4 two\r\n.\r\n"}))
    with pytest.raises(ServerBroken, match="UIDL names message 4"):
        async with Client.connect(server.account(), password="x", tls=server.tls):
            pass
    server = serve(Liar({**mail, "UIDL": b"-ERR what?\r\n"}))
    with pytest.raises(NoUniqueIds, match="has no UIDL: what"):
        async with Client.connect(server.account(), password="x", tls=server.tls):
            pass


async def test_errors_are_typed_and_have_the_servers_code(site: Site, mailbox: Path) -> None:
    with pytest.raises(LoginRefused) as caught:
        async with connect(site, password="wrong"):
            pass
    assert caught.value.text
    with pytest.raises(ServerDown):
        async with connect(site, 1):
            pass
    with pytest.raises(UsageFault, match="password"):
        Client.connect("pop3s://alice:secret@localhost")


async def test_a_login_of_ones_own(serve: Serve) -> None:
    mailbox = Mailbox()
    server = serve(mailbox)

    async def login(session) -> None:
        await session.login("bob", "s e c r e t")

    async with Client.connect(server.account(), login=login, tls=server.tls) as client:
        assert len(client) == 5
    assert mailbox.logins == [("bob", b"s e c r e t")]


async def test_what_is_marked_during_a_commit_waits_for_the_next(serve: Serve) -> None:
    class Late(Talk):
        def do_dele(self, word: bytes) -> bytes:
            client["uid-2"].delete()
            return super().do_dele(word)

    bent = Bent(Late)
    server = serve(bent)
    async with Client.connect(server.account(), password=PASSWORD, cacert=server.certificate) as client:
        client["uid-1"].delete()
        await client.commit()
        assert set(bent.mail) == {2, 3}
        assert client["uid-2"].deleted
    assert set(bent.mail) == {3}
