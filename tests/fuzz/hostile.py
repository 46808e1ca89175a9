"""What a hostile client may say, by kind: the protocol's table, sizes, and a little malice.

Each kind is a function of a source of chance that gives one `Attack`. A new command, mechanism or state comes from the
table by itself.
"""

import base64
import random
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pop3core.sasl import MECHANISMS
from pop3core.table import RULES, State
from tests.fuzz.measured import COSTLY, PLAIN, PROXIED, TLS
from tests.issuer import token

SEGMENT = 16 * 1024  # octets that the daemon reads at a time
ANSWER_MAX = 12 * 1024 - 2  # octets of a client's answer in a SASL exchange
LOGIN = b"USER %b\r\nPASS secret\r\n"


@dataclass(frozen=True)
class Attack:
    """``lines``: with their ends, said at once behind ``road``, which leads to the state they are meant for."""

    listener: int
    road: bytes
    lines: Sequence[bytes]

    @property
    def said(self) -> bytes:
        """All of it."""
        return self.road + b"".join(self.lines)


Kind = Callable[[random.Random], Attack]


def kinds(messages: Mapping[str, int], marked_max: int) -> dict[str, Kind]:
    """By name. ``messages``: of each user's mailbox; ``marked_max``: how many an attack marks at most."""
    found: dict[str, Kind] = {}
    for rule in RULES:
        for state in (State.AUTHORIZATION, State.TRANSACTION):
            found[f"{rule.keyword} in {state.value}, many"] = _pipelined(rule.example, rule.keyword, state)
    for name in MECHANISMS:
        found[f"AUTH {name}"] = _exchange(name)
    for keyword in ("LIST", "UIDL"):
        found[f"{keyword} of a large mailbox"] = _listing(keyword)
        found[f"{keyword} behind DELE"] = _marked(f"{keyword}\r\n".encode(), messages, marked_max)
    found["RSET, STAT behind DELE"] = _marked(b"RSET\r\nSTAT\r\n", messages, marked_max)
    found["QUIT behind DELE"] = _marked(b"QUIT\r\n", messages, marked_max)
    found["RETR, TOP of costly messages"] = _costly
    found["a mixture"] = _mixture
    found["long lines"] = _long_lines
    found["a PROXY header"] = _proxy
    return found


def _listener(chance: random.Random) -> int:
    return chance.choice((PLAIN, PLAIN, TLS))


def _many(unit: bytes, chance: random.Random) -> list[bytes]:
    segments = chance.choice((1, 1, 2, 4))
    return [unit] * max(1, segments * SEGMENT // len(unit))


def _road(state: State, chance: random.Random) -> bytes:
    if state is State.AUTHORIZATION:
        return b""
    return LOGIN % chance.choice((b"alice", b"million"))


def _pipelined(example: str, keyword: str, state: State) -> Kind:
    def attack(chance: random.Random) -> Attack:
        argument = chance.choice((example.partition(" ")[2], "", "1", "7", "9999999999", "x" * 200, "x y z", "*"))
        unit = f"{keyword} {argument}".rstrip().encode() + b"\r\n"
        lines = _many(unit, chance)
        return Attack(_listener(chance), _road(state, chance), lines[: 500 if argument else 2500])

    return attack


def _payload(name: str, chance: random.Random) -> bytes:
    """What a SASL answer may hold: up to all that a line has room for."""
    room = ANSWER_MAX * 3 // 4
    pieces = [
        *["\ufdfa"] * 4,  # becomes 18 characters
        "\u0344",
        "\u0301\u0316",
        "\u0340",
        "a",
        "\u05d0",
        " ",
        "=2C",
        "\u00ad",
        "\U0001d15f",
        ",",
        "\x01",
        "x=1\x01",
    ]
    filler = "".join(chance.choices(pieces, k=chance.choice((1, 1, 1, 2, 3)))) * room
    octets = chance.choice((255, 1000, room - 20, room - 20))
    noise = filler.encode()[:octets].decode("utf-8", "ignore").encode()
    nested = base64.urlsafe_b64encode(b"[" * (room // 2)).rstrip(b"=")
    jwt = chance.choice(
        (noise, nested + b".e.e", token().encode(), token("RS256", more="x" * 5000).encode(), b"." * 4000)
    )
    forms = {
        "PLAIN": (noise + b"\0u\0p", b"\0" + noise + b"\0p", b"\0alice\0" + noise, noise),
        "LOGIN": (noise,),
        "EXTERNAL": (noise,),
        "OAUTHBEARER": (b"n,a=" + noise + b",\x01auth=Bearer x\x01\x01", b"n,,\x01auth=Bearer " + jwt + b"\x01\x01"),
        "XOAUTH2": (b"user=alice\x01auth=Bearer " + jwt + b"\x01\x01", b"user=" + noise + b"\x01auth=Bearer x\x01\x01"),
    }
    scram = (b"n,,n=" + noise + b",r=abc", b"n,a=" + noise + b",n=alice,r=abc", b"n,,n=alice,r=" + b"x" * len(noise))
    return chance.choice(forms.get(name, scram))[:room]


def _exchange(name: str) -> Kind:
    def attack(chance: random.Random) -> Attack:
        lines = []
        for _ in range(chance.choice((1, 3, 20))):
            answers = [base64.b64encode(_payload(name, chance)) for _ in range(chance.choice((1, 2)))]
            lines += [f"AUTH {name}\r\n".encode(), *(answer + b"\r\n" for answer in answers)]
        return Attack(_listener(chance), b"", lines)

    return attack


def _listing(keyword: str) -> Kind:
    def attack(chance: random.Random) -> Attack:
        user = chance.choice((b"alice", b"million"))
        times = chance.choice((1, 2, 2000 if user == b"alice" else 3))
        return Attack(_listener(chance), LOGIN % user, [f"{keyword}\r\n".encode()] * min(times, 20))

    return attack


def _marked(then: bytes, messages: Mapping[str, int], marked_max: int) -> Kind:
    """Messages are marked, and taken back in the end but for a QUIT: alice's mailbox stays as it is."""

    def attack(chance: random.Random) -> Attack:
        commits = then.startswith(b"QUIT")
        user = "million" if commits else chance.choice(("alice", "million"))
        there = min(messages[user], marked_max)
        step = chance.choice((1, 1, 1, 2, 3))
        numbers = list(range(1, there + 1, step))
        road = LOGIN % user.encode() + b"".join(b"DELE %d\r\n" % number for number in numbers)
        times = 1 if commits else chance.choice((1, 100, SEGMENT // len(then))) if user == "alice" else 3
        return Attack(PLAIN, road, [then] * times)

    return attack


def _costly(chance: random.Random) -> Attack:
    lines = []
    for _ in range(chance.choice((1, 10, 100))):
        number = chance.randint(1, len(COSTLY))
        lines += chance.choice(
            (
                [b"RETR %d\r\n" % number] * chance.choice((1, 5, 50)),
                [b"TOP %d %d\r\n" % (number, chance.choice((0, 1, 30_000, 9_999_999_999)))]
                * chance.choice((1, 50, 500)),
            )
        )
    lines = lines[:1500]
    return Attack(_listener(chance), LOGIN % b"alice", lines)


def _mixture(chance: random.Random) -> Attack:
    numbers = ("1", "2", "6", "7", "0", "99999", "-1")
    units = [f"{rule.keyword} {chance.choice(numbers)}".encode() for rule in RULES if rule.keyword != "QUIT"]
    units += [rule.example.encode() for rule in RULES if rule.keyword != "QUIT"]
    units += [b"NOOP", b"CAPA", b"LANG", b"LANG de-a-b-c-d-e-f-g-h", b"LANG fr", b"STAT", b"RSET", b"TOP 6 1"] * 3
    return Attack(_listener(chance), LOGIN % b"alice", [chance.choice(units) + b"\r\n" for _ in range(3000)])


def _long_lines(chance: random.Random) -> Attack:
    octets = bytes(chance.choice((0x20, 0x41, 0xC3, 0x2E, 0x0D))) or b"A"
    line = octets * (chance.choice((250, 256, 4000, 70_000)) // len(octets) + 1)
    keyword = chance.choice((b"", b"USER ", b"PASS ", b"LIST ", b"AUTH PLAIN "))
    road = _road(chance.choice((State.AUTHORIZATION, State.TRANSACTION)), chance)
    return Attack(_listener(chance), road, [keyword + line + chance.choice((b"\r\n", b"\n", b""))] * 20)


def _proxy(chance: random.Random) -> Attack:
    tlv = chance.choice((b"\x04\x00\x00", b"\x20\x00\x05\x01\x00\x00\x00\x00", b"\x03\x00\x04abcd", b"\x02\x00\x01a"))
    body = struct.pack("!4s4sHH", b"\x7f\0\0\1", b"\x7f\0\0\1", 1, 1) + tlv * chance.choice((1, 100, 600))
    body = body[: chance.choice((2048, 12, 36))]
    two = b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x21, 0x11, len(body)) + body
    one = b"PROXY TCP4 " + chance.choice((b"127.0.0.1 127.0.0.1 1 2", b"1" * 90, b" " * 90)) + b"\r\n"
    return Attack(PROXIED, chance.choice((one, two)), _many(b"CAPA\r\n", chance))
