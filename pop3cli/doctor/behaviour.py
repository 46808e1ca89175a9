"""How the server bears up: states, locks, lines too long, commands ahead, and what is none."""

from __future__ import annotations

from typing import Final

from pop3cli.doctor.findings import Finding, Skip, failed, passed, warned
from pop3cli.doctor.raw_connection import RawConnection, RawConnectionFault, RawReply
from pop3cli.doctor.server_under_test import LoginFailed, ServerUnderTest

__all__ = [
    "any_case",
    "arguments",
    "greeting",
    "line_endless",
    "line_full",
    "line_long",
    "lock",
    "pipelining",
    "quit_ends",
    "quit_keeps",
    "reply_form",
    "state",
    "stls_injection",
    "unknown",
]

_REPLY_MAX: Final = 512  # RFC 2449 §4, CRLF included
_COMMAND_MAX: Final = 255  # RFC 2449 §4, CRLF included
_LONG: Final = 2000  # octets of a line that is too long
_ENDLESS: Final = 70_000
_EAVESDROP: Final = 0.5  # seconds: a server says nothing between STLS and the handshake
_IMPOSSIBLE: Final = ("LIST 0", "RETR 0", "LIST -1", "LIST 99999999999999999999", "RETR 99999999", "RETR")
_LAX: Final = ("STAT 1", "NOOP 1", "LIST 1 1", "RETR 1x", "TOP 1", "LIST  1")
_ONE_LINE: Final = ("STAT", "NOOP")  # whatever stands behind them
_NUL: Final = b"LIST \x001"


async def greeting(patient: ServerUnderTest) -> Finding:
    """The greeting is one +OK of at most 512 octets, and nothing stands behind it."""
    async with patient.plain() as wire:
        early = await wire.quiet(_EAVESDROP)
    if early:
        return failed(f"behind the greeting: {patient.shown(early)}", "say one line, and wait for the client")
    if len(wire.greeting.status) + 2 > _REPLY_MAX:
        return failed(f"{len(wire.greeting.status) + 2} octets", f"at most {_REPLY_MAX}")
    return passed(patient.shown(wire.greeting.status))


async def any_case(patient: ServerUnderTest) -> Finding:
    """Keywords may be in capitals, small letters or both."""
    async with patient.inside() as wire:
        for word in ("noop", "NoOp"):
            reply = await wire.ask(word)
            if not reply.ok:
                return failed(f"{word}: {patient.shown(reply.status)}", "read keywords without regard to case")
    return passed("noop and NoOp are NOOP")


async def unknown(patient: ServerUnderTest) -> Finding:
    """An unknown command, and an empty line, are answered with one -ERR, and the session goes on."""
    async with patient.outside() as wire:
        outcome = await _strange(patient, wire, "CAPA")
    if outcome is None:
        async with patient.inside() as wire:
            outcome = await _strange(patient, wire, "NOOP")
    return outcome or passed("-ERR, in both states")


async def _strange(patient: ServerUnderTest, wire: RawConnection, behind: str) -> Finding | None:
    for word in ("XNOSUCH", ""):
        reply = await wire.ask(word, name="an unknown command" if word else "an empty line")
        if not reply.refused:
            what = word or "an empty line"
            return failed(f"{what}: {patient.shown(reply.status)}", "answer what is no command with -ERR")
    reply = await wire.ask(behind, lines=behind == "CAPA")
    if reply.ok or (behind == "CAPA" and reply.refused):
        return None
    return failed(f"{behind} behind it: {patient.shown(reply.status)}", "answer once, and go on")


async def state(patient: ServerUnderTest) -> Finding:
    """What needs a login is refused before it, and USER is refused behind it."""
    for command in ("STAT", "LIST", "RETR 1", "DELE 1", "PASS x"):
        async with patient.outside() as wire:
            reply = await wire.ask(command)
        if reply.ok:
            return failed(f"{command} before the login: {patient.shown(reply.status)}", "refuse it before the login")
        if not reply.refused:
            return failed(f"{command}: {patient.shown(reply.status)}", "answer with +OK or -ERR")
    async with patient.inside() as wire:
        reply = await wire.ask(f"USER {patient.account.user}")
    if not reply.refused:
        return warned(f"USER behind the login: {patient.shown(reply.status)}", "USER is for the AUTHORIZATION state")
    return passed("refused in the wrong state")


async def arguments(patient: ServerUnderTest) -> Finding:
    """Arguments are what the RFC says: numbers from 1, of messages that are there, and no more of them."""
    taken = await _taken(patient, _IMPOSSIBLE)
    if taken is not None:
        return failed(taken, "refuse a number that no message has")
    taken = await _taken(patient, (*_LAX, _NUL))
    if taken is not None:
        return warned(taken, "refuse arguments that are too many, too few or not of the form")
    return passed(f"{len(_IMPOSSIBLE) + len(_LAX) + 1} wrong commands are refused")


async def _taken(patient: ServerUnderTest, commands: tuple[str | bytes, ...]) -> str | None:
    """Which of these commands are not refused, and how the first of them was answered."""
    taken, said = list[str](), ""
    for command in commands:
        async with patient.inside() as wire:
            reply = await wire.ask(command)
            if reply.refused:
                continue
            name = patient.shown(command if isinstance(command, bytes) else command.encode())
            taken.append(name)
            said = said or patient.shown(reply.status)
            # lines may stand behind it: nobody knows
            wire.broken = not reply.ok or not name.startswith(_ONE_LINE)
    return f"{', '.join(taken)}: {said}" if taken else None


async def pipelining(patient: ServerUnderTest) -> Finding:
    """Commands that arrive in one segment are answered each, in order; where PIPELINING is announced."""
    announced = "PIPELINING" in await patient.announced(inside=True)
    async with patient.inside() as wire:
        commands = ("STAT", "LIST", "NOOP", "XNOSUCH", "LIST", "STAT")
        single = [await wire.ask(command, lines=command == "LIST") for command in commands]
        try:
            await wire.send("".join(f"{command}\r\n" for command in commands).encode(), "commands in one segment")
            ahead = [await wire.reply(lines=command == "LIST") for command in commands]
        except RawConnectionFault as fault:
            ahead = []
            said = str(fault)
        else:
            said = "the answers are not those of one command after the other"
        if _told(ahead) != _told(single):
            wire.broken = True
            if announced:
                return failed(said, "answer commands in order and keep those that came early, or do not announce it")
            return passed("not announced, and does not work")
    return passed("works" if announced else "works, though it is not announced")


def _told(replies: list[RawReply]) -> list[tuple[bool, tuple[bytes, ...]]]:
    return [(reply.ok, reply.lines) for reply in replies]


async def lock(patient: ServerUnderTest) -> Finding:
    """A second session gets -ERR while the first is in, with [IN-USE] where RESP-CODES is announced."""
    codes = "RESP-CODES" in await patient.announced(inside=True)
    async with patient.inside() as first:
        async with patient.outside() as second:
            try:
                reply = await patient.log_in(second)
            except RawConnectionFault as fault:
                return failed(str(fault), "refuse a mailbox that is in use, and at once")
        still = await first.ask("NOOP")
    if not still.ok:
        return failed(f"the first session: {patient.shown(still.status)}", "leave the first session alone")
    if reply.ok:
        return warned("two sessions were let in at once", "lock the mailbox: what one deletes fails the other")
    if codes and reply.code != b"IN-USE":
        return warned(patient.shown(reply.status), "say [IN-USE], else clients ask for another password")
    return passed(patient.shown(reply.status))


async def stls_injection(patient: ServerUnderTest) -> Finding:
    """Clear text that stands behind STLS in one segment is not executed, neither before TLS nor behind it."""
    if not patient.account.stls:
        raise Skip("TLS from the first octet: there is no STLS")
    remedy = "throw away all that was received before the handshake"
    async with patient.plain() as wire:
        await wire.send(b"STLS\r\nCAPA\r\n", "STLS with CAPA behind it")
        reply = await wire.reply()
        if not reply.ok:
            return passed(f"refused: {patient.shown(reply.status)}")
        early = await wire.quiet(_EAVESDROP)
        if early:
            return failed(f"answered before the handshake: {patient.shown(early)}", remedy)
        try:
            await patient.secure(wire)
            await wire.send(b"QUIT\r\n", "QUIT behind TLS")
            said = await wire.rest()
        except (OSError, RawConnectionFault):
            return passed("the connection ends")
    if len(said) > 1:
        return failed(f"executed behind the handshake: {patient.shown(said[0])}", remedy)
    return passed("thrown away")


# --- lines ---


async def reply_form(patient: ServerUnderTest) -> Finding:
    """Lines end with CRLF, and those outside mail have at most 512 octets."""
    tally = patient.tally
    if tally.bare_lf is not None:
        return failed(f"a line that ends with LF alone: {patient.shown(tally.bare_lf)}", "end lines with CRLF")
    if len(tally.longest) > _REPLY_MAX:
        return failed(f"a line of {len(tally.longest)} octets: {patient.shown(tally.longest)}", f"at most {_REPLY_MAX}")
    return passed(f"the longest has {len(tally.longest)} octets")


async def line_full(patient: ServerUnderTest) -> Finding:
    """A command line of 255 octets, the longest there is, is read as a whole and answered once."""
    return await _line(patient, _COMMAND_MAX, "read lines of 255 octets", fails=True)


async def line_long(patient: ServerUnderTest) -> Finding:
    """A command line of 2000 octets is answered once, or ends the connection; no piece of it is a command."""
    return await _line(patient, _LONG, "read an over-long line to its end, and answer -ERR once", fails=False)


async def line_endless(patient: ServerUnderTest) -> Finding:
    """A line of 70,000 octets is answered once, or ends the connection; nothing hangs."""
    return await _line(patient, _ENDLESS, "answer -ERR or close the connection", fails=False)


async def _line(patient: ServerUnderTest, octets: int, remedy: str, *, fails: bool) -> Finding:
    """A long line of nonsense, a known one, QUIT; pieces of the first that are executed are answers too many."""
    line = b"XNOSUCH " + b"QUIT " * (octets // 5)
    line = line[: octets - 2] + b"\r\n"
    async with patient.outside() as wire:
        await wire.send(line, f"a line of {octets:,} octets")
        said = list[bytes]()
        try:
            said.append((await wire.reply()).status)
            await wire.send(b"XNOSUCH\r\nQUIT\r\n", f"what stands behind a line of {octets:,} octets")
            said += await wire.rest()
        except RawConnectionFault as fault:
            if "no answer" in str(fault):
                return failed(str(fault), remedy)
            if fails:
                return failed(str(fault), remedy)
    texts = " / ".join(patient.shown(one) for one in said[:3])
    refused = [one.startswith(b"-ERR") for one in said]
    if refused == [True, True, False]:
        return passed(f"answered once: {texts}"[:100])
    if not fails and refused in ([], [True]):
        return passed(f"the connection is closed; {texts}"[:100] if texts else "the connection is closed")
    return failed(f"{len(said)} answers to three lines: {texts}", remedy)


# --- the end ---


async def quit_ends(patient: ServerUnderTest) -> Finding:
    """QUIT is answered with +OK, and the connection ends, in both states."""
    async with patient.outside() as wire:
        outcome = await _quit(patient, wire, "before the login")
    if outcome is None:
        async with patient.inside(fresh=True) as wire:
            outcome = await _quit(patient, wire, "behind it")
            wire.broken = True
    return outcome or passed("+OK, and closed, in both states")


async def _quit(patient: ServerUnderTest, wire: RawConnection, where: str) -> Finding | None:
    reply = await wire.ask("QUIT")
    if not reply.ok:
        return failed(f"QUIT {where}: {patient.shown(reply.status)}", "answer QUIT with +OK")
    try:
        more = await wire.rest()
    except RawConnectionFault as fault:
        return failed(f"{where}: {fault}", "close the connection behind QUIT")
    return failed(f"behind QUIT {where}: {patient.shown(more[0])}", "say nothing more") if more else None


async def quit_keeps(patient: ServerUnderTest) -> Finding:
    """A session that ends with QUIT and deleted nothing leaves all messages as they were, those it fetched too."""
    numbers = await patient.some()
    before = await patient.sizes()  # as it was in the very first session
    async with patient.inside(fresh=True) as wire:
        await wire.ask(f"RETR {numbers[0]}", lines=True)
    await patient.release()
    try:
        async with patient.inside() as wire:
            after = await patient.list_sizes(wire)
    except LoginFailed as fault:
        return failed(str(fault), "let the next session in when QUIT was answered")
    gone = [number for number, octets in before.items() if after.get(number) != octets]
    if gone:
        return failed(f"message {gone[0]} of {len(before)} is gone or another", "delete only what DELE marked")
    return passed(f"{len(before)} messages before, {len(after)} behind it")
