"""Deleting, and taking it back: only for who allows it, since the last of these removes a message."""

from __future__ import annotations

from pop3cli.doctor.findings import Finding, Skip, failed, passed
from pop3cli.doctor.server_under_test import ServerUnderTest

__all__ = ["dele_drop", "dele_quit", "dele_rset", "victim"]


async def victim(patient: ServerUnderTest) -> tuple[int, int]:
    """Number and octets of the message that is removed: the smallest. Raises `Skip` where there is none."""
    number = (await patient.some())[0]
    return number, (await patient.sizes())[number]


async def _names(patient: ServerUnderTest) -> dict[int, bytes]:
    async with patient.inside() as wire:
        return await patient.uids(wire)


async def dele_rset(patient: ServerUnderTest) -> Finding:
    """A message marked by DELE is refused and not counted, and RSET brings it back."""
    number, _ = await victim(patient)
    async with patient.inside(fresh=True) as wire:
        before = await patient.list_sizes(wire)
        marked = await wire.ask(f"DELE {number}")
        if not marked.ok:
            return failed(f"DELE {number}: {patient.shown(marked.status)}", "mark the message")
        again = [await wire.ask(command, lines=command.startswith("RETR")) for command in _about(number)]
        during = await patient.list_sizes(wire)
        taken_back = await wire.ask("RSET")
        if not taken_back.ok or await patient.list_sizes(wire) != before:
            wire.broken = True  # dropped, and not left by QUIT: nothing is deleted
            return failed(f"RSET: {patient.shown(taken_back.status)}", "take all marks back at RSET")
    wrong = [command for command, reply in zip(_about(number), again, strict=True) if not reply.refused]
    if wrong:
        return failed(f"{wrong[0]} behind DELE {number} is not refused", "refuse a message that is marked")
    if during != {one: octets for one, octets in before.items() if one != number}:
        return failed(f"LIST behind DELE {number} has {len(during)} messages of {len(before)}", "leave out the marked")
    return passed(f"message {number} was marked and is back")


def _about(number: int) -> tuple[str, ...]:
    return f"LIST {number}", f"RETR {number}", f"DELE {number}"


async def dele_drop(patient: ServerUnderTest) -> Finding:
    """A connection that drops deletes nothing that was marked."""
    number, _ = await victim(patient)
    async with patient.inside(fresh=True) as wire:
        before = await patient.uids(wire)
        await wire.ask(f"DELE {number}")
    await patient.drop()
    after = await _names(patient)
    if set(before.values()) - set(after.values()):
        return failed(f"message {number} is gone", "delete in the UPDATE state, and enter it by QUIT alone")
    return passed(f"message {number} is still there")


async def dele_quit(patient: ServerUnderTest) -> Finding:
    """QUIT removes the message that was marked, and no other."""
    number, octets = await victim(patient)
    async with patient.inside(fresh=True) as wire:
        before = await patient.uids(wire)
        if (await patient.list_sizes(wire)).get(number) != octets:
            raise Skip(f"message {number} is another now; examine again")
        await wire.ask(f"DELE {number}")
        gone = await wire.ask("QUIT")
        wire.broken = True
        if not gone.ok:
            return failed(f"QUIT: {patient.shown(gone.status)}", "delete what is marked, or say why not")
    after = set((await _names(patient)).values())
    lost = {one for one, uid in before.items() if uid not in after}
    if number not in lost:
        return failed(f"QUIT was answered +OK, and message {number} is still there", "say +OK when it is removed")
    if lost != {number}:
        return failed(f"{len(lost)} messages are gone", "delete only what DELE marked")
    return passed(f"message {number} is removed, and no other")
