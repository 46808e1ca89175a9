"""Messages: that their octets, sizes and names are what the server says they are."""

from __future__ import annotations

from typing import Final

from pop3cli.doctor.findings import Finding, Skip, failed, passed, warned
from pop3cli.doctor.raw_connection import RawReply
from pop3cli.doctor.server_under_test import ServerUnderTest

__all__ = [
    "dot_stuffing",
    "list_one",
    "retr_size",
    "stat_sum",
    "top_all",
    "top_head",
    "top_some",
    "uidl_form",
    "uidl_stable",
]

_UID_MAX: Final = 70  # RFC 1939 §7
_SOME_LINES: Final = 2  # of TOP n
_ALL_LINES: Final = 1_000_000


async def stat_sum(patient: ServerUnderTest) -> Finding:
    """STAT says how many messages LIST lists, and the sum of their octets."""
    sizes = await patient.sizes()
    async with patient.inside() as wire:
        reply = await wire.ask("STAT")
    words = reply.status.split(b" ")
    wanted = [str(len(sizes)).encode(), str(sum(sizes.values())).encode()]
    if not reply.ok or words[1:3] != wanted:
        asked = b" ".join(wanted).decode()
        return failed(f"STAT: {patient.shown(reply.status)}; LIST adds up to {asked}", "let STAT add up what LIST says")
    return passed(patient.shown(reply.status))


async def list_one(patient: ServerUnderTest) -> Finding:
    """LIST n is the line of LIST, and refused for a number that is not there."""
    sizes = await patient.sizes()
    async with patient.inside() as wire:
        for number in list(sizes)[:2]:
            reply = await wire.ask(f"LIST {number}")
            if reply.status.split(b" ")[1:3] != [str(number).encode(), str(sizes[number]).encode()]:
                return failed(
                    f"LIST {number}: {patient.shown(reply.status)}; LIST: {sizes[number]}",
                    "answer +OK, the number and the octets that LIST says",
                )
        beyond = max(sizes, default=0) + 1
        reply = await wire.ask(f"LIST {beyond}")
    if not reply.refused:
        return failed(f"LIST {beyond}: {patient.shown(reply.status)}", "refuse a message that is not there")
    return passed(f"{len(sizes)} messages")


async def retr_size(patient: ServerUnderTest) -> Finding:
    """LIST says exactly the octets that RETR sends, line ends as CRLF, dots unstuffed."""
    sizes, samples = await patient.sizes(), await patient.samples()
    for number, reply in samples.items():
        octets = len(reply.content)
        if octets != sizes[number]:
            return failed(
                f"message {number}: LIST says {sizes[number]}, RETR sent {octets}",
                "count octets as they are sent: each line end is two",
            )
    return passed(f"{len(samples)} messages, to the octet")


async def dot_stuffing(patient: ServerUnderTest) -> Finding:
    """A line that begins with a dot has another before it."""
    dotted = 0
    for number, reply in (await patient.samples()).items():
        for line in reply.lines:
            if line.startswith(b"."):
                dotted += 1
                if not line.startswith(b".."):
                    return failed(
                        f"message {number} has a line {patient.shown(line)}",
                        "put a dot before each line of content that begins with one",
                    )
    if not dotted:
        raise Skip("none of the messages fetched has a line that begins with a dot")
    return passed(f"{dotted} lines")


async def top_head(patient: ServerUnderTest) -> Finding:
    """TOP n 0 is the headers and the blank line, as RETR sends them."""
    return await _top(patient, 0, "the headers and the blank line")


async def top_some(patient: ServerUnderTest) -> Finding:
    """TOP n 2 is the headers, the blank line and two lines, as RETR sends them."""
    return await _top(patient, _SOME_LINES, f"the headers, the blank line and {_SOME_LINES} lines")


async def top_all(patient: ServerUnderTest) -> Finding:
    """TOP n of more lines than there are is the whole message."""
    return await _top(patient, _ALL_LINES, "the whole message")


async def _top(patient: ServerUnderTest, count: int, asked: str) -> Finding:
    samples = await patient.samples()
    async with patient.inside() as wire:
        for number, whole in samples.items():
            reply = await wire.ask(f"TOP {number} {count}", lines=True)
            if not reply.ok:
                if "TOP" not in await patient.announced(inside=True):
                    raise Skip(f"no TOP: {patient.shown(reply.status)}")
                return failed(f"TOP {number} {count}: {patient.shown(reply.status)}", "answer TOP, or do not announce")
            wanted = _head(whole, count)
            if reply.lines != wanted:
                return failed(
                    f"TOP {number} {count} has {len(reply.lines)} lines, of RETR's these are {len(wanted)}"
                    + ("" if len(reply.lines) != len(wanted) else ", and not the same"),
                    f"send {asked}, as RETR does",
                )
    return passed(f"{len(samples)} messages")


def _head(whole: RawReply, count: int) -> tuple[bytes, ...]:
    """The first lines of a message: headers, the blank line, and ``count`` lines of the body."""
    headers = next((place for place, line in enumerate(whole.lines) if not line), len(whole.lines))
    return whole.lines[: headers + 1 + count]


async def uidl_form(patient: ServerUnderTest) -> Finding:
    """A unique-id is 1 to 70 octets of 0x21 to 0x7E, no two are the same, and UIDL n says what UIDL does."""
    async with patient.inside() as wire:
        uids = await patient.uids(wire)
        if uids.keys() != (await patient.sizes()).keys():
            return failed(f"UIDL has {len(uids)} lines, not those of LIST", "list the same messages in both")
        for number, uid in uids.items():
            if not 0 < len(uid) <= _UID_MAX or not all(0x21 <= octet <= 0x7E for octet in uid):
                return failed(f"message {number}: {patient.shown(uid)}", "1 to 70 octets of 0x21 to 0x7E")
        if len(set(uids.values())) < len(uids):
            return failed("two messages have one unique-id", "clients take the second for the first, and lose it")
        for number, uid in list(uids.items())[:2]:
            reply = await wire.ask(f"UIDL {number}")
            if reply.status.split(b" ")[1:3] != [str(number).encode(), uid]:
                return failed(f"UIDL {number}: {patient.shown(reply.status)}", "answer +OK, the number and the id")
    return passed(f"{len(uids)} unique-ids")


async def uidl_stable(patient: ServerUnderTest) -> Finding:
    """A message has the same unique-id in the next session."""
    async with patient.inside(fresh=True) as wire:
        first = await patient.uids(wire)
    await patient.drop()
    async with patient.inside() as wire:
        second = await patient.uids(wire)
    changed = [number for number, uid in first.items() if second.get(number, uid) != uid]
    if changed and set(first.values()) & set(second.values()):
        return warned(f"message {changed[0]} is another now", "was mail removed meanwhile? examine again")
    if changed:
        return failed(
            f"message {changed[0]}: {patient.shown(first[changed[0]])}, then {patient.shown(second[changed[0]])}",
            "keep unique-ids over sessions, else clients fetch all mail again",
        )
    return passed(f"{len(first)} unique-ids, twice the same")
