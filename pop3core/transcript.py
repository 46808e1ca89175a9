"""A redacted record of a session, exact enough to be played again.

`RecordingServer` is a `ServerConnection` that writes down all that goes in and out: octets received, events, the
driver's answers. The engine has no clock and no randomness, so `replay` against a new engine must bring about the same
events, octet for octet; `explain` sets the dialogue beside the rules that it follows.

*Secrets never get in.* What a line means is known only when it is executed, so that is when it is written down. What
may be shown of it `pop3core.secrecy` says; all else gets a stand-in of equal length (`pop3core.stand_ins`), also what
was typed in the wrong place. A proof (SCRAM, APOP) is replaced by one that a placeholder key gives, and the driver's
stored secret by that key, so that what succeeded succeeds again and what failed fails. Everything else is kept as it
was, message content too: a transcript is as private as the mail in it.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Final, TypeAlias

from pop3core import answers as a
from pop3core.commands import Auth
from pop3core.errors import LocalProtocolError
from pop3core.events import LoginRequested, ProofFailed, SendData, ServerEvent
from pop3core.framing import LineFault
from pop3core.grammar import Reader, initial_response
from pop3core.maildrop import Listing
from pop3core.replies import encode_challenge
from pop3core.sasl.scram import FINAL, FIRST
from pop3core.secrecy import masked
from pop3core.server import ServerConfig, ServerConnection
from pop3core.stand_ins import for_argument, for_message, of_equal_length
from pop3core.syntax import BadCommand, split

__all__ = ["Difference", "Entry", "RecordingServer", "Transcript", "explain", "replay"]

_FORMAT: Final = "pop3core transcript 1"
_KEY: Final = b"x" * 32  # in place of every ClientKey and ServerKey
_ANSWERS: Final = {
    kind.__name__: kind
    for kind in (
        a.LoginAccepted, a.LoginRejected, a.ScramSecret, a.PlainSecret, a.NoSecret, a.TlsEstablished, a.Content,
        a.ContentFailed, a.Pending, a.Committed, a.CommitFailed,
    )
}  # fmt: skip


@dataclass(slots=True)
class Entry:
    """One thing that happened. ``kind``: ``"received"``, ``"event"``, ``"answer"``, ``"hang_up"`` or ``"finish"``.

    ``octets``: received or sent; ``text``: an event as it shows itself, or a reason; ``answer``: the driver's.
    """

    kind: str
    octets: bytes = b""
    text: str = ""
    answer: a.ServerAnswer | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """A session: what the server was, and what happened, in order."""

    config: ServerConfig
    timestamp: str | None
    entries: list[Entry]

    def dumps(self) -> str:
        """As text: a line of JSON for each entry."""
        settings = {field.name: getattr(self.config, field.name) for field in fields(ServerConfig) if field.init}
        settings.pop("limits")
        head = {"format": _FORMAT, "timestamp": self.timestamp, "config": settings}
        return "".join(f"{json.dumps(line)}\n" for line in (head, *map(_dump, self.entries)))

    @classmethod
    def loads(cls, text: str) -> Transcript:
        """From text. Limits are the default ones. Raises ValueError for what is no transcript."""
        lines = [json.loads(line) for line in text.splitlines()]
        if not lines or not isinstance(lines[0], dict) or lines[0].get("format") != _FORMAT:
            raise ValueError(f"this is no {_FORMAT}")
        found: dict[str, Any] = lines[0]["config"]
        settings: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}
        return cls(ServerConfig(**settings), lines[0]["timestamp"], [_load(line) for line in lines[1:]])


def _dump(entry: Entry) -> dict[str, Any]:
    line: dict[str, Any] = {"kind": entry.kind}
    if entry.octets:
        line["octets"] = entry.octets.decode("latin-1")
    if entry.text:
        line["text"] = entry.text
    if entry.answer is not None:
        line["answer"] = type(entry.answer).__name__
        line["fields"] = {field.name: _plain(getattr(entry.answer, field.name)) for field in fields(entry.answer)}
    return line


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"octets": value.decode("latin-1")}
    if isinstance(value, Listing):
        return {"sizes": list(value.sizes), "uids": [uid.decode("latin-1") for uid in value.uids]}
    return list(value) if isinstance(value, tuple | set | frozenset) else value


def _load(line: dict[str, Any]) -> Entry:
    answer = None
    if "answer" in line:
        make: Callable[..., a.ServerAnswer] = _ANSWERS[line["answer"]]
        answer = make(**{name: _value(value) for name, value in line["fields"].items()})
    return Entry(line["kind"], line.get("octets", "").encode("latin-1"), line.get("text", ""), answer)


def _value(value: Any) -> Any:
    if isinstance(value, dict) and "octets" in value:
        return value["octets"].encode("latin-1")
    if isinstance(value, dict):
        return Listing(value["sizes"], [uid.encode("latin-1") for uid in value["uids"]])
    return value


# --- recording ---


class RecordingServer(ServerConnection):
    """A `ServerConnection` that keeps a transcript of itself; ask `transcript` for it, at any time."""

    def __init__(self, config: ServerConfig | None = None, *, timestamp: str | None = None) -> None:
        super().__init__(config, timestamp=timestamp)
        self._entries: list[Entry] = []
        self._segments: list[tuple[Entry, int]] = []  # what was received, as octets to be filled in
        self._received = 0
        self._stream = bytearray()  # the same octets, redacted, as far as they were executed
        self._began = False  # the line executed last is of an exchange, or begins one
        self._answered = 0  # answers in the exchange under way
        self._scram: tuple[bytes, bytes, bytes] | None = None  # the first messages, while the proof is awaited

    @property
    def transcript(self) -> Transcript:
        """All so far. Octets that were not executed yet, and never will be if it ends here, are x."""
        at = 0
        for entry, octets in self._segments:
            entry.octets = bytes(self._stream[at : at + octets]).ljust(octets, b"x")
            at += octets
        return Transcript(self._config, self._login.timestamp, list(self._entries))

    def receive_data(self, data: bytes) -> None:
        """See `ServerConnection.receive_data`."""
        super().receive_data(data)
        entry = Entry("received")
        self._entries.append(entry)
        self._segments.append((entry, len(data)))
        self._received += len(data)

    def next_event(self) -> ServerEvent:
        """See `ServerConnection.next_event`."""
        event = super().next_event()
        if isinstance(event, SendData):
            self._entries.append(Entry("event", octets=self._redacted_output(event.data)))
        else:
            self._entries.append(Entry("event", text=repr(event)))
        return event

    def answer(self, answer: a.ServerAnswer) -> None:
        """See `ServerConnection.answer`."""
        super().answer(answer)
        match answer:
            case a.ScramSecret():
                answer = replace(answer, stored_key=hashlib.sha256(_KEY).digest(), server_key=_KEY)
            case a.PlainSecret(secret):
                answer = a.PlainSecret(b"x" * len(secret))
                self._forge_apop(answer.secret)
            case _:
                pass
        self._entries.append(Entry("answer", answer=answer))

    def hang_up(self, reason: str) -> None:
        """See `ServerConnection.hang_up`."""
        super().hang_up(reason)
        self._entries.append(Entry("hang_up", text=reason))

    def finish(self, reason: str) -> None:
        """See `ServerConnection.finish`."""
        super().finish(reason)
        self._entries.append(Entry("finish", text=reason))

    def _execute(self, line: bytes | LineFault) -> None:
        octets = self._received - len(self._lines) - len(self._stream)  # of this line, its end included
        in_exchange = self._login.exchange is not None
        counted = self.summary.by_keyword.get(Auth.keyword, 0)
        super()._execute(line)
        self._began = in_exchange or self.summary.by_keyword.get(Auth.keyword, 0) > counted
        if isinstance(line, LineFault):
            redacted = b"x" * (octets - 1)
        elif in_exchange:
            redacted = self._redacted_answer(line)
        else:
            redacted = self._redacted_command(line)
        self._stream += redacted.ljust(octets - 1, b"\r") + b"\n"

    # --- secrets ---

    def _redacted_command(self, line: bytes) -> bytes:
        self._answered, self._scram = 0, None
        return masked(line, self._redacted_argument)

    def _redacted_argument(self, secret: bytes, reader: Reader | None) -> bytes:
        if reader is not None and reader.name == initial_response.name:
            return self._redacted_answer(secret)
        return for_argument(secret, reader)

    def _redacted_answer(self, line: bytes) -> bytes:
        """A line of an exchange, with stand-ins for its secrets; it stays base64 of the same length."""
        if line == b"*":
            return line
        self._answered += 1
        if line in (b"", b"="):
            return line
        try:
            data = binascii.a2b_base64(line, strict_mode=True)
        except binascii.Error:
            return b"x" * (len(line) - 1) + b"!"  # still no base64
        return binascii.b2a_base64(self._redacted_message(data), newline=False)

    def _redacted_message(self, data: bytes) -> bytes:
        # a command that was refused begins no exchange: its mechanism is not known here
        mechanism = self._login.mechanism.name if self._login.mechanism is not None and self._began else ""
        if mechanism.startswith("SCRAM"):
            return self._redacted_scram(data)
        if mechanism == "EXTERNAL" and data == (self._login.tls.identity or "").encode():
            return data
        return for_message(mechanism, self._answered, data)

    def _redacted_scram(self, data: bytes) -> bytes:
        if self._answered == 1 and (first := FIRST.fullmatch(data)) is not None:
            kept = first.end("nonce")
            data = data[:kept] + _extensions(data[kept:])
            self._scram = (data[first.start("bare") :], b"", b"")
            return data
        final = FINAL.fullmatch(data)
        if self._scram is None or self._answered != 2 or final is None:
            return of_equal_length(data)
        kept = final.end("nonce")
        without_proof = data[:kept] + _extensions(data[kept : final.start("proof") - len(",p=")])
        bare, server_first, _ = self._scram
        message = b",".join((bare, server_first, without_proof))
        self._scram = (bare, server_first, message)
        return without_proof + b",p=" + self._forged_proof(message, final["proof"])

    def _forged_proof(self, message: bytes, proof: bytes) -> bytes:
        """One that placeholder keys give, where the real one was good; else one that is as bad."""
        padding = b"=" * (len(proof) - len(proof.rstrip(b"=")))
        if isinstance(self._question, LoginRequested) and isinstance(self._question.credential, ProofFailed):
            return b"A" * (len(proof) - len(padding)) + padding
        if self._login.exchange is None:  # it was no base64
            return of_equal_length(proof[:-1]) + b"!" * len(proof[-1:])
        signature = hmac.digest(hashlib.sha256(_KEY).digest(), message, "sha256")
        forged = bytes(one ^ other for one, other in zip(_KEY, signature, strict=True))
        return binascii.b2a_base64(forged, newline=False)

    def _redacted_output(self, data: bytes) -> bytes:
        """What the server sends has one secret: the signature that proves it to a SCRAM client."""
        if self._scram is None or not data.startswith(b"+ "):
            return data
        challenge = binascii.a2b_base64(data[2:])
        bare, _, message = self._scram
        if challenge.startswith(b"r="):
            self._scram = (bare, challenge, b"")
        else:  # the server's proof
            self._scram = None
            signature = hmac.digest(_KEY, message, "sha256")
            return encode_challenge(b"v=" + binascii.b2a_base64(signature, newline=False))
        return data

    def _forge_apop(self, secret: bytes) -> None:
        """The digest that the placeholder secret gives, where the real one was good."""
        assert isinstance(self._question, LoginRequested)
        if isinstance(self._question.credential, ProofFailed):
            return
        assert self._login.timestamp is not None
        digest = hashlib.md5(self._login.timestamp.encode() + secret, usedforsecurity=False).hexdigest().encode()
        at = self._stream.rindex(b"0" * len(digest))
        self._stream[at : at + len(digest)] = digest


def _extensions(octets: bytes) -> bytes:
    """Stand-ins for extensions of a SCRAM message, with the comma before them."""
    return octets[:1] + of_equal_length(octets[1:])


# --- replaying ---


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a replay goes another way. ``number``: of the entry, from 0; the other two: what was, and what is."""

    number: int
    recorded: str
    replayed: str


def replay(transcript: Transcript) -> Difference | None:
    """Play a transcript against a new engine; the first difference, or None when all is the same."""
    conn = ServerConnection(transcript.config, timestamp=transcript.timestamp)
    for number, entry in enumerate(transcript.entries):
        recorded = repr(entry.octets) if entry.octets else entry.text
        try:
            replayed = _play(conn, entry)
        except LocalProtocolError as fault:
            return Difference(number, recorded, f"{type(fault).__name__}: {fault}")
        if replayed is not None and replayed != recorded:
            return Difference(number, recorded, replayed)
    return None


def _play(conn: ServerConnection, entry: Entry) -> str | None:
    match entry.kind:
        case "received":
            conn.receive_data(entry.octets)
        case "event":
            event = conn.next_event()
            return repr(event.data) if isinstance(event, SendData) else repr(event)
        case "answer":
            assert entry.answer is not None
            conn.answer(entry.answer)
        case "hang_up":
            conn.hang_up(entry.text)
        case _:
            conn.finish(entry.text)
    return None


# --- explaining ---

_Line: TypeAlias = tuple[str, str]


def explain(transcript: Transcript) -> str:
    """The dialogue, a line each: ``C:`` or ``S:`` or ``--`` (the driver), and the rule behind it where there is one."""
    lines = list(_dialogue(transcript))
    width = min(60, max((len(text) for text, _ in lines), default=0))
    return "".join(f"{text:<{width}}  {rule}".rstrip() + "\n" for text, rule in lines)


def _dialogue(transcript: Transcript) -> Iterator[_Line]:
    heard = b""
    for entry in transcript.entries:
        if entry.kind == "received":
            heard += entry.octets
            *whole, heard = heard.split(b"\n")
            for line in (ended.removesuffix(b"\r") for ended in whole):
                yield f"C: {_shown(line)}", _rule(line)
        elif entry.kind == "event" and entry.octets:
            for line in entry.octets.split(b"\r\n")[:-1]:
                yield f"S: {_shown(line)}", "RFC 1939 §3 +OK" if line.startswith(b"+OK") else ""
        elif entry.kind != "event" or not entry.text.startswith(("NeedData", "MoreWork")):
            yield f"-- {entry.text or entry.answer}", ""


def _rule(line: bytes) -> str:
    try:
        rule, _ = split(line)
    except BadCommand:
        return ""
    return f"{rule.usage} ({rule.rfc})"


def _shown(line: bytes) -> str:
    text = line.decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "." for character in text)
