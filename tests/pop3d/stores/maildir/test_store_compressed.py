"""The Maildir store with messages that another server compressed: the same message, sizes and unique-ids, or -ERR."""

import asyncio
import os
import poplib
import sys
import threading
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest

from pop3core.downgrade import Downgrader
from pop3core.framing import normalized
from pop3core.maildrop import Listing, PackedOctets
from pop3d.extras import install_line
from pop3d.store_contract import ALICE, StoreContract, content
from pop3d.stores import Store, StoreError
from pop3d.stores.maildir import compressed, nowait
from pop3d.stores.maildir import disk_cache as kept
from pop3d.stores.maildir.compressed import known_forms
from pop3d.stores.maildir.deleted import put_back
from pop3d.stores.maildir.packed_ids import UniqueIds
from pop3d.stores.maildir.scan import Scan
from pop3d.stores.maildir.store import MaildirMaildrop, MaildirOptions, MaildirStore
from tests.maildirs import make_maildir
from tests.packed import PACKERS
from tests.site import Daemon, Site

MAIL = b"Subject: hello\n\nbody of the message\n"
LARGE = b"Subject: large\n\n" + b"".join(b"line %d of many\n" % number for number in range(40_000))
CRYPTED = b"CRYPTED\x03\x07\x02" + bytes(range(256))
every_form = pytest.mark.parametrize("form", PACKERS)


def store_of(tmp_path: Path, messages: dict[str, bytes], options: MaildirOptions | None = None) -> MaildirStore:
    make_maildir(tmp_path / "mail" / "alice", messages)
    return MaildirStore(str(tmp_path / "mail" / "{user}"), tmp_path / "state", options)


async def opened(store: MaildirStore) -> MaildirMaildrop:
    return await store.open(ALICE, utf8=False)


async def refusal(drop: MaildirMaildrop, number: int) -> StoreError:
    with pytest.raises(StoreError) as caught:
        await content(drop, number)
    return caught.value


@every_form
class TestContract:
    """What every store must do, for each form, also where nothing can be read or opened without waiting."""

    @pytest.mark.parametrize("lacking", [None, "_RWF_NOWAIT", "_syscall"])
    async def test_the_contract_holds_for_compressed_messages(
        self, form: str, lacking: str | None, tmp_path: Path
    ) -> None:
        class Compressed(StoreContract):
            async def make(self, messages: list[bytes]) -> Store:
                make.append(tmp_path / str(len(make)) / "alice")
                names = {f"cur/{at:03}.M{at}.host:2,SZ": PACKERS[form](text) for at, text in enumerate(messages)}
                make_maildir(make[-1], names)
                return MaildirStore(str(make[-1].parent / "{user}"), tmp_path / "state")

        make: list[Path] = []
        contract = Compressed()
        with pytest.MonkeyPatch.context() as patch:
            if lacking is not None:
                patch.setattr(nowait, lacking, 0 if lacking == "_RWF_NOWAIT" else None)
            for name in dir(StoreContract):
                if name.startswith("test_"):
                    await getattr(contract, name)()
        assert len(make) >= 5


async def test_compressed_messages_lie_among_others(tmp_path: Path) -> None:
    """Read in order, and ahead, in one mailbox, by a store that has just started and by one that has read them."""
    texts = [MAIL + b"%d\n" % number for number in range(12)] + [LARGE, MAIL, LARGE]
    packers = [bytes, *PACKERS.values()]
    box = {f"cur/{at:03}.host:2,": packers[at % len(packers)](text) for at, text in enumerate(texts)}
    for _ in range(2):
        drop = await opened(store_of(tmp_path, box))
        assert [await content(drop, number) for number in range(1, len(texts) + 1)] == list(map(normalized, texts))
        assert list(drop.messages.sizes) == [len(normalized(text)) for text in texts]
        assert [await content(drop, number) for number in range(len(texts), 0, -1)] == [*map(normalized, texts[::-1])]
        await drop.close()


@every_form
async def test_a_message_is_unpacked_in_a_thread(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()
    reading = compressed._reading

    def noted(descriptor: int) -> compressed.Read:
        read = reading(descriptor)

        def noting() -> bytes:
            threads.add(threading.current_thread())
            return read()

        return noting

    monkeypatch.setattr(compressed, "_reading", noted)
    drop = await opened(store_of(tmp_path, {"new/1.host": PACKERS[form](LARGE), "new/2.host": PACKERS[form](MAIL)}))
    await content(drop, 1)
    await content(drop, 2)
    await drop.close()
    assert threads and threading.main_thread() not in threads


async def test_the_end_of_a_session_in_the_middle_of_a_message_frees_it(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    drop = await opened(store_of(tmp_path, {"new/1.host": PACKERS["gzip"](LARGE)}))
    piece = await drop.read(1, 0)
    await drop.read(1, len(piece.data))
    task = asyncio.create_task(drop.read(1, 2 * len(piece.data)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    drop.release(1)
    assert await content(drop, 1) == normalized(LARGE)
    await drop.read(1, 0)
    await drop.close()
    assert set(os.listdir("/proc/self/fd")) == before


# --- what cannot be read ---


def damaged(text: bytes) -> bytes:
    octets = bytearray(PACKERS["gzip"](text))
    octets[-6] ^= 1  # the checksum, which comes last
    return bytes(octets)


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (CRYPTED, "encrypted by Dovecot"),
        (PACKERS["zstd"](LARGE)[:-50], "truncated"),
        (PACKERS["gzip"](MAIL)[:-1], "truncated"),
        (damaged(MAIL), "damaged"),
        (damaged(LARGE), "damaged"),
        (b"\x1f\x9d\x90" + MAIL, "does not know"),
        (b"\x1f\x8b\x08", "truncated"),
    ],
)
async def test_what_cannot_be_read_stays_and_is_refused_at_its_start(
    octets: bytes, why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_of(tmp_path, {"cur/1.host,S=9,W=10:2,S": MAIL, "cur/2.host:2,SZ": octets, "new/3.host": MAIL})
    drop = await opened(store)
    assert list(drop.messages.uids) == [b"1.host", b"2.host", b"3.host"]
    assert list(drop.messages.sizes) == [39, len(octets), 39]
    assert await content(drop, 1) == normalized(MAIL)
    for _ in range(2):
        fault = await refusal(drop, 2)
        assert (fault.code, fault.text.isascii()) == ("SYS/PERM", True)
        assert why in fault.detail and "cur/2.host:2,SZ" in fault.detail
    assert await content(drop, 3) == normalized(MAIL)
    await drop.close()
    # another session of another process finds the same
    drop = await opened(store_of(tmp_path, {}))
    assert list(drop.messages.sizes) == [39, len(octets), 39]
    await drop.remove([2])
    await drop.close()
    assert not list((tmp_path / "mail").rglob("2.host*"))
    assert "as listed" not in caplog.text


async def test_a_believed_size_is_no_proof_that_a_message_can_be_read(tmp_path: Path) -> None:
    box = {f"cur/1.host,S=1,W={len(normalized(LARGE))}:2,S": damaged(LARGE)}
    drop = await opened(store_of(tmp_path, box, MaildirOptions(sizes_in_names=True)))
    assert (await refusal(drop, 1)).code == "SYS/PERM"
    with pytest.raises(StoreError):
        await drop.read(1, 0)
    await drop.close()


async def test_a_message_that_is_damaged_after_it_was_counted(tmp_path: Path) -> None:
    """A client is cut off, and refused from the next session on."""
    octets = PACKERS["gzip"](LARGE)
    store = store_of(tmp_path, {"cur/1.host:2,S": octets})
    drop = await opened(store)
    await drop.close()
    file = tmp_path / "mail/alice/cur/1.host:2,S"
    with file.open("r+b") as written:
        written.write(damaged(LARGE))
    drop = await opened(store)
    first = await drop.read(1, 0)
    assert normalized(LARGE).startswith(first.data)
    assert (await refusal(drop, 1)).code == "SYS/PERM"
    await drop.close()
    drop = await opened(store)
    assert drop.messages.sizes[0] == len(octets)
    with pytest.raises(StoreError, match="cannot read"):
        await drop.read(1, 0)
    await drop.close()


async def test_octets_that_nobody_can_read_are_never_sent_for_their_size(tmp_path: Path) -> None:
    """A file without a line feed has as many octets as they would be sent: neither size nor cache may decide."""
    octets = PACKERS["gzip"](MAIL).replace(b"\n", b"x")
    store = store_of(tmp_path, {"cur/1.host:2,": octets + b"\r\n", "cur/2.host:2,": MAIL})
    await asyncio.sleep(0.05)  # a file made just now is not read on the event loop
    drop = await opened(store)
    assert drop.messages.sizes[0] == len(octets) + 2 == len(normalized(octets + b"\r\n"))
    assert (await refusal(drop, 1)).code == "SYS/PERM"
    await content(drop, 2)
    assert (await refusal(drop, 1)).code == "SYS/PERM"
    await drop.close()


async def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "_CONTENT_MAX", 1_000_000)
    bomb = PACKERS["bzip2"](bytes(2_000_000))
    drop = await opened(store_of(tmp_path, {"cur/1.host:2,": bomb, "cur/2.host:2,": MAIL}))
    assert drop.messages.sizes[0] == len(bomb) < 1000
    fault = await refusal(drop, 1)
    assert fault.code == "SYS/PERM" and "more than 1000000 octets" in fault.detail
    assert await content(drop, 2) == normalized(MAIL)
    await drop.close()


async def test_a_read_error_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drop = await opened(store_of(tmp_path, {"cur/1.host:2,": PACKERS["xz"](LARGE)}))

    def failing(descriptor: int) -> compressed.Read:
        def read() -> bytes:
            raise OSError(5, "Input/output error")

        return read

    with monkeypatch.context() as patch:
        patch.setattr(compressed, "_reading", failing)
        fault = await refusal(drop, 1)
    assert fault.code == "SYS/TEMP" and "Input/output error" in fault.detail
    assert await content(drop, 1) == normalized(LARGE)
    await drop.close()


@every_form
async def test_compressed_messages_are_refused_on_demand(form: str, tmp_path: Path) -> None:
    octets = PACKERS[form](MAIL)
    box = {"cur/1.host:2,": octets, "cur/2.host:2,": MAIL, "cur/3.host:2,": PACKERS[form](LARGE)}
    drop = await opened(store_of(tmp_path, box, MaildirOptions(refuse_compressed=True)))
    assert list(drop.messages.sizes)[:2] == [len(octets), 39]
    for number in (1, 3):
        fault = await refusal(drop, number)
        assert fault.code == "SYS/PERM" and f"compressed ({form})" in fault.detail and "refuse" in fault.detail
    assert await content(drop, 2) == normalized(MAIL)
    await drop.close()
    # and from then on they are not: nothing of it is remembered
    drop = await opened(store_of(tmp_path, {}))
    assert list(drop.messages.sizes)[:2] == [39, 39]
    await drop.close()


# --- sizes that are remembered ---


@pytest.fixture
def without_zstd(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    known_forms.cache_clear()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, compressed._MODULE, None)
        yield
    known_forms.cache_clear()


async def test_once_the_extra_is_there_messages_have_their_size(
    tmp_path: Path, without_zstd: None, caplog: pytest.LogCaptureFixture
) -> None:
    octets = PACKERS["zstd"](LARGE)
    box = {"cur/1.host,S=658906,W=698908:2,S": octets, "cur/2.host:2,": MAIL, "cur/3.host:2,": octets}
    drop = await opened(store_of(tmp_path, box))
    assert list(drop.messages.sizes) == [len(octets), 39, len(octets)]
    fault = await refusal(drop, 1)
    assert fault.code == "SYS/PERM" and install_line("zstd") in fault.detail
    await drop.close()
    sys.modules.pop(compressed._MODULE)  # it is installed, and pop3d starts again
    known_forms.cache_clear()
    caplog.clear()
    store = store_of(tmp_path, {})
    drop = await opened(store)
    assert list(drop.messages.sizes)[:2] == [len(normalized(LARGE)), 39]
    assert await content(drop, 1) == normalized(LARGE)
    assert not caplog.records
    # the name of the third says no size, as nothing does that compresses: what was counted was believed once more
    assert await content(drop, 3) == normalized(LARGE)
    assert "as listed" in caplog.text
    await drop.close()
    drop = await opened(store)
    assert list(drop.messages.sizes) == [len(normalized(LARGE)), 39, len(normalized(LARGE))]
    await drop.close()


async def test_sizes_that_were_counted_compressed_are_not_used(tmp_path: Path) -> None:
    """As version 0.1 has left them, which did not know of compression; those that a name proves are used."""
    octets = PACKERS["gzip"](MAIL)
    names = [b"cur/1.host,S=36,W=39:2,S", b"cur/2.host,S=36,W=39:2,S", b"cur/3.host,S=36:2,S", b"cur/4.host:2,S"]
    make_maildir(tmp_path / "mail" / "alice", {name.decode(): MAIL for name in names[1:]})
    (tmp_path / "mail/alice" / names[0].decode()).write_bytes(octets)
    packed = PackedOctets(names)
    sizes = [len(octets), 39, 1234, 4321]
    found = Scan(packed, Listing(array("Q", sizes), UniqueIds(packed, {})), array("Q", [0] * 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept, "known_forms", lambda: ())
        kept.ListingFile(tmp_path / "state" / "cache", str(tmp_path / "mail" / "alice")).save(found, ())
    drop = await opened(store_of(tmp_path, {}))
    assert list(drop.messages.sizes) == [39, 39, 39, 4321]
    await drop.close()


async def test_believed_sizes_are_those_of_the_message(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    box = {"cur/1.host,S=36,W=39:2,SZ": PACKERS["zstd"](MAIL), "cur/2.host,S=9,W=10:2,S": CRYPTED}
    drop = await opened(store_of(tmp_path, box, MaildirOptions(sizes_in_names=True)))
    assert list(drop.messages.sizes) == [39, 10]
    assert await content(drop, 1) == normalized(MAIL)
    assert (await refusal(drop, 2)).code == "SYS/PERM"
    await drop.close()
    assert not caplog.records


# --- what else the store does ---


@every_form
async def test_surrogates_of_compressed_messages(form: str, tmp_path: Path) -> None:
    text = "Subject: Grüße\nTo: ü@example.org\n\nbody\n".encode()
    large = text + b"line of the body\n" * 20_000
    box = {"cur/1.host:2,": PACKERS[form](text), "cur/2.host:2,": PACKERS[form](large), "cur/3.host:2,": CRYPTED}
    store = store_of(tmp_path, box, MaildirOptions(utf8_downgrade=True))
    drop = await opened(store)
    for number, stored in ((1, text), (2, large)):
        downgrader = Downgrader()
        surrogate = downgrader.feed(stored) + downgrader.finish()
        assert surrogate.isascii()
        assert await content(drop, number) == surrogate
        assert drop.messages.sizes[number - 1] == len(surrogate)
    assert (await refusal(drop, 3)).code == "SYS/PERM"
    await drop.close()
    drop = await store.open(ALICE, utf8=True)
    assert await content(drop, 2) == normalized(large)
    await drop.close()


async def test_files_stay_as_they_are_when_deleted_softly_and_brought_back(tmp_path: Path) -> None:
    octets = PACKERS["bzip2"](MAIL)
    options = MaildirOptions(deleted=str(tmp_path / "deleted" / "{user}"), mark_seen=True)
    store = store_of(tmp_path, {"cur/1.host,S=36:2,Z": octets, "cur/2.host:2,Z": octets}, options)
    drop = await opened(store)
    await content(drop, 1)
    await content(drop, 2)
    drop.retrieved(1)
    drop.retrieved(2)
    await drop.remove([2])
    await drop.close()
    assert (tmp_path / "mail/alice/cur/1.host,S=36:2,SZ").read_bytes() == octets
    put_back(str(tmp_path / "mail" / "alice"), str(tmp_path / "deleted" / "alice"))
    drop = await opened(store)
    assert [await content(drop, number) for number in (1, 2)] == [normalized(MAIL)] * 2
    await drop.close()


async def test_a_message_that_another_program_compresses_meanwhile(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As the scripts do that Dovecot's manual has: the compressed file takes the name, and then the flag Z."""
    store = store_of(tmp_path, {"cur/1.host,S=36:2,S": MAIL})
    drop = await opened(store)
    assert drop.messages.sizes[0] == 39
    await drop.close()
    (tmp_path / "mail/alice/tmp/beside").write_bytes(PACKERS["gzip"](MAIL))
    os.rename(tmp_path / "mail/alice/tmp/beside", tmp_path / "mail/alice/cur/1.host,S=36:2,SZ")
    os.unlink(tmp_path / "mail/alice/cur/1.host,S=36:2,S")
    drop = await opened(store)
    assert list(zip(drop.messages.uids, drop.messages.sizes, strict=True)) == [(b"1.host", 39)]
    assert await content(drop, 1) == normalized(MAIL)
    await drop.close()
    assert not caplog.records


# --- a session ---


def test_a_client_sees_nothing_of_compression(site: Site, daemon: Daemon) -> None:
    texts = [MAIL, b"", LARGE, b"Subject: dots\n\n.\n..\n.dots\n", b"Subject: no end\n\nend"]
    packers = list(PACKERS.values())
    box = {f"cur/{at:03}.host:2,SZ": packers[at](text) for at, text in enumerate(texts)}
    site.maildir("alice", {**box, "cur/900.host:2,S": CRYPTED, "cur/901.host:2,S": MAIL})
    client = poplib.POP3_SSL("localhost", site.port, context=site.context(), timeout=20)
    client.user("alice")
    client.pass_("secret")
    for number, sent in enumerate(map(normalized, texts), 1):
        answer, lines, _ = client.retr(number)
        assert (answer, b"".join(line + b"\r\n" for line in lines)) == (b"+OK %d octets" % len(sent), sent)
        assert client.list(number) == b"+OK %d %d" % (number, len(sent))
        assert client.top(number, 1)[1] == lines[:3]
    for refused in (client.retr, lambda number: client.top(number, 1)):
        with pytest.raises(poplib.error_proto, match=r"-ERR \[SYS/PERM\]"):
            refused(6)
    assert client.retr(7)[1][0] == b"Subject: hello"
    client.dele(6)
    client.quit()
    daemon.end()
    assert "mail_crypt" in daemon.log and "cur/900.host" in daemon.log
    assert len(list((site.root / "mail/alice/cur").iterdir())) == 6
