"""The engine of LMTP, by dialogues."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pop3core.errors import LocalProtocolError
from pop3core.events import NeedData, SendData
from pop3d.lmtp import replies
from pop3d.lmtp.engine import COMMANDS, LmtpConnection, LmtpSettings
from pop3d.lmtp.events import ContentArrived, ContentDiscarded, DeliveryRequested, LmtpClosed, LmtpEvent, RecipientAsked
from pop3d.lmtp.replies import LmtpReply

SETTINGS = LmtpSettings("mx.example.org", message_octets=1000, bad_commands_max=5, recipients_max=3)


class Played:
    """A connection whose driver knows everybody but ``nobody``, and delivers to all but ``full``."""

    def __init__(self, settings: LmtpSettings = SETTINGS) -> None:
        self.conn = LmtpConnection(settings)
        self.out = b""
        self.content = b""
        self.delivered: list[tuple[str, tuple[str, ...], bytes, bool]] = []
        self.discarded: list[str] = []
        self.closed: str | None = None
        self.play()

    def play(self, data: bytes | None = None) -> str:
        """What is said to ``data``."""
        before = len(self.out)
        if data is not None:
            self.conn.receive_data(data)
        while not self._done(self.conn.next_event()):
            pass
        return self.out[before:].decode()

    def _done(self, event: LmtpEvent) -> bool:
        match event:
            case SendData(data):
                self.out += data
            case RecipientAsked(path):
                self.conn.answer(replies.NO_SUCH_USER if path.local == "nobody" else replies.RECIPIENT_OK)
            case ContentArrived(data):
                self.content += data
            case ContentDiscarded(why):
                self.content = b""
                self.discarded.append(why)
            case DeliveryRequested(sender, recipients, utf8):
                self.delivered.append((sender.text, tuple(one.address for one in recipients), self.content, utf8))
                self.content = b""
                full = [one.local == "full" for one in recipients]
                self.conn.answer([replies.MAILBOX_FULL if one else replies.DELIVERED for one in full])
            case NeedData():
                return True
            case LmtpClosed(reason):
                self.closed = reason
                return True
        return False

    def codes(self, *lines: str) -> list[str]:
        """The replies to commands, without their words."""
        said = self.play("".join(f"{line}\r\n" for line in lines).encode())
        return re.findall(r"^(\d{3}(?: \d\.\d\.\d)?) ", said, re.MULTILINE)


def greeted(settings: LmtpSettings = SETTINGS) -> Played:
    played = Played(settings)
    played.play(b"LHLO client.example.org\r\n")
    return played


def test_the_dialogue_of_rfc_2033() -> None:
    # RFC 2033 §4.2, its example: three recipients, one unknown, one whose mailbox is full
    played = Played()
    assert played.out == b"220 mx.example.org LMTP pop3d\r\n"
    assert played.play(b"LHLO foo.edu\r\n") == (
        "250-mx.example.org\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n"
        "250 SIZE 1000\r\n"
    )
    said = played.play(
        b"MAIL FROM:<chris@bar.com>\r\nRCPT TO:<pat@foo.edu>\r\nRCPT TO:<nobody@foo.edu>\r\n"
        b"RCPT TO:<full@foo.edu>\r\nDATA\r\n"
    )
    assert said.splitlines() == [
        "250 2.1.0 sender OK",
        "250 2.1.5 recipient OK",
        "550 5.1.1 no such user here",
        "250 2.1.5 recipient OK",
        "354 go ahead; end with a line of one dot",
    ]
    assert played.play(b"Blah blah blah...\r\n..\r\n.x\r\n.\r\nQUIT\r\n").splitlines() == [
        "250 2.0.0 delivered",
        "452 4.2.2 the mailbox is full",
        "221 2.0.0 goodbye",
    ]
    content = b"Blah blah blah...\r\n.\r\nx\r\n"
    assert played.delivered == [("chris@bar.com", ("pat@foo.edu", "full@foo.edu"), content, False)]
    assert played.closed == "QUIT"


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("MAIL FROM:<>", "250 2.1.0"),
        ("mail from:<a@b.c>", "250 2.1.0"),
        ("MAIL FROM: <a@b.c>", "250 2.1.0"),
        ("MAIL FROM:<@one.example,@two.example:a@b.c>", "250 2.1.0"),  # RFC 5321 §4.1.1.3: the route is ignored
        ('MAIL FROM:<"a > b"@b.c> BODY=8BITMIME', "250 2.1.0"),
        ("MAIL FROM:<a..b.@b.c>", "250 2.1.0"),
        ("MAIL FROM:<a@[192.0.2.1]> SIZE=1000 BODY=7bit", "250 2.1.0"),
        ("MAIL FROM:<müller@b.c> SMTPUTF8", "250 2.1.0"),
        ("MAIL FROM:<müller@b.c>", "553 5.6.7"),
        ("MAIL FROM:<a@b.c> SIZE=1001", "552 5.3.4"),
        ("MAIL FROM:<a@b.c> SIZE=x", "501 5.5.4"),
        ("MAIL FROM:<a@b.c> SIZE=" + "9" * 21, "501 5.5.4"),
        ("MAIL FROM:<a@b.c> BODY=BINARYMIME", "501 5.5.4"),
        ("MAIL FROM:<a@b.c> SMTPUTF8=1", "501 5.5.4"),
        ("MAIL FROM:<a@b.c> BODY=7BIT BODY=7BIT", "501 5.5.4"),
        ("MAIL FROM:<a@b.c> AUTH=<>", "555 5.5.4"),
        ("MAIL FROM:<a@b.c> RET=FULL", "555 5.5.4"),
        ("MAIL FROM:a@b.c", "501 5.5.4"),
        ("MAIL TO:<a@b.c>", "501 5.5.4"),
        ("MAIL FROM:<@[192.0.2.1],@[IPv6:2001:db8::1]:a@b.c>", "250 2.1.0"),
        ("MAIL FROM:<" + ",".join(["@[a]"] * 300) + ">", "501 5.1.7"),  # at once, and not after ages
        ("MAIL FROM:<a@[b>", "501 5.1.7"),
        ("MAIL FROM:<a b@b.c>", "501 5.1.7"),
        ("MAIL FROM:<a@b@c>", "501 5.1.7"),
        ("MAIL FROM:<a\x01@b.c>", "501 5.1.7"),
        ("MAIL FROM:<a\x85@b.c> SMTPUTF8", "501 5.1.7"),
        ("MAIL", "501 5.5.4"),
        ("RCPT TO:<a@b.c>", "503 5.5.1"),
        ("DATA", "503 5.5.1"),
        ("RSET", "250 2.0.0"),
        ("RSET now", "501 5.5.4"),
        ("NOOP whatever", "250 2.0.0"),
        ("VRFY alice", "252 2.1.5"),
        ("EXPN list", "502 5.5.1"),
        ("HELP", "502 5.5.1"),
        ("EHLO client", "500 5.5.1"),
        ("HELO client", "500 5.5.1"),
        ("STARTTLS", "500 5.5.1"),
        ("XCLIENT ADDR=192.0.2.1", "500 5.5.1"),
        ("", "500 5.5.1"),
        ("A" * 3000, "500 5.5.2"),
    ],
)
def test_a_command_and_its_reply(line: str, reply: str) -> None:
    assert greeted().codes(line) == [reply]


def test_only_lhlo_opens() -> None:
    played = Played()
    assert played.codes("MAIL FROM:<a@b.c>", "RCPT TO:<a@b.c>", "DATA", "RSET") == ["503 5.5.1"] * 3 + ["250 2.0.0"]
    assert played.codes("LHLO a b") == ["501 5.5.4"]
    # of the lines of a reply, the last one ends it
    assert played.codes("LHLO [192.0.2.1]", "MAIL FROM:<a@b.c>") == ["250", "250 2.1.0"]


def test_data_needs_a_recipient() -> None:
    played = greeted()
    assert played.codes("MAIL FROM:<a@b.c>", "RCPT TO:<nobody@b.c>", "DATA") == ["250 2.1.0", "550 5.1.1", "503 5.5.1"]
    assert played.codes("MAIL FROM:<a@b.c>") == ["503 5.5.1"]
    assert played.codes("RCPT TO:<a@b.c>", "DATA now") == ["250 2.1.5", "501 5.5.4"]


def test_what_rset_and_lhlo_forget() -> None:
    for forgets in ("RSET", "LHLO client"):
        played = greeted()
        played.codes("MAIL FROM:<a@b.c>", "RCPT TO:<a@b.c>", forgets)
        assert played.codes("DATA", "MAIL FROM:<x@b.c>", "DATA") == ["503 5.5.1", "250 2.1.0", "503 5.5.1"]


def test_too_many_recipients_come_later_and_transactions_follow_each_other() -> None:
    played = greeted()
    for _ in range(2):
        asked = played.codes("MAIL FROM:<a@b.c>", *["RCPT TO:<a@b.c>"] * 4, "DATA")
        assert asked == ["250 2.1.0", "250 2.1.5", "250 2.1.5", "250 2.1.5", "452 4.5.3", "354"]
        # the same recipient three times is answered three times (RFC 2033 §4.2)
        assert played.play(b"x\r\n.\r\n") == "250 2.0.0 delivered\r\n" * 3
    assert len(played.delivered) == 2


def test_a_message_that_is_too_large_is_read_and_not_kept() -> None:
    played = greeted()
    played.codes("MAIL FROM:<a@b.c>", "RCPT TO:<a@b.c>", "RCPT TO:<b@b.c>", "DATA")
    for _ in range(30):
        assert played.play(b"x" * 98 + b"\r\n") == ""
    assert len(played.content) == 0
    assert played.play(b".\r\nNOOP\r\n") == "552 5.3.4 the message is too large\r\n" * 2 + "250 2.0.0 OK\r\n"
    assert played.delivered == []
    assert played.discarded == ["it is too large"]
    played.codes("MAIL FROM:<a@b.c>", "RCPT TO:<a@b.c>", "DATA")
    assert played.play(b"x" * 998 + b"\r\n.\r\n") == "250 2.0.0 delivered\r\n"


@pytest.mark.parametrize(
    "smuggled",
    [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r\n\0.\r\n", b"\r\n .\r\n", b"\r\r\n.\n"],
)
def test_only_crlf_dot_crlf_ends_a_message(smuggled: bytes) -> None:
    played = greeted()
    played.codes("MAIL FROM:<a@b.c>", "RCPT TO:<a@b.c>", "DATA")
    assert played.play(b"a" + smuggled + b"MAIL FROM:<evil@b.c>\r\n") == ""
    assert played.play(b".\r\n") == "250 2.0.0 delivered\r\n"
    assert b"MAIL FROM:<evil@b.c>\r\n" in played.delivered[0][2]


def test_a_client_that_vanishes_delivers_nothing() -> None:
    played = greeted()
    played.codes("MAIL FROM:<a@b.c>", "RCPT TO:<a@b.c>", "DATA")
    played.play(b"Subject: half\r\n\r\nhalf\r\n.")
    played.play(b"")
    assert (played.delivered, played.discarded) == ([], ["its sender has gone"])
    assert played.closed == "the client went away within a message"
    played = greeted()
    played.play(b"")
    assert played.closed == "the client went away without QUIT"


def test_finish_waits_for_the_message_under_way() -> None:
    played = greeted()
    played.codes("MAIL FROM:<a@b.c>", "RCPT TO:<a@b.c>", "DATA")
    played.conn.finish("shutting down")
    assert played.play(b"x\r\n") == ""
    assert played.play(b".\r\nMAIL FROM:<a@b.c>\r\n") == "250 2.0.0 delivered\r\n421 4.3.2 shutting down\r\n"
    assert played.closed == "shutting down"
    played = greeted()
    played.conn.finish("shutting down")
    assert played.play() == "421 4.3.2 shutting down\r\n"


def test_hang_up_says_nothing_and_ignores_late_answers() -> None:
    conn = LmtpConnection(SETTINGS)
    conn.hang_up("shutting down")
    assert conn.next_event() == LmtpClosed("shutting down")
    conn.answer(replies.OK)
    assert conn.next_event() == LmtpClosed("shutting down")


def test_answers_are_as_many_as_recipients() -> None:
    played = greeted()
    with pytest.raises(LocalProtocolError):
        played.conn.answer(replies.OK)
    played.codes("MAIL FROM:<a@b.c>", "RCPT TO:<a@b.c>", "RCPT TO:<b@b.c>", "DATA")
    played.conn.receive_data(b"x\r\n.\r\n")
    assert isinstance(played.conn.next_event(), ContentArrived)
    assert isinstance(played.conn.next_event(), DeliveryRequested)
    with pytest.raises(LocalProtocolError):
        played.conn.answer([replies.DELIVERED])


def test_bad_commands_and_endless_lines_end_it() -> None:
    played = greeted()
    assert played.codes(*["BAD"] * 6) == ["500 5.5.1"] * 5 + ["421 4.7.0"]
    assert played.closed == "too many bad commands"
    played = greeted()
    assert played.play(b"x" * 70_000) == "421 4.7.0 a line without end\r\n"
    # unknown recipients are no mistakes of the client's
    played = greeted()
    assert played.codes("MAIL FROM:<a@b.c>", *["RCPT TO:<nobody@b.c>"] * 30)[-1] == "550 5.1.1"
    assert played.closed is None


def test_a_trickle_of_octets_does_not_renew_the_wait() -> None:
    conn = LmtpConnection(SETTINGS)
    assert isinstance(conn.next_event(), SendData)
    assert conn.next_event() == NeedData(False)
    conn.receive_data(b"NO")
    assert conn.next_event() == NeedData(True)
    conn.receive_data(b"OP\r\n")
    assert isinstance(conn.next_event(), SendData)
    assert conn.next_event() == NeedData(False)


WORDS = st.sampled_from(
    [
        *(f"{command}\r\n".encode() for command in COMMANDS),
        b"LHLO a\r\n", b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<a@b>\r\n", b"RCPT TO:<nobody@b>\r\n", b"RCPT TO:<full@b>\r\n",
        b"DATA\r\n", b".\r\n", b"..\r\n", b".x\r\n", b"\n.\n", b"\r", b"\n", b".", b"x" * 600, b"\xff\r\n", b"QUIT\r\n",
    ]
)  # fmt: skip


@settings(max_examples=60)
@given(st.lists(WORDS, max_size=25).map(lambda words: b"LHLO a\r\n" + b"".join(words)), st.data())
def test_chopping_changes_nothing_and_each_recipient_is_answered(said: bytes, data: st.DataObject) -> None:
    whole, chopped = Played(), Played()
    whole.play(said)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(said)), max_size=8)))
    for begin, end in zip([0, *cuts], [*cuts, len(said)], strict=True):
        if end > begin:
            chopped.play(said[begin:end])
    assert chopped.out == whole.out
    assert chopped.delivered == whole.delivered
    assert chopped.discarded == whole.discarded
    text = whole.out.decode()
    answers = text.count("2.0.0 delivered") + text.count("4.2.2 the mailbox is full")
    assert answers == sum(len(recipients) for _, recipients, _, _ in whole.delivered)
    assert re.fullmatch(r"(?:\d{3}[- ][ -~]+\r\n)*", text)


def test_replies_have_the_class_of_their_code() -> None:
    # RFC 2034 §3: the enhanced code begins as the reply does
    named = [one for one in vars(replies).values() if isinstance(one, LmtpReply)]
    assert len(named) > 15
    assert all(not one.status or one.status[0] == str(one.code)[0] for one in named)
