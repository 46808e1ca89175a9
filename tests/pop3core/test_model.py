"""The server engine against a small model of RFC 1939 that shares nothing with it, by random walks."""

import base64
import os
from hashlib import md5

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.pop3core.play import EVERYTHING, TIMESTAMP, Dialogue

SIZES = [7, 9, 11]
MAIL = [b"x" * (size - 2) + b"\r\n" for size in SIZES]


class Walk(RuleBasedStateMachine):
    """The model: who is named, whether logged in, behind TLS, which messages are marked, whether it is over."""

    def __init__(self) -> None:
        super().__init__()
        self.server = Dialogue(MAIL, secure=False, config=EVERYTHING, timestamp=TIMESTAMP)
        self.named = False
        self.secure = False
        self.utf8 = False
        self.inside = False
        self.over = False
        self.marked: set[int] = set()
        self.failures = 0
        self.bad = 0

    def expect(self, line: str, ok: bool, *, bad: bool = False) -> str:
        answer = self.server.say(line).decode()
        if self.over:
            assert answer == ""
            return answer
        if bad:
            self.bad += 1
            self.over = self.bad == 20
        assert answer.startswith("+OK" if ok else "-ERR"), (line, answer)
        assert answer.endswith("\r\n")
        return answer

    @rule()
    def user(self) -> None:
        self.expect("USER alice", not self.inside, bad=self.inside)
        self.named = self.named or not (self.inside or self.over)

    @rule(good=st.booleans())
    def password(self, good: bool) -> None:
        possible = self.named and not self.inside
        if possible and not good and not self.over:
            self.expect("PASS no", False)
            self.failures += 1
            self.over = self.failures == 3
        else:
            self.expect("PASS s e c", possible, bad=not possible)
            self.inside = self.inside or (possible and not self.over)
        if possible:
            self.named = False

    @rule(good=st.booleans(), initial=st.booleans())
    def auth(self, good: bool, initial: bool) -> None:
        message = base64.b64encode(b"\0alice\0s e c" if good else b"\0alice\0no").decode()
        if self.inside or self.over:
            self.expect("AUTH PLAIN", False, bad=True)
            return
        self.named = False
        if not initial:
            assert self.server.say("AUTH PLAIN") == b"+ \r\n"
        self.expect(f"AUTH PLAIN {message}" if initial else message, good)
        self.inside = good
        self.failures += not good
        self.over = self.failures == 3

    @rule(answer=st.sampled_from(["*", "not base64", "AAAA", "AA=="]))
    def auth_without_sense(self, answer: str) -> None:
        if self.inside or self.over:
            self.expect("AUTH LOGIN", False, bad=True)
            return
        self.named = False
        assert self.server.say("auth plain") == b"+ \r\n"
        self.expect(answer, False, bad=True)

    @rule(good=st.booleans())
    def apop(self, good: bool) -> None:
        digest = md5((TIMESTAMP + ("tanstaaf" if good else "no")).encode()).hexdigest()
        possible = not (self.inside or self.over)
        self.expect(f"APOP alice {digest}", possible and good, bad=self.inside)
        if possible:
            self.named = False
            self.inside = good
            self.failures += not good
            self.over = self.failures == 3

    @rule()
    def stls(self) -> None:
        """RFC 2595 §4: before login, and once; RFC 6856 §2.1: not behind UTF8. What was said before is forgotten."""
        possible = not (self.inside or self.secure or self.utf8)
        self.expect("STLS", possible, bad=self.inside or self.secure)
        if possible and not self.over:
            self.secure = True
            self.named = False

    @rule(tag=st.sampled_from(["de", "fr", "en", "es-MX", "*"]))
    def lang(self, tag: str) -> None:
        self.expect(f"LANG {tag}", True)

    @rule()
    def utf8(self) -> None:
        self.expect("UTF8", not self.inside, bad=self.inside)
        self.utf8 = self.utf8 or not (self.inside or self.over)

    @rule()
    def stat(self) -> None:
        answer = self.expect("STAT", self.inside, bad=not self.inside)
        if self.inside and not self.over:
            left = [size for number, size in enumerate(SIZES, 1) if number not in self.marked]
            assert answer == f"+OK {len(left)} {sum(left)}\r\n"

    @rule(keyword=st.sampled_from(["LIST", "UIDL"]))
    def listing(self, keyword: str) -> None:
        answer = self.expect(keyword, self.inside, bad=not self.inside)
        if self.inside and not self.over:
            numbers = [int(line.split()[0]) for line in answer.split("\r\n")[1:-2]]
            assert numbers == [number for number in (1, 2, 3) if number not in self.marked]

    @rule(keyword=st.sampled_from(["LIST", "UIDL", "RETR", "DELE", "TOP"]), number=st.integers(1, 4))
    def one(self, keyword: str, number: int) -> None:
        there = self.inside and number <= 3 and number not in self.marked
        line = f"{keyword} {number}" + (" 1" if keyword == "TOP" else "")
        answer = self.expect(line, there, bad=not self.inside)
        if self.over or not there:
            return
        if keyword == "RETR":
            assert answer.encode() == b"+OK %d octets\r\n%b.\r\n" % (SIZES[number - 1], MAIL[number - 1])
        if keyword == "DELE":
            self.marked.add(number)

    @rule()
    def noop(self) -> None:
        self.expect("NOOP", self.inside, bad=not self.inside)

    @rule()
    def reset(self) -> None:
        self.expect("RSET", self.inside, bad=not self.inside)
        if self.inside and not self.over:
            self.marked.clear()

    @rule()
    def capa(self) -> None:
        self.expect("CAPA", True)

    @rule(line=st.sampled_from(["", "FROB", "LIST 0", "LIST x", "RETR", "TOP 1", "QUIT now", "USER a b", " NOOP"]))
    def nonsense(self, line: str) -> None:
        self.expect(line, False, bad=True)

    @precondition(lambda self: not self.over)
    @rule()
    def goodbye(self) -> None:
        self.expect("QUIT", True)
        self.over = True
        assert self.server.removed == (tuple(sorted(self.marked)) if self.inside else None)

    @precondition(lambda self: not self.over)
    @rule()
    def go_away(self) -> None:
        assert self.server.receive(b"") == b""
        self.over = True
        assert self.server.removed is None

    @invariant()
    def it_is_as_secure_as_it_was_made(self) -> None:
        assert self.server.conn.secure == self.secure

    @invariant()
    def it_knows_where_it_is(self) -> None:
        if self.over:
            assert self.server.conn.state.value == "CLOSED"
        elif self.inside:
            assert self.server.conn.state.value == "TRANSACTION"
        else:
            assert self.server.conn.state.value == ("IDENTIFIED" if self.named else "AUTHORIZATION")


TestWalk = Walk.TestCase
# a long walk: POP3_EXAMPLES=20000 python -m pytest tests/pop3core/test_model.py
TestWalk.settings = settings(
    deadline=None, stateful_step_count=40, max_examples=int(os.environ.get("POP3_EXAMPLES", "100"))
)
