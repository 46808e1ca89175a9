"""Deleting, and taking it back: only for who allows it, since the last of these removes a message."""

from __future__ import annotations

from pop3cli.doctor.findings import Finding, Skip, failed, passed
from pop3cli.doctor.server_under_test import ServerUnderTest

__all__ = ["dele_drop", "dele_quit", "dele_rset", "victim"]


async def victim(tested: ServerUnderTest) -> tuple[int, int]:
    """Number and octets of the message that is removed: the smallest. Raises `Skip` where there is none."""
    number = (await tested.some())[0]
    return number, (await tested.sizes())[number]


async def _names(tested: ServerUnderTest) -> dict[int, bytes]:
    async with tested.inside() as raw:
        return await tested.uids(raw)


async def dele_rset(tested: ServerUnderTest) -> Finding:
    """A message marked by DELE is refused and not counted, and RSET brings it back."""
    number, _ = await victim(tested)
    async with tested.inside(fresh=True) as raw:
        before = await tested.list_sizes(raw)
        marked = await raw.ask(f"DELE {number}")
        if not marked.ok:
            return failed(f"DELE {number}: {tested.shown(marked.status)}", "mark the message")
        again = [await raw.ask(command, lines=command.startswith("RETR")) for command in _about(number)]
        during = await tested.list_sizes(raw)
        taken_back = await raw.ask("RSET")
        if not taken_back.ok or await tested.list_sizes(raw) != before:
            raw.broken = True  # dropped, and not left by QUIT: nothing is deleted
            return failed(f"RSET: {tested.shown(taken_back.status)}", "take all marks back at RSET")
    wrong = [command for command, reply in zip(_about(number), again, strict=True) if not reply.refused]
    if wrong:
        return failed(f"{wrong[0]} behind DELE {number} is not refused", "refuse a message that is marked")
    if during != {one: octets for one, octets in before.items() if one != number}:
        return failed(f"LIST behind DELE {number} has {len(during)} messages of {len(before)}", "leave out the marked")
    return passed(f"message {number} was marked and is back")


def _about(number: int) -> tuple[str, ...]:
    return f"LIST {number}", f"RETR {number}", f"DELE {number}"


async def dele_drop(tested: ServerUnderTest) -> Finding:
    """A connection that drops deletes nothing that was marked."""
    number, _ = await victim(tested)
    async with tested.inside(fresh=True) as raw:
        before = await tested.uids(raw)
        await raw.ask(f"DELE {number}")
    await tested.drop()
    after = await _names(tested)
    if set(before.values()) - set(after.values()):
        return failed(f"message {number} is gone", "delete in the UPDATE state, and enter it by QUIT alone")
    return passed(f"message {number} is still there")


async def dele_quit(tested: ServerUnderTest) -> Finding:
    """QUIT removes the message that was marked, and no other."""
    number, octets = await victim(tested)
    async with tested.inside(fresh=True) as raw:
        before = await tested.uids(raw)
        if (await tested.list_sizes(raw)).get(number) != octets:
            raise Skip(f"message {number} is another now; examine again")
        await raw.ask(f"DELE {number}")
        gone = await raw.ask("QUIT")
        raw.broken = True
        if not gone.ok:
            return failed(f"QUIT: {tested.shown(gone.status)}", "delete what is marked, or say why not")
    after = set((await _names(tested)).values())
    lost = {one for one, uid in before.items() if uid not in after}
    if number not in lost:
        return failed(f"QUIT was answered +OK, and message {number} is still there", "say +OK when it is removed")
    if lost != {number}:
        return failed(f"{len(lost)} messages are gone", "delete only what DELE marked")
    return passed(f"message {number} is removed, and no other")
