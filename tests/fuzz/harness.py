"""One input, one session: octets decide what the peer says, how it is cut, and what the driver answers.

What must hold whatever they are: a server engine raises nothing but `LocalProtocolError` (and here the driver makes no
mistake, so not even that), a client engine nothing but `RemoteProtocolError`; both come to an end; a server's lines
keep their limit. The first octet chooses the state, reached by the legal road; the next two how content and input are
cut.
"""

from pop3core.answers import SaslResponse, TlsEstablished
from pop3core.client import ClientConfig, ClientConnection
from pop3core.errors import LocalProtocolError, RemoteProtocolError
from pop3core.events import Challenged, Closed, Disconnected, NeedData, SendData, TlsReady
from pop3core.syntax import parse
from pop3core.table import RULES
from tests.pop3core.play import EVERYTHING, TIMESTAMP, Dialogue

EVENTS_MAX = 100_000  # of one input: more would be an engine that never waits
ROADS = (b"", b"USER alice\r\n", b"USER alice\r\nPASS s e c\r\n", b"AUTH PLAIN\r\n", b"AUTH LOGIN\r\n",
         b"AUTH SCRAM-SHA-256\r\n", b"AUTH OAUTHBEARER\r\n", b"UTF8\r\nLANG de\r\n", b"STLS\r\n")  # fmt: skip


def server_input(data: bytes) -> None:
    """A client says ``data``."""
    if len(data) < 3:
        return
    secure = bool(data[0] & 0x80)
    dialogue = Dialogue(
        config=EVERYTHING, secure=secure, timestamp=TIMESTAMP, piece=1 + data[1], binding=b"x", identity="alice"
    )
    if data[0] & 0x40:
        dialogue.failing = frozenset({1})
    road = ROADS[data[0] % len(ROADS)]
    if road == b"STLS\r\n" and secure:
        road = b""
    for line in road.splitlines(keepends=True):
        dialogue.receive(line)
    said, cut = data[3:], 1 + data[2]
    for at in range(0, len(said), cut):
        check_lines(dialogue.receive(said[at : at + cut]))
        assert len(dialogue.conn._lines) < 12 * 1024
    dialogue.receive(b"")
    assert isinstance(dialogue.conn.next_event(), Closed)


def check_lines(sent: bytes) -> None:
    for line in sent.split(b"\r\n"):
        assert len(line) <= 12 * 1024


def client_input(data: bytes) -> None:
    """A server says ``data``; the client wants all that the table has, as far as it is valid."""
    if len(data) < 3:
        return
    client = ClientConnection(ClientConfig(allow_plaintext=True))
    if data[0] & 0x80:
        client.answer(TlsEstablished())
    for rule in RULES[data[0] % len(RULES) :] + RULES:
        try:
            client.send(parse(rule.example.encode()))
        except LocalProtocolError:
            continue
    said, cut = b"+OK\r\n" + data[3:], 1 + data[2]
    at = 0
    try:
        for _ in range(EVENTS_MAX):
            match client.next_event():
                case NeedData():
                    end = at + cut
                    if not data[0] & 0x40:  # a server that answers what was asked, not more
                        end = min(end, said.find(b"\n", at) + 1 or end)
                    client.receive_data(said[at:end])
                    at = end
                case Challenged():
                    client.answer(SaslResponse(data[:8]))
                case TlsReady():
                    client.answer(TlsEstablished())
                case SendData(octets):
                    assert octets.endswith(b"\r\n")
                case Disconnected():
                    return
    except RemoteProtocolError as fault:
        assert str(fault).isprintable()
        return
    raise AssertionError("it never ends")
