"""What a message is on its way."""

import asyncio
import errno
import os
import tempfile
import types
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pop3core.framing import TERMINATOR, DotUnstuffer, normalized
from pop3d.lmtp import spool

TEXT = st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"x", b"\r\r\n", b"..\r\n"]), max_size=40).map(b"".join)


async def kept(wire: bytes, cuts: list[int], folder: Path) -> bytes:
    """What is stored of a message that comes in such pieces."""
    content, made = DotUnstuffer(), spool.MessageSpool(folder)
    for begin, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        if piece := content.feed(wire[begin:end]) if not content.ended else b"":
            await made.write(piece)
    stored = b"".join(made.pieces())
    assert stored == b"".join(made.pieces())
    assert len(stored) == made.octets
    assert stored.startswith(made.beginning[: spool.IN_MEMORY_MAX])
    await made.close()
    return stored


@settings(max_examples=100)
@given(TEXT, st.data())
def test_what_pop3_sends_is_what_came(
    tmp_path_factory: pytest.TempPathFactory, text: bytes, data: st.DataObject
) -> None:
    came = text + b"\r\n"
    wire = stuffed_at_crlf(came) + TERMINATOR
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))
    stored = asyncio.run(kept(wire, cuts, Path("/nonexistent")))  # all in memory
    assert normalized(stored) == normalized(came)
    if b"\r\r" not in came:
        assert stored == came.replace(b"\r\n", b"\n")


def stuffed_at_crlf(text: bytes) -> bytes:
    """As a client stuffs it: a line begins behind CRLF (RFC 5321 §4.5.2)."""
    return (b"." if text.startswith(b".") else b"") + text.replace(b"\r\n.", b"\r\n..")


def test_beyond_some_octets_it_is_in_a_file_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY_MAX", 10)
    text = b"0123456789 123456789\r\nand more\r\n"

    async def run() -> None:
        made = spool.MessageSpool(tmp_path)
        await made.write(text[:22])
        await made.write(text[22:28])
        assert list(tmp_path.iterdir()) == []
        first, second = made.pieces(), made.pieces()  # of two recipients
        assert next(first) == next(second) == b"0123456789 123456789\n"
        assert list(first) == list(second) == [b"and mo"]
        assert made.beginning == b"0123456789"
        await made.close()
        with pytest.raises(FileNotFoundError):
            await spool.MessageSpool(tmp_path / "gone").write(text)

    asyncio.run(run())


def test_a_fault_at_its_end_is_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Faulty:
        def __init__(self, dir: Path) -> None:
            self.file = tempfile.TemporaryFile(dir=dir)  # noqa: SIM115
            self.fileno = self.file.fileno

        def close(self) -> None:
            self.file.close()
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    async def run() -> None:
        made = spool.MessageSpool(tmp_path)
        await made.write(b"x" * (spool.IN_MEMORY_MAX + 1))
        await made.close()  # its message was delivered, which its sender has yet to be told

    monkeypatch.setattr(spool, "tempfile", types.SimpleNamespace(TemporaryFile=Faulty))
    asyncio.run(run())


def test_small_pieces_take_no_more_memory_than_they_have_octets() -> None:
    async def run() -> spool.MessageSpool:
        made = spool.MessageSpool(Path("/nonexistent"))
        for _ in range(5000):
            await made.write(b"xy")
        return made

    made = asyncio.run(run())
    assert b"".join(made.pieces()) == b"xy" * 5000
    assert len(list(made.pieces())) <= spool._PIECES_MAX
