"""Capability honesty: everything announced works, and what works is announced."""

from __future__ import annotations

import re
from typing import Final

from pop3cli.doctor.findings import Finding, Skip, Violation, failed, passed, warned
from pop3cli.doctor.server_under_test import ServerUnderTest
from pop3core.capabilities import Capabilities

__all__ = [
    "capa_form",
    "capa_states",
    "expire",
    "lang",
    "login_delay",
    "resp_codes",
    "sasl",
    "stls",
    "top",
    "uidl",
    "user",
    "utf8",
]

_CAPABILITY: Final = re.compile(rb"[\x21-\x7e]+(?: [\x21-\x7e]+)*")  # RFC 2449 §3
_EXPIRE: Final = re.compile(r"(?:NEVER|[0-9]+)(?: USER)?", re.I)
_LOGIN_DELAY: Final = re.compile(r"[0-9]+(?: USER)?", re.I)
_MECHANISMS_MAX: Final = 8  # of those announced, tried: servers count the exchanges that are broken off
_SAME_IN_BOTH: Final = ("TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING")
_STRANGE_MECHANISM: Final = "X-NO-SUCH"
_STRANGE_LANGUAGE: Final = "x-no-such"


async def _known(patient: ServerUnderTest, *, inside: bool) -> Capabilities:
    announced = await patient.announced(inside=inside)
    if not announced:
        raise Skip("CAPA announces nothing, or is not known")
    return announced


async def capa_form(patient: ServerUnderTest) -> Finding:
    """CAPA works before and behind the login, and each line is a name and arguments between single blanks."""
    for where, connection in (("before", patient.outside()), ("behind", patient.inside())):
        async with connection as wire:
            reply = await wire.ask("CAPA", lines=True)
        if not reply.ok:
            return warned(f"{where} the login: {patient.shown(reply.status)}", "answer CAPA, so that clients know")
        names = [line.split()[0].upper() for line in reply.lines if line.split()]
        for line in reply.lines:
            if not _CAPABILITY.fullmatch(line):
                return failed(f"a line {patient.shown(line)}", "a line is a name and arguments, single blanks between")
        if len(set(names)) < len(names):
            return failed(f"{where} the login a capability is announced twice", "announce each capability once")
    return passed(f"{len(await patient.announced(inside=True))} capabilities behind the login")


async def capa_states(patient: ServerUnderTest) -> Finding:
    """What is the same in both states is announced in both."""
    before, behind = await _known(patient, inside=False), await _known(patient, inside=True)
    moved = [name for name in _SAME_IN_BOTH if (name in before) != (name in behind)]
    if moved:
        return warned(f"announced in one state only: {', '.join(moved)}", "announce it in both states")
    return passed("the same in both states")


async def top(patient: ServerUnderTest) -> Finding:
    """TOP is announced exactly when it works."""
    announced = "TOP" in await _known(patient, inside=True)
    number = (await patient.some())[0]
    async with patient.inside() as wire:
        reply = await wire.ask(f"TOP {number} 0", lines=True)
    return _honest("TOP", announced, reply.ok, patient.shown(reply.status))


async def uidl(patient: ServerUnderTest) -> Finding:
    """UIDL is announced exactly when it works."""
    announced = "UIDL" in await _known(patient, inside=True)
    async with patient.inside() as wire:
        reply = await wire.ask("UIDL", lines=True)
    return _honest("UIDL", announced, reply.ok, patient.shown(reply.status))


async def user(patient: ServerUnderTest) -> Finding:
    """USER is announced exactly when it would be accepted."""
    announced = "USER" in await _known(patient, inside=False)
    async with patient.outside() as wire:
        reply = await wire.ask(f"USER {patient.account.user}")
    return _honest("USER", announced, reply.ok, patient.shown(reply.status))


def _honest(name: str, announced: bool, works: bool, said: str) -> Finding:
    if announced and not works:
        return failed(f"{name} is announced, and answered {said}", f"make {name} work, or do not announce it")
    if works and not announced:
        return warned(f"{name} works, and is not announced", f"announce {name}: clients do not try what is not")
    return passed(f"{name} is announced and works" if works else f"{name} is neither announced nor there")


async def sasl(patient: ServerUnderTest) -> Finding:
    """Each mechanism announced can be begun, cancelled with ``*``, and another one is refused."""
    announced = await _known(patient, inside=False)
    mechanisms = announced.get("SASL", ())
    for mechanism in mechanisms[:_MECHANISMS_MAX]:
        async with patient.outside() as wire:
            reply = await wire.ask(f"AUTH {mechanism}")
            if reply.ok:
                return failed(f"AUTH {mechanism} logs in without a word", "let nobody in without a proof")
            if reply.refused:
                said = f"AUTH {mechanism}: {patient.shown(reply.status)}"
                if mechanism.upper() in ("EXTERNAL", "ANONYMOUS"):
                    continue  # it depends on the connection, which the mechanism may see at once
                return failed(said, f"make {mechanism} work, or do not announce it")
            if reply.status != b"+" and not reply.status.startswith(b"+ "):
                return failed(f"AUTH {mechanism}: {patient.shown(reply.status)}", "ask with '+ ' and base64")
            end = await wire.ask("*", name=f"AUTH {mechanism}, cancelled")
            if not end.refused:
                return failed(f"* is answered {patient.shown(end.status)}", "answer a cancelled exchange with -ERR")
    async with patient.outside() as wire:
        strange = await wire.ask(f"AUTH {_STRANGE_MECHANISM}")
        if not strange.refused:
            return failed(f"an unknown mechanism: {patient.shown(strange.status)}", "refuse it with -ERR")
        if mechanisms:
            return passed(f"{', '.join(mechanisms)} can be begun and cancelled"[:100])
        plain = await wire.ask("AUTH PLAIN")
    if not plain.refused:
        return warned("AUTH PLAIN is begun, and SASL is not announced", "announce SASL PLAIN")
    return passed("no SASL, and AUTH is refused")


async def stls(patient: ServerUnderTest) -> Finding:
    """STLS is announced before TLS where it works, and neither announced nor accepted behind TLS."""
    if patient.account.stls:
        async with patient.plain() as wire:
            reply = await wire.ask("CAPA", lines=True)
            if b"STLS" not in [line.upper() for line in reply.lines]:
                return warned("STLS works, and is not announced in clear text", "announce STLS")
    async with patient.outside() as wire:
        reply = await wire.ask("CAPA", lines=True)
        if b"STLS" in [line.upper() for line in reply.lines]:
            return failed("STLS is announced behind TLS", "do not announce what is not permitted any more")
        again = await wire.ask("STLS")
    if not again.refused:
        return failed(f"STLS behind TLS: {patient.shown(again.status)}", "refuse STLS behind TLS")
    return passed("refused and not announced behind TLS")


async def utf8(patient: ServerUnderTest) -> Finding:
    """UTF8 is announced exactly when it works."""
    announced = await _known(patient, inside=False)
    async with patient.outside() as wire:
        reply = await wire.ask("UTF8")
    return _honest("UTF8", "UTF8" in announced, reply.ok, patient.shown(reply.status))


async def lang(patient: ServerUnderTest) -> Finding:
    """LANG lists languages, takes each of them and ``*``, and refuses another; or is neither there nor announced."""
    announced = "LANG" in await _known(patient, inside=False)
    async with patient.outside() as wire:
        reply = await wire.ask("LANG", lines=True)
        if not announced or not reply.ok:
            return _honest("LANG", announced, reply.ok, patient.shown(reply.status))
        if not all(line.split() for line in reply.lines):
            return failed("a line of LANG without a language", "a line is a tag, and the language's name")
        tags = [line.split()[0] for line in reply.lines]
        for tag in (*tags[:2], b"*"):
            taken = await wire.ask(b"LANG " + tag)
            if not taken.ok:
                return failed(f"LANG {patient.shown(tag)}: {patient.shown(taken.status)}", "take what LANG lists")
        strange = await wire.ask(f"LANG {_STRANGE_LANGUAGE}")
    if not strange.refused:
        return failed(f"an unknown language: {patient.shown(strange.status)}", "refuse it with -ERR")
    return passed(f"{len(tags)} languages")


async def expire(patient: ServerUnderTest) -> Finding:
    """EXPIRE has days or NEVER, and USER only before the login."""
    return await _argument(patient, "EXPIRE", _EXPIRE, "days or NEVER, and USER only before the login")


async def login_delay(patient: ServerUnderTest) -> Finding:
    """LOGIN-DELAY has seconds, and USER only before the login."""
    return await _argument(patient, "LOGIN-DELAY", _LOGIN_DELAY, "seconds, and USER only before the login")


async def _argument(patient: ServerUnderTest, name: str, form: re.Pattern[str], asked: str) -> Finding:
    said = list[str]()
    for inside in (False, True):
        announced = await _known(patient, inside=inside)
        if name not in announced:
            continue
        argument = " ".join(announced[name])
        text = patient.shown(f"{name} {argument}".encode())
        if not form.fullmatch(argument) or (inside and argument.upper().endswith(" USER")):
            return failed(text, f"the argument is {asked}")
        said.append(text)
    return passed(said[-1] if said else "not announced")


async def resp_codes(patient: ServerUnderTest) -> Finding:
    """Response codes are announced where they are used."""
    announced = await _known(patient, inside=True)
    coded = patient.tally.coded
    if coded is not None and "RESP-CODES" not in announced:
        raise Violation(f"{patient.shown(coded)}, without RESP-CODES", "announce RESP-CODES")
    if "RESP-CODES" not in announced:
        return passed("not announced, and none was seen")
    return passed(f"announced; seen: {'none' if coded is None else patient.shown(coded)}")
