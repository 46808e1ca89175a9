"""AUTH, APOP, STLS, UTF8 and LANG on both engines: what the dialogues do not show."""

from base64 import b64encode

import pytest

from pop3core.answers import (
    LoginAccepted,
    LoginRejected,
    NoSecret,
    PlainSecret,
    SaslCancelled,
    SaslResponse,
    ScramSecret,
    TlsEstablished,
)
from pop3core.capabilities import Capabilities
from pop3core.client import ClientConfig, apop_digest
from pop3core.commands import Apop, Auth, Capa, Lang, Noop, Pass, Quit, Stat, Stls, User, Utf8
from pop3core.errors import LocalProtocolError, RemoteProtocolError
from pop3core.events import (
    Abandoned,
    Challenged,
    Closed,
    Disconnected,
    Greeted,
    LanguageItem,
    ListEnded,
    LoginRequested,
    NeedData,
    Password,
    ProofFailed,
    Replied,
    SecretRequested,
    SendData,
    ServerEvent,
    TlsReady,
    TlsRequested,
    Verified,
)
from pop3core.limits import Limits
from pop3core.maildrop import Listing
from pop3core.sasl import SaslError, oauth, plain, scram
from pop3core.sasl.base import ClientSteps
from pop3core.server import CUT_OFF, ServerConfig, ServerConnection
from pop3core.table import State
from tests.pop3core.play import EVERYTHING, TIMESTAMP, Dialogue, Listener


def connection(
    secure: bool = False, config: ServerConfig = EVERYTHING, timestamp: str | None = None
) -> ServerConnection:
    conn = ServerConnection(config, timestamp=timestamp)
    if secure:
        conn.answer(TlsEstablished())
    conn.next_event()
    return conn


def run(conn: ServerConnection, data: bytes = b"") -> tuple[bytes, ServerEvent]:
    """What is said, and the event behind it."""
    if data:
        conn.receive_data(data)
    said = b""
    while isinstance(event := conn.next_event(), SendData):
        said += event.data
    return said, event


# --- configuration ---


@pytest.mark.parametrize(
    "options",
    [{"mechanisms": ("NOPE",)}, {"languages": ("xx",)}, {"expire": "soon"}, {"expire": " USER"},
     {"expire": "NEVER NEVER"}, {"login_delay": "NEVER"}, {"login_delay": "1 2"}],
    ids=str,
)  # fmt: skip
def test_a_configuration_that_is_none(options: dict) -> None:
    with pytest.raises(LocalProtocolError):
        ServerConfig(**options)


@pytest.mark.parametrize("timestamp", ["", "no brackets", "<>", "<a b>", "<a\r\n>", "<a<b>"])
def test_a_timestamp_that_is_none(timestamp: str) -> None:
    with pytest.raises(LocalProtocolError):
        ServerConnection(timestamp=timestamp)


def test_what_is_off_is_neither_announced_nor_accepted() -> None:
    bare = Dialogue(config=ServerConfig(mechanisms=(), utf8=False, languages=()))
    announced = bare.say("CAPA")
    for word in (b"USER", b"SASL", b"STLS", b"UTF8", b"LANG", b"EXPIRE", b"LOGIN-DELAY"):
        assert word not in announced
    for line in ("USER alice", "AUTH PLAIN =", "STLS", "UTF8", "LANG", "APOP alice " + "0" * 32):
        assert b"is not offered here" in bare.say(line)


def test_mechanisms_are_announced_where_they_can_be_used() -> None:
    assert b"SASL SCRAM-SHA-256\r\n" in Dialogue(
        config=ServerConfig(mechanisms=EVERYTHING.mechanisms), secure=False
    ).say("CAPA")
    behind = Dialogue(config=EVERYTHING, binding=b"hash", identity="alice").say("CAPA")
    assert b"SASL SCRAM-SHA-256-PLUS SCRAM-SHA-256 OAUTHBEARER XOAUTH2 EXTERNAL PLAIN LOGIN\r\n" in behind
    assert b"PLUS" not in Dialogue(config=EVERYTHING).say("CAPA")
    assert b"EXTERNAL" not in Dialogue(config=EVERYTHING).say("CAPA")


def test_a_users_own_expire_and_login_delay() -> None:
    conn = connection(True)
    run(conn, b"USER alice\r\nPASS x\r\n")
    conn.answer(LoginAccepted(Listing(), expire="NEVER", login_delay="900"))
    said, _ = run(conn, b"CAPA\r\n")
    assert b"EXPIRE NEVER\r\nLOGIN-DELAY 900\r\n" in said


# --- STLS, the server ---


def test_stls_is_a_question_behind_its_ok() -> None:
    conn = connection()
    said, event = run(conn, b"STLS\r\n")
    assert said == b"+OK begin TLS now\r\n"
    assert event == TlsRequested()
    with pytest.raises(LocalProtocolError, match="handshake"):
        conn.receive_data(b"\x16\x03\x01")
    conn.answer(TlsEstablished())
    assert conn.secure
    assert run(conn, b"CAPA\r\n")[0].startswith(b"+OK")


@pytest.mark.parametrize("behind", [b"USER root\r\n", b"N", b"\r\n", b"NOOP\r\nQUIT\r\n"])
def test_clear_text_behind_stls_is_never_executed(behind: bytes) -> None:
    conn = connection()
    said, event = run(conn, b"STLS\r\n" + behind)
    assert said == b"-ERR nothing may follow STLS before TLS; closing\r\n"
    assert isinstance(event, Closed)
    assert event.reason in CUT_OFF


def test_half_a_line_before_stls_does_not_survive_it() -> None:
    conn = connection()
    conn.receive_data(b"STLS\r\n")
    assert isinstance(conn.next_event(), SendData)
    with pytest.raises(LocalProtocolError):
        conn.receive_data(b"USER ro")  # before the question was even put
    assert conn.next_event() == TlsRequested()
    conn.answer(TlsEstablished())
    assert run(conn, b"NOOP\r\n")[0].startswith(b"-ERR NOOP is not valid")


def test_tls_is_established_only_when_asked() -> None:
    conn = connection(True)
    with pytest.raises(LocalProtocolError):
        conn.answer(TlsEstablished())


# --- SASL, the server ---


@pytest.mark.parametrize(
    ("authzid", "acting_as"),
    [("boss", "boss"), ("b\u00adoss", "boss"), ("\u2168", "IX"), ("\u00ad", None), ("bo\u0007ss", None)],
)
def test_the_identity_to_act_as_is_prepared(authzid: str, acting_as: str | None) -> None:
    # RFC 5034 §4, RFC 4013 §3: SOFT HYPHEN is mapped to nothing, ROMAN NUMERAL NINE to IX, BEL is prohibited
    conn = connection(True)
    said = b"AUTH PLAIN " + b64encode(f"{authzid}\0alice\0secret".encode()) + b"\r\n"
    refusal, asked = run(conn, said)
    if acting_as is not None:
        assert asked == LoginRequested(Password("alice", acting_as, b"secret"), utf8=False)
    else:
        assert refusal.startswith(b"-ERR")
        assert isinstance(asked, NeedData)
        assert conn.state is State.AUTHORIZATION


def test_a_long_answer_has_its_own_limit() -> None:
    conn = connection(True)
    run(conn, b"AUTH PLAIN\r\n")
    said, _ = run(conn, b"QUFB" * 2000 + b"\r\n")
    assert said == b"-ERR PLAIN is authzid, NUL, name, NUL, password\r\n"
    run(conn, b"AUTH PLAIN\r\n")
    said, _ = run(conn, b"QUFB" * 4000 + b"\r\nNOOP\r\n")
    assert said.startswith(b"-ERR a command has at most 12288 octets\r\n-ERR NOOP is not valid")


def scram_proved(
    conn: ServerConnection, password: bytes = b"s e c", authzid: str = ""
) -> tuple[ClientSteps, bytes, ServerEvent]:
    """A SCRAM exchange up to the proof, for a user with "s e c": the client's side, what was said, what is asked."""
    client = scram.client("alice", password, "nonce", authzid=authzid)
    said, event = run(conn, encoded(Auth("SCRAM-SHA-256", next(client))))
    assert (said, event) == (b"", SecretRequested("alice", "SCRAM-SHA-256"))
    conn.answer(ScramSecret(b"salt", 4096, *scram.verifier(b"s e c", b"salt"), "ours"))
    said, _ = run(conn)
    said, event = run(conn, base64_line(client.send(decoded(said)) or b""))
    return client, said, event


def test_scram_says_nothing_of_a_good_proof_before_the_driver_has_let_the_user_in() -> None:
    conn = connection(True)
    client, said, event = scram_proved(conn, authzid="\u2168")
    assert (said, event) == (b"", LoginRequested(Verified("alice", "IX", "SCRAM-SHA-256"), utf8=False))
    conn.answer(LoginAccepted(Listing([5], [b"1"])))
    said, event = run(conn)
    assert client.send(decoded(said)) == b""  # the server's own proof
    assert isinstance(event, NeedData)
    assert (conn.state, conn.username) == (State.AUTHORIZATION, None)
    said, event = run(conn, b"\r\n")
    assert (said, conn.state, conn.username) == (b"+OK 1 messages (5 octets)\r\n", State.TRANSACTION, "IX")
    assert conn.summary.mechanism == "SCRAM-SHA-256"
    assert isinstance(event, NeedData)


def test_scram_a_good_proof_that_the_driver_refuses_looks_like_a_bad_one() -> None:
    told = []
    for password in (b"s e c", b"wrong"):
        conn = connection(True)
        _, before, event = scram_proved(conn, password)
        assert isinstance(event, LoginRequested)
        conn.answer(LoginRejected(None, "wrong user name or password"))
        told.append((before, run(conn)[0], run(conn, b"\r\n")[0], conn.state, conn.summary.auth_failures))
    assert told[0] == told[1]
    assert told[0][:2] == (b"", b"-ERR [AUTH] wrong user name or password\r\n")


@pytest.mark.parametrize(
    ("line", "refusal"),
    [
        (b"*\r\n", b"-ERR authentication was cancelled\r\n"),
        (b"eA==\r\n", b"-ERR the last answer of SCRAM is empty\r\n"),
        (b"!\r\n", b"-ERR an answer is base64\r\n"),
        (b"QUFB" * 4000 + b"\r\n", b"-ERR a command has at most 12288 octets\r\n"),
    ],
)
def test_scram_a_client_that_does_not_take_the_servers_proof_is_not_logged_in(line: bytes, refusal: bytes) -> None:
    conn = connection(True)
    scram_proved(conn)
    conn.answer(LoginAccepted(Listing()))
    run(conn)
    said, event = run(conn, line + b"NOOP\r\n")
    assert (said, event) == (refusal, Closed("the client broke its login off", committed=False))
    assert conn.username is None


@pytest.mark.parametrize("ended", ["finish", "hang_up"])
def test_scram_ended_while_the_servers_proof_is_under_way(ended: str) -> None:
    conn = connection(True)
    scram_proved(conn)
    conn.answer(LoginAccepted(Listing()))
    run(conn)
    getattr(conn, ended)("over")
    said, event = run(conn, b"\r\n")
    assert said == (b"-ERR [SYS/TEMP] over; closing\r\n" if ended == "finish" else b"")
    assert event == Closed("over", committed=False)


def test_an_answer_too_long_leads_back_to_authorization() -> None:
    conn = connection(True)
    run(conn, b"USER alice\r\nAUTH PLAIN\r\n")
    run(conn, b"QUFB" * 4000 + b"\r\n")
    assert conn.state is State.AUTHORIZATION


@pytest.mark.parametrize("mechanism", ["USER", "PLAIN", "APOP"])
def test_how_somebody_logged_in_can_be_read(mechanism: str) -> None:
    conn = connection(True, timestamp=TIMESTAMP)
    run(conn, b"AUTH PLAIN AGFsaWNlAHg=\r\n")  # one that is refused is forgotten
    conn.answer(LoginRejected(None, "no"))
    assert conn.summary.mechanism == ""
    lines = {
        "USER": b"USER alice\r\nPASS x\r\n",
        "PLAIN": b"AUTH PLAIN AGFsaWNlAHg=\r\n",
        "APOP": b"APOP alice " + apop_digest(TIMESTAMP, b"tanstaaf").encode() + b"\r\n",
    }
    run(conn, lines[mechanism])
    if mechanism == "APOP":
        conn.answer(PlainSecret(b"tanstaaf"))
        run(conn)
    conn.answer(LoginAccepted(Listing()))
    assert conn.summary.mechanism == mechanism


def test_a_failed_proof_can_only_be_refused() -> None:
    conn = connection(True, timestamp=TIMESTAMP)
    _, event = run(conn, b"APOP alice " + b"0" * 32 + b"\r\n")
    assert event == SecretRequested("alice", "APOP")
    with pytest.raises(LocalProtocolError):
        conn.answer(ScramSecret(b"", 4096, b"", b"", ""))
    conn.answer(PlainSecret(b"tanstaaf"))
    _, event = run(conn)
    assert event == LoginRequested(ProofFailed("alice", "APOP"), utf8=False)
    with pytest.raises(LocalProtocolError):
        conn.answer(LoginAccepted(Listing()))
    conn.answer(LoginRejected(None, "no"))
    assert run(conn)[0] == b"-ERR [AUTH] no\r\n"
    assert conn.summary.auth_failures == 1


def test_apop_against_no_secret_fails_even_with_the_digest_of_nothing() -> None:
    conn = connection(True, timestamp=TIMESTAMP)
    run(conn, b"APOP alice " + apop_digest(TIMESTAMP, b"").encode() + b"\r\n")
    conn.answer(NoSecret())
    assert run(conn)[1] == LoginRequested(ProofFailed("alice", "APOP"), utf8=False)


@pytest.mark.parametrize(
    "lines", [b"APOP alice " + b"0" * 32 + b"\r\n", b"AUTH SCRAM-SHA-256 biwsbj1hbGljZSxyPXg=\r\n"]
)
def test_a_secret_that_cannot_be_looked_up_now_is_no_failed_login(lines: bytes) -> None:
    conn = connection(True, timestamp=TIMESTAMP)
    run(conn, lines)
    with pytest.raises(LocalProtocolError):
        conn.answer(LoginRejected(None, "nothing was proved, so nothing can be refused"))
    conn.answer(LoginRejected("SYS/TEMP", "try again later"))
    assert run(conn)[0] == b"-ERR [SYS/TEMP] try again later\r\n"
    assert conn.summary.auth_failures == 0
    assert conn.state is State.AUTHORIZATION
    _, event = run(conn, b"USER alice\r\nPASS x\r\n")  # another way may be tried
    assert isinstance(event, LoginRequested)


def test_utf8_is_told_to_the_driver() -> None:
    conn = connection(True)
    _, event = run(conn, b"UTF8\r\nUSER alice\r\nPASS x\r\n")
    assert isinstance(event, LoginRequested)
    assert event.utf8


def test_the_third_refusal_ends_it_behind_the_mechanisms_own_word() -> None:
    conn = connection(True, config=ServerConfig(mechanisms=("OAUTHBEARER",), limits=Limits(auth_failures_max=1)))
    message = next(oauth.bearer_client("alice", "bad"))
    _, event = run(conn, encoded(Auth("OAUTHBEARER", message)))
    assert isinstance(event, LoginRequested)
    conn.answer(LoginRejected(None, "no"))
    said, event = run(conn)
    assert said.startswith(b"+ ")
    assert isinstance(event, NeedData)
    said, event = run(conn, b"AQ==\r\n")
    assert said == b"-ERR [AUTH] no; too many failed logins, closing\r\n"
    assert isinstance(event, Closed)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (b"AUTH PLAIN\r\n", b"-ERR [SYS/TEMP] over; closing\r\n"),
        (b"APOP alice " + b"0" * 32 + b"\r\n", b"-ERR [SYS/TEMP] over; closing\r\n"),
        (b"AUTH SCRAM-SHA-256 biwsbj1hbGljZSxyPXg=\r\n", b"-ERR [SYS/TEMP] over; closing\r\n"),
        (b"STLS\r\n", b""),
    ],
)
def test_finish_and_hang_up_during_a_login(lines: bytes, said: bytes) -> None:
    for end in ("finish", "hang_up"):
        conn = connection(timestamp=TIMESTAMP)
        run(conn, lines)
        getattr(conn, end)("over")
        conn.answer(NoSecret())  # too late
        told, event = run(conn)
        assert told == (said if end == "finish" else b"")
        assert event == Closed("over", committed=False)


def test_refused_texts_of_a_driver_cannot_make_lines() -> None:
    conn = connection(True)
    run(conn, b"USER alice\r\nPASS x\r\n")
    conn.answer(LoginRejected("SYS/TEMP", "a\r\n+OK b" + "ü" * 1000))
    said, _ = run(conn)
    assert said.count(b"\r\n") == 1
    assert len(said) <= 512
    said.decode()


def test_no_secret_in_any_repr() -> None:
    conn = connection(True, timestamp=TIMESTAMP)
    for line in (b"AUTH PLAIN AGFsaWNlAGh1c2g=\r\n", b"USER a\r\nPASS hush\r\n"):
        _, event = run(conn, line)
        assert "hush" not in repr(event)
        assert "hush" not in repr([getattr(part, name) for part in (conn, conn._login) for name in part.__slots__])
        conn.answer(LoginRejected(None, "no"))
        run(conn)
    assert "hush" not in repr(Auth("PLAIN", b"hush"))
    assert "hush" not in repr(SaslResponse(b"hush"))
    assert "c4c9" not in repr(Apop("a", "c4c9334bac560ecc979e58001b3e22fb"))


# --- the client ---


def encoded(command: Auth) -> bytes:
    from pop3core.syntax import encode

    return encode(command)


def base64_line(data: bytes) -> bytes:
    import base64

    return base64.b64encode(data) + b"\r\n"


def decoded(line: bytes) -> bytes:
    import base64

    return base64.b64decode(line.removeprefix(b"+ "))


def test_stls_and_all_that_waits_behind_it() -> None:
    client = Listener(secure=False)
    for command in (Capa(), Stls(), User("alice"), Pass(b"x")):
        client.conn.send(command)
    client.hear(b"+OK\r\nPIPELINING\r\nSTLS\r\n.\r\n")
    assert "STLS" in client.conn.capabilities
    assert client.sent == b"CAPA\r\nSTLS\r\n"
    events = client.hear(b"+OK\r\n")
    assert events == [Replied(Stls(), True, None, ""), TlsReady()]
    assert client.conn.secure
    assert client.conn.capabilities == Capabilities()  # RFC 2595 §4: forgotten
    assert client.sent.endswith(b"STLS\r\nUSER alice\r\n")
    with pytest.raises(LocalProtocolError, match="TLS"):
        client.conn.send(Stls())


def test_secrets_wait_for_a_handshake_that_never_comes() -> None:
    client = Listener(secure=False)
    for command in (Stls(), User("alice")):
        client.conn.send(command)
    events = client.hear(b"-ERR not today\r\n")
    assert events == [Replied(Stls(), False, None, "not today"), Abandoned(User("alice"))]
    assert b"USER" not in client.sent
    with pytest.raises(LocalProtocolError, match="clear text"):
        client.conn.send(User("alice"))


def test_nothing_is_heard_between_stls_and_tls() -> None:
    client = Listener(secure=False)
    client.conn.send(Stls())
    with pytest.raises(RemoteProtocolError) as caught:
        client.hear(b"+OK\r\n+OK you are root\r\n")
    assert caught.value.code == "stls-injection"


def test_the_handshake_is_the_drivers() -> None:
    client = Listener(secure=False)
    conn = client.conn
    conn.send(Stls())
    assert isinstance(conn.next_event(), SendData)
    conn.receive_data(b"+OK\r\n")
    assert isinstance(conn.next_event(), Replied)
    assert conn.next_event() == TlsReady()
    with pytest.raises(LocalProtocolError):
        conn.next_event()
    with pytest.raises(LocalProtocolError):
        conn.receive_data(b"\x16")
    conn.send(User("alice"))
    conn.receive_data(b"")
    assert isinstance(conn.next_event(), Abandoned)
    assert conn.next_event() == Disconnected(expected=False, unanswered=())


def test_an_exchange() -> None:
    client = Listener()
    client.conn.send(Auth("LOGIN"))
    client.conn.send(Stat())
    assert client.hear(b"+ VXNlcm5hbWU6\r\n") == [Challenged(Auth("LOGIN"), b"Username:")]
    with pytest.raises(LocalProtocolError, match="wants an answer"):
        client.conn.next_event()
    client.conn.answer(SaslResponse(b"alice"))
    assert client.hear(b"+ \r\n") == [Challenged(Auth("LOGIN"), b"")]
    client.conn.answer(SaslResponse(b""))
    client.run()
    assert client.sent == b"AUTH LOGIN\r\nYWxpY2U=\r\n\r\n"
    assert client.hear(b"+OK\r\n")[0] == Replied(Auth("LOGIN"), True, None, "")
    client.run()
    assert client.sent.endswith(b"STAT\r\n")


def test_breaking_an_exchange_off() -> None:
    client = Listener()
    client.conn.send(Auth("LOGIN"))
    client.hear(b"+\r\n")
    client.conn.answer(SaslCancelled())
    client.run()
    assert client.sent.endswith(b"*\r\n")
    client.hear(b"-ERR cancelled\r\n")
    assert client.conn.state is State.AUTHORIZATION


def test_answers_to_nothing() -> None:
    client = Listener()
    for answer in (SaslResponse(b""), SaslCancelled(), TlsEstablished()):
        with pytest.raises(LocalProtocolError):
            client.conn.answer(answer)


def test_an_initial_response_too_long_for_its_line_waits_for_the_challenge() -> None:
    client = Listener()
    message = next(oauth.xoauth2_client("alice", "t" * 300))
    client.conn.send(Auth("XOAUTH2", message))
    assert client.hear(b"+ \r\n") == []
    sent = client.sent.split(b"\r\n")
    assert sent[0] == b"AUTH XOAUTH2"
    assert decoded(sent[1]) == message
    client.conn.send(Quit())
    client.hear(b"+ e30=\r\n")
    assert client.events[-1] == Challenged(Auth("XOAUTH2", message), b"{}")


def test_an_initial_response_goes_in_the_line_where_it_fits() -> None:
    client = Listener()
    client.conn.send(Auth("PLAIN", b"\0a\0b"))
    client.run()
    assert client.sent == b"AUTH PLAIN AGEAYg==\r\n"


def test_a_line_of_255_octets_still_holds_the_initial_response() -> None:
    for octets, line in ((183, b"AUTH ABC "), (184, b"AUTH ABC\r\n")):
        client = Listener()
        client.conn.send(Auth("ABC", b"x" * octets))
        client.run()
        assert client.sent.startswith(line)
        assert len(client.sent) in (255, 10)


def test_an_initial_response_that_waits_is_forgotten_with_its_exchange() -> None:
    """The next exchange's first challenge must not be answered with the secret of the last."""
    client = Listener()
    client.conn.send(Auth("OAUTHBEARER", b"t" * 500))
    client.hear(b"-ERR no\r\n")
    client.conn.send(Auth("LOGIN"))
    assert isinstance(client.hear(b"+ \r\n")[-1], Challenged)
    assert client.sent == b"AUTH OAUTHBEARER\r\nAUTH LOGIN\r\n"


def test_an_initial_response_that_waits_outlasts_replies_to_what_was_sent_before() -> None:
    client = Listener()
    client.conn.send(Capa())
    client.hear(b"+OK\r\nPIPELINING\r\n.\r\n")
    client.conn.send(Capa())
    client.conn.send(Auth("PLAIN", b"\0a\0b"))  # SASL is not announced
    client.hear(b"+OK\r\nPIPELINING\r\n.\r\n")
    assert client.hear(b"+ \r\n") == []
    assert client.sent == b"CAPA\r\nCAPA\r\nAUTH PLAIN\r\nAGEAYg==\r\n"


@pytest.mark.parametrize("line", [b"+ !!", b"+ AAA", b"+ =AAA", b"+ AA=A", b"+ QUJD ", b"+  QUJD", b"+ QUJD."])
def test_a_challenge_that_is_no_base64_is_answered_by_breaking_off(line: bytes) -> None:
    # RFC 5034 §4: nothing that base64 does not allow is ignored; the client sends "*", and the server's word ends it
    client = Listener()
    client.conn.send(Auth("LOGIN"))
    assert client.hear(line + b"\r\n") == []
    assert client.sent == b"AUTH LOGIN\r\n*\r\n"
    assert client.hear(b"-ERR cancelled\r\n") == [Replied(Auth("LOGIN"), False, None, "cancelled")]
    assert client.conn.state is State.AUTHORIZATION
    client.conn.send(Auth("LOGIN"))
    assert client.hear(b"+ QUJD\r\n") == [Challenged(Auth("LOGIN"), b"ABC")]


def test_a_server_that_challenges_with_nonsense_for_ever() -> None:
    client = Listener()
    client.conn.send(Auth("LOGIN"))
    client.hear(b"+ !!\r\n")
    with pytest.raises(RemoteProtocolError) as caught:
        client.hear(b"+ !!\r\n")
    assert caught.value.code == "bad-challenge"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, b"AUTH PLAIN AGEAYg=="),
        (b"+OK\r\nSASL PLAIN\r\n.\r\n", b"AUTH PLAIN AGEAYg=="),
        (b"+OK\r\nTOP\r\n.\r\n", b"AUTH PLAIN"),
        (b"-ERR what?\r\n", b"AUTH PLAIN"),
    ],
    ids=["never asked", "announced", "not announced", "no CAPA"],
)
def test_no_initial_response_for_a_server_that_does_not_announce_sasl(answer: bytes | None, said: bytes) -> None:
    client = Listener()
    if answer is not None:
        client.conn.send(Capa())
        client.hear(answer)
        client.sent = b""
    client.conn.send(Auth("PLAIN", b"\0a\0b"))
    client.run()
    assert client.sent == said + b"\r\n"
    if said == b"AUTH PLAIN":
        assert client.hear(b"+ \r\n") == []
        assert client.sent.endswith(b"\r\nAGEAYg==\r\n")


def test_stls_is_never_said_behind_utf8() -> None:
    # RFC 6856 §2.1
    client = Listener(ClientConfig(allow_plaintext=True), secure=False)
    client.conn.send(Utf8())
    with pytest.raises(LocalProtocolError, match="behind UTF8"):
        client.conn.send(Stls())
    client.hear(b"+OK\r\n")
    with pytest.raises(LocalProtocolError, match="behind UTF8"):
        client.conn.send(Stls())


def test_stls_is_announced_where_it_is_permitted_only() -> None:
    # RFC 2595 §4
    dialogue = Dialogue(config=EVERYTHING, secure=False)
    assert b"\r\nSTLS\r\n" in dialogue.say("CAPA")
    assert b"\r\nSTLS\r\n" in dialogue.say("USER alice", "CAPA")
    dialogue.say("PASS s e c")
    assert dialogue.conn.state is State.TRANSACTION
    assert b"STLS" not in dialogue.say("CAPA")
    dialogue = Dialogue(config=EVERYTHING, secure=False)
    dialogue.say("UTF8")
    assert b"STLS" not in dialogue.say("CAPA")


@pytest.mark.parametrize(
    "answer",
    [LoginAccepted(Listing(), expire="9\r\nSTLS"), LoginAccepted(Listing(), expire="x" * 600),
     LoginAccepted(Listing(), login_delay="soon"), LoginAccepted(Listing(), login_delay="\r\n.")],
    ids=repr,
)  # fmt: skip
def test_a_users_own_policy_that_is_none(answer: LoginAccepted) -> None:
    # RFC 2449 §5: nothing of a driver's makes a capability line of its own, or one over 512 octets
    conn = connection(True)
    run(conn, b"USER alice\r\nPASS x\r\n")
    with pytest.raises(LocalProtocolError):
        conn.answer(answer)
    conn.answer(LoginAccepted(Listing()))
    assert run(conn)[0] == b"+OK 0 messages (0 octets)\r\n"


def test_the_token_that_says_it_differs_by_user_goes_with_the_login() -> None:
    # RFC 2449 §6.5, §6.7
    dialogue = Dialogue(config=ServerConfig(expire="30 USER", login_delay="60 USER"))
    assert b"EXPIRE 30 USER\r\nLOGIN-DELAY 60 USER\r\n" in dialogue.say("CAPA")
    dialogue.say("USER alice", "PASS s e c")
    assert b"EXPIRE 30\r\nLOGIN-DELAY 60\r\n" in dialogue.say("CAPA")


def test_apop_is_computed_from_prepared_passwords() -> None:
    # RFC 6856 §2.2: a soft hyphen is nothing, an ideographic space a blank
    password, same = "pass\u00ad\u3000wörd".encode(), "pass wörd".encode()
    assert apop_digest(TIMESTAMP, password) == apop_digest(TIMESTAMP, same)
    assert apop_digest(TIMESTAMP, b"\xff") != apop_digest(TIMESTAMP, b"")
    for refused in ("\u0007", "\u00ad"):
        with pytest.raises(SaslError):
            apop_digest(TIMESTAMP, refused.encode())
    for stored, good in ((password, True), (same, True), ("\u0007".encode(), False), ("\u00ad".encode(), False)):
        conn = connection(True, timestamp=TIMESTAMP)
        run(conn, b"APOP alice " + apop_digest(TIMESTAMP, same).encode() + b"\r\n")
        conn.answer(PlainSecret(stored))
        _, event = run(conn)
        assert event == LoginRequested(Verified("alice", "", "APOP") if good else ProofFailed("alice", "APOP"), False)


def test_plain_takes_names_and_passwords_of_255_octets() -> None:
    # RFC 2595 §6
    config = ServerConfig(mechanisms=("PLAIN",))
    conn = connection(True, config)
    run(conn, b"AUTH PLAIN\r\n")
    names = "ü" * 127 + "x", "n" * 255
    message = next(plain.client(names[1], b"p" * 255, names[0]))
    _, event = run(conn, b64encode(message) + b"\r\n")
    assert event == LoginRequested(Password(names[1], names[0], b"p" * 255), False)


def test_a_challenge_that_nobody_asked_for() -> None:
    client = Listener()
    client.conn.send(Capa())
    with pytest.raises(RemoteProtocolError):
        client.hear(b"+ VXNlcm5hbWU6\r\n")


def test_only_mechanisms_that_hide_the_secret_are_for_clear_text() -> None:
    client = Listener(secure=False)
    for name in ("PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"):
        with pytest.raises(LocalProtocolError, match="clear text"):
            client.conn.send(Auth(name))
    client.conn.send(Auth("SCRAM-SHA-256"))


def test_apop_from_the_greeting() -> None:
    client = Listener(ClientConfig(allow_plaintext=True), greeting=f"+OK POP3 server ready {TIMESTAMP}\r\n".encode())
    assert client.events == [Greeted(True, None, f"POP3 server ready {TIMESTAMP}", TIMESTAMP)]
    assert apop_digest(TIMESTAMP, b"tanstaaf") == "c4c9334bac560ecc979e58001b3e22fb"


def test_languages() -> None:
    client = Listener()
    client.conn.send(Lang())
    events = client.hear("+OK\r\nde Deutsch\r\nfr Français\r\nx\r\n.\r\n".encode())
    assert events[1:] == [
        LanguageItem("de", "Deutsch"),
        LanguageItem("fr", "Français"),
        LanguageItem("x", ""),
        ListEnded(Lang()),
    ]
    client.conn.send(Lang("de"))
    assert client.hear(b"+OK de ja\r\n") == [Replied(Lang("de"), True, None, "de ja")]
    client.conn.send(User("a"))
    client.conn.send(Quit())
    with pytest.raises(LocalProtocolError):
        client.conn.send(Noop())


def test_a_certificate_of_the_client_is_no_login() -> None:
    # RFC 8314 §3.1, RFC 2595 §4
    dialogue = Dialogue(config=EVERYTHING, identity="alice")
    assert dialogue.conn.state is State.AUTHORIZATION
    assert dialogue.say("STAT").startswith(b"-ERR")
    assert dialogue.say("AUTH EXTERNAL =").startswith(b"+OK")


def test_good_and_bad_credentials_are_refused_alike_in_clear_text() -> None:
    # RFC 8314 §4.1
    def refusals(name: str, password: str) -> bytes:
        plain_message = b64encode(f"\0{name}\0{password}".encode()).decode()
        server = Dialogue(config=ServerConfig(), secure=False)
        return server.say(f"USER {name}", f"PASS {password}", f"AUTH PLAIN {plain_message}")

    assert refusals("alice", "s e c") == refusals("alice", "wrong") == refusals("nobody", "s e c")
    assert refusals("alice", "s e c").count(b"-ERR") == 3
