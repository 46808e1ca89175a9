"""SASL mechanisms: the RFCs' own vectors, both sides joined, another implementation as an oracle, and nonsense."""

import base64
import stringprep
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pop3core.sasl import MECHANISMS, SaslError, external, login, oauth, plain, scram
from pop3core.sasl.base import (
    Challenge,
    ClientSteps,
    NoSecret,
    Outcome,
    Password,
    ProofFailed,
    ScramSecret,
    SecretWanted,
    ServerSteps,
    Tls,
    Token,
    VerdictWanted,
    Verified,
)
from pop3core.sasl.prep import saslprep

# RFC 7677 §3
NONCE, SERVER_NONCE = "rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
DIALOGUE = [
    b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
]


def stored(password: bytes, nonce: str = SERVER_NONCE, salt: bytes = SALT, iterations: int = 4096) -> ScramSecret:
    return ScramSecret(salt, iterations, *scram.verifier(password, salt, iterations), nonce)


def converse(server: ServerSteps, client: ClientSteps, secret: object = None) -> tuple[Outcome, list[bytes]]:
    """Joins the two sides; what came of it, and all that was said."""
    said: list[bytes] = []
    wanted = next(server)
    answer = next(client)
    try:
        if answer is None:  # the server speaks first
            answer = client.send(wanted.data)
        while True:
            said += [wanted.data, answer]
            wanted = server.send(answer)
            while isinstance(wanted, SecretWanted | VerdictWanted):
                wanted = server.send(secret if isinstance(wanted, SecretWanted) else b"")
            answer = client.send(wanted.data)
    except StopIteration as done:
        return done.value, said


# --- SCRAM ---


def test_rfc_7677_server() -> None:
    server = scram.server(Tls())
    assert next(server) == Challenge(b"")
    assert server.send(DIALOGUE[0]) == SecretWanted("user", "SCRAM-SHA-256")
    assert server.send(stored(b"pencil")) == Challenge(DIALOGUE[1])
    verified = Verified("user", "", "SCRAM-SHA-256")
    assert server.send(DIALOGUE[2]) == VerdictWanted(verified)  # before anything tells the client that it was right
    assert server.send(b"") == Challenge(DIALOGUE[3])
    with pytest.raises(StopIteration) as done:
        server.send(b"")
    assert done.value.value == verified


def test_rfc_7677_client() -> None:
    client = scram.client("user", b"pencil", NONCE)
    assert next(client) == DIALOGUE[0]
    assert client.send(DIALOGUE[1]) == DIALOGUE[2]
    assert client.send(DIALOGUE[3]) == b""


@settings(max_examples=15, deadline=None)
@given(st.text(min_size=1, max_size=8), st.binary(min_size=1, max_size=12), st.booleans(), st.booleans())
def test_scram_joined(name: str, password: bytes, plus: bool, right: bool) -> None:
    binding = b"certificate" if plus else None
    tls = Tls(binding, binding_offered=plus)
    side = scram.plus_server(tls) if plus else scram.server(tls)
    client = scram.client(name, password, NONCE, channel_binding=binding)
    try:
        outcome, _ = converse(side, client, stored(password if right else password + b"x"))
    except SaslError:
        with pytest.raises(SaslError):
            saslprep(name), saslprep(password.decode())
        return
    mechanism = "SCRAM-SHA-256-PLUS" if plus else "SCRAM-SHA-256"
    assert outcome == (Verified(saslprep(name), "", mechanism) if right else ProofFailed(saslprep(name), mechanism))


PLUS = "SCRAM-SHA-256-PLUS"


def test_an_unknown_user_looks_like_a_known_one() -> None:
    outcomes = []
    for secret in (stored(b"other"), NoSecret(SALT, 4096, SERVER_NONCE)):
        outcome, said = converse(scram.server(Tls()), scram.client("user", b"pencil", NONCE), secret)
        outcomes.append((outcome, said))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0] == ProofFailed("user", "SCRAM-SHA-256")


def test_binding_to_another_channel_fails() -> None:
    client = scram.client("user", b"pencil", NONCE, channel_binding=b"the middle's")
    outcome, _ = converse(scram.plus_server(Tls(b"ours", True)), client, stored(b"pencil"))
    assert outcome == ProofFailed("user", "SCRAM-SHA-256-PLUS")


@pytest.mark.parametrize(("kind", "binding"), [("tls-exporter", b"keys"), ("tls-server-end-point", b"certificate")])
def test_a_client_binds_as_it_can(kind: str, binding: bytes) -> None:
    tls = Tls(b"certificate", binding_offered=True, tls_exporter=b"keys")
    outcomes = []
    for said in (binding, b"the middle's"):
        client = scram.client("user", b"pencil", NONCE, channel_binding=said, binding_type=kind)
        outcomes.append(converse(scram.plus_server(tls), client, stored(b"pencil"))[0])
    assert outcomes == [Verified("user", "", PLUS), ProofFailed("user", PLUS)]


@pytest.mark.parametrize(
    ("known", "kind"), [("tls-exporter", "tls-server-end-point"), ("tls-server-end-point", "tls-exporter")]
)
def test_a_binding_that_is_not_known_is_refused_by_name(known: str, kind: str) -> None:
    tls = Tls(tls_exporter=b"x") if known == "tls-exporter" else Tls(b"x")
    server, client = scram.plus_server(tls), scram.client("u", b"p", NONCE, channel_binding=b"x", binding_type=kind)
    next(server)
    with pytest.raises(SaslError, match=f"^SCRAM-SHA-256-PLUS binds to {known} here$"):
        server.send(next(client))


@pytest.mark.parametrize(
    ("plus", "first"),
    [
        (False, b""),
        (False, b"n,,n=user"),
        (False, b"x,,n=user,r=abc"),
        (False, b"n,,n=us=er,r=abc"),
        (False, b"n,,n=\xff,r=abc"),
        (False, b"n,,m=x,n=user,r=abc"),
        (False, b"p=tls-server-end-point,,n=user,r=abc"),
        (False, b"y,,n=user,r=abc"),  # we offer the binding: somebody hid it
        (True, b"n,,n=user,r=abc"),
        (True, b"p=tls-unique,,n=user,r=abc"),
        (False, b"n,,n=user,r=a\0c"),
    ],
)
def test_first_messages_that_are_none(plus: bool, first: bytes) -> None:
    tls = Tls(b"binding", binding_offered=True)
    server = scram.plus_server(tls) if plus else scram.server(tls)
    next(server)
    with pytest.raises(SaslError):
        server.send(first)


@pytest.mark.parametrize(
    "final", [b"", b"c=biws,r=x", b"c=biws,r=x,p=!", b"c=!,r=x,p=AAAA", b"c=biws;r=x,p=AAAA", b"c=biws,p=AAAA,r=x"]
)
def test_final_messages_that_are_none(final: bytes) -> None:
    server = scram.server(Tls())
    next(server)
    server.send(DIALOGUE[0])
    server.send(stored(b"pencil"))
    with pytest.raises(SaslError):
        server.send(final)


@pytest.mark.parametrize(
    "final",
    [
        DIALOGUE[2].replace(b"c=biws", b"c=eSws"),  # another header than was sent
        DIALOGUE[2].replace(b"r=rO", b"r=xx"),
        DIALOGUE[2].replace(b"p=dH", b"p=AA"),
        DIALOGUE[2][:-44] + b"AAAA",
    ],
)
def test_final_messages_that_prove_nothing(final: bytes) -> None:
    server = scram.server(Tls())
    next(server)
    server.send(DIALOGUE[0])
    server.send(stored(b"pencil"))
    with pytest.raises(StopIteration) as done:
        server.send(final)
    assert done.value.value == ProofFailed("user", "SCRAM-SHA-256")


def test_the_last_answer_is_empty() -> None:
    server = scram.server(Tls())
    next(server)
    server.send(DIALOGUE[0])
    server.send(stored(b"pencil"))
    server.send(DIALOGUE[2])
    server.send(b"")
    with pytest.raises(SaslError):
        server.send(b"x")


@pytest.mark.parametrize("authzid", ["\x07", "\xad", "=2X"])
def test_an_identity_that_cannot_be_acted_as_is_refused_before_the_proof(authzid: str) -> None:
    # behind the proof, the refusal would tell that it was good
    server = scram.server(Tls())
    next(server)
    with pytest.raises(SaslError):
        server.send(f"n,a={authzid},n=user,r=abc".encode())


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"r=other,s=AAAA,i=4096",
        b"r=" + NONCE.encode() + b",s=AAAA,i=4096",  # added nothing of its own
        DIALOGUE[1].replace(b"4096", b"4095"),
        DIALOGUE[1].replace(b"4096", b"99999999"),
        DIALOGUE[1].replace(b"s=W2", b"s=!!"),
        b"e=unknown-user",
    ],
)
def test_a_client_checks_the_servers_first_message(first: bytes) -> None:
    client = scram.client("user", b"pencil", NONCE)
    next(client)
    with pytest.raises(SaslError):
        client.send(first)


@pytest.mark.parametrize("final", [b"", b"e=", b"v=AAAA", DIALOGUE[3] + b","])
def test_a_client_checks_that_the_server_knows_the_password_too(final: bytes) -> None:
    client = scram.client("user", b"pencil", NONCE)
    next(client)
    client.send(DIALOGUE[1])
    with pytest.raises(SaslError, match="impostor"):
        client.send(final)


def test_names_with_commas_and_an_identity_to_act_as() -> None:
    client = scram.client("a,b=c", b"pencil", NONCE, authzid="x,y")
    outcome, said = converse(scram.server(Tls()), client, stored(b"pencil"))
    assert outcome == Verified("a,b=c", "x,y", "SCRAM-SHA-256")
    assert said[1].startswith(b"n,a=x=2Cy,n=a=2Cb=3Dc,r=")


scramp = pytest.importorskip("scramp", reason="scramp is missing: pip install scramp")


@pytest.mark.parametrize(("name", "password"), [("user", "pencil"), ("jürgen", "pässwörd"), ("x", "a b,c=d")])
@pytest.mark.parametrize("binding", [None, ("tls-server-end-point", b"hash of a certificate")])
def test_our_server_and_another_client_agree(name: str, password: str, binding: tuple[str, bytes] | None) -> None:
    mechanism = "SCRAM-SHA-256-PLUS" if binding else "SCRAM-SHA-256"
    theirs = scramp.ScramClient([mechanism], name, password, channel_binding=binding)
    server = (scram.plus_server if binding else scram.server)(Tls(binding[1] if binding else None))
    next(server)
    assert server.send(theirs.get_client_first().encode()) == SecretWanted(name, "SCRAM-SHA-256")
    theirs.set_server_first(server.send(stored(password.encode())).data.decode())
    assert isinstance(server.send(theirs.get_client_final().encode()), VerdictWanted)
    theirs.set_server_final(server.send(b"").data.decode())
    with pytest.raises(StopIteration) as done:
        server.send(b"")
    assert done.value.value == Verified(name, "", mechanism)


@pytest.mark.parametrize("binding", [None, ("tls-server-end-point", b"hash of a certificate")])
def test_our_client_and_another_server_agree(binding: tuple[str, bytes] | None) -> None:
    mechanism = scramp.ScramMechanism("SCRAM-SHA-256-PLUS" if binding else "SCRAM-SHA-256")
    salt, stored_key, server_key, iterations = mechanism.make_auth_info("pässwörd")

    def auth_info(_username: str) -> tuple[bytes, bytes, bytes, int]:
        return salt, stored_key, server_key, iterations

    assert scram.verifier("pässwörd".encode(), salt, iterations) == (stored_key, server_key)
    theirs = mechanism.make_server(auth_info, channel_binding=binding)
    client = scram.client("user", "pässwörd".encode(), NONCE, channel_binding=binding[1] if binding else None)
    theirs.set_client_first(next(client).decode())
    theirs.set_client_final(client.send(theirs.get_server_first().encode()).decode())
    assert client.send(theirs.get_server_final().encode()) == b""


# --- the simple ones ---


@pytest.mark.parametrize("authzid", ["", "boss"])
def test_plain(authzid: str) -> None:
    outcome, said = converse(plain.server(Tls()), plain.client("jürgen", b"\xff s", authzid))
    assert outcome == Password("jürgen", authzid, b"\xff s")
    assert said[1] == authzid.encode() + b"\0j\xc3\xbcrgen\0\xff s"


@pytest.mark.parametrize("message", [b"", b"a", b"\0a", b"\0\0b", b"\0a\0", b"a\0b\0c\0d", b"\0\xff\0x", b"\xff\0a\0x"])
def test_plain_messages_that_are_none(message: bytes) -> None:
    server = plain.server(Tls())
    next(server)
    with pytest.raises(SaslError):
        server.send(message)


def test_plain_never_says_a_nul() -> None:
    for client in (plain.client("a\0", b"x"), plain.client("a", b"x\0"), plain.client("a", b"x", "b\0")):
        with pytest.raises(SaslError):
            next(client)


def test_login() -> None:
    outcome, said = converse(login.server(Tls()), login.client("alice", b"s e c"))
    assert outcome == Password("alice", "", b"s e c")
    assert said == [b"Username:", b"alice", b"Password:", b"s e c"]
    for name, secret in ((b"", b"x"), (b"x", b""), (b"a\0", b"x")):
        server = login.server(Tls())
        next(server)
        server.send(name)
        with pytest.raises(SaslError):
            server.send(secret)


def test_external() -> None:
    tls = Tls(identity="alice")
    assert converse(external.server(tls), external.client())[0] == Verified("alice", "", "EXTERNAL")
    assert converse(external.server(tls), external.client("alice"))[0] == Verified("alice", "alice", "EXTERNAL")
    assert converse(external.server(tls), external.client("bob"))[0] == ProofFailed("alice", "EXTERNAL")
    with pytest.raises(SaslError, match="not empty"):
        converse(external.server(tls), external.client("\u00ad"))


def test_oauth() -> None:
    # RFC 7628 §4.1
    client = oauth.bearer_client(
        "user@example.com", "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==", "server.example.com", 143
    )
    assert next(client) == (
        b"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01"
        b"auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01"
    )
    assert client.send(b'{"status":"invalid_token"}') == b"\x01"
    outcome, _ = converse(oauth.bearer_server(Tls()), oauth.bearer_client("a,b=c", "tok"))
    assert outcome == Token("a,b=c", "OAUTHBEARER", b"tok")
    outcome, said = converse(oauth.xoauth2_server(Tls()), oauth.xoauth2_client("a@b", "tok"))
    assert outcome == Token("a@b", "XOAUTH2", b"tok")
    assert said[1] == b"user=a@b\x01auth=Bearer tok\x01\x01"
    client = oauth.xoauth2_client("a", "t")
    next(client)
    assert client.send(b"{}") == b""


@pytest.mark.parametrize(
    ("server", "message"),
    [
        (oauth.bearer_server, b""),
        (oauth.bearer_server, b"n,,\x01auth=Bearer t"),
        (oauth.bearer_server, b"p=x,,\x01auth=Bearer t\x01\x01"),
        (oauth.bearer_server, b"n,,\x01auth=Basic t\x01\x01"),
        (oauth.bearer_server, b"n,,\x01auth=Bearer t t\x01\x01"),
        (oauth.bearer_server, b"n,,\x01auth=Bearer t\x01auth=Bearer u\x01\x01"),
        (oauth.bearer_server, b"n,a=\xff,\x01auth=Bearer t\x01\x01"),
        (oauth.xoauth2_server, b"usr=a\x01auth=Bearer t\x01\x01"),
        (oauth.xoauth2_server, b"user=a\x01auth=Bearer t"),
        (oauth.xoauth2_server, b"user=a\x01\x01"),
    ],
)
def test_bearer_messages_that_are_none(server, message: bytes) -> None:
    steps = server(Tls())
    next(steps)
    with pytest.raises(SaslError):
        steps.send(message)


@given(st.sampled_from(list(MECHANISMS.values())), st.lists(st.binary(max_size=40), max_size=3))
def test_no_message_makes_another_error(mechanism, messages: list[bytes]) -> None:
    steps = mechanism.steps(Tls(b"x", True, "alice"))
    try:
        wanted = next(steps)
        for message in messages:
            wanted = steps.send(message)
            while isinstance(wanted, SecretWanted | VerdictWanted):
                wanted = steps.send(NoSecret() if isinstance(wanted, SecretWanted) else b"")
    except (SaslError, StopIteration):
        pass


# --- SASLprep: RFC 4013 §3 ---


@pytest.mark.parametrize(
    ("text", "prepared"),
    [("I\u00adX", "IX"), ("user", "user"), ("USER", "USER"), ("\u00aa", "a"), ("\u2168", "IX"), ("a\u00a0b", "a b")],
)
def test_saslprep(text: str, prepared: str) -> None:
    assert saslprep(text) == prepared


@pytest.mark.parametrize("text", ["\u0007", "\u0627\u0031", "\u0627a\u0627", "a\ud800", "\u200e"])
def test_saslprep_prohibits(text: str) -> None:
    with pytest.raises(SaslError):
        saslprep(text)


@pytest.mark.parametrize("password", ["\u00ad", "\u200b\ufeff"])
def test_a_password_of_nothing_but_what_is_mapped_to_nothing_is_not_the_empty_one(password: str) -> None:
    with pytest.raises(SaslError):
        scram.verifier(password.encode(), SALT)


def by_the_tables(text: str) -> str | None:
    """RFC 4013, character by character with the tables of Python's `stringprep`; None where it is refused."""
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
    result = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    prohibited = [getattr(stringprep, f"in_table_c{table}") for table in ("12", "21_c22", *"3456789")]
    if any(is_prohibited(character) for is_prohibited in prohibited for character in result):
        return None
    leftward = [stringprep.in_table_d1(character) for character in result]
    mixed = any(map(stringprep.in_table_d2, result)) or not (leftward and leftward[0] and leftward[-1])
    return None if any(leftward) and mixed else result


def prepared_or_none(text: str) -> str | None:
    try:
        return saslprep(text)
    except SaslError:
        return None


def test_saslprep_of_every_character() -> None:
    others = [code for code in range(0x110000) if prepared_or_none(chr(code)) != by_the_tables(chr(code))]
    assert others == []


@given(st.text(max_size=8) | st.text("a1 \u05d0\u0627\u00ad\u0301\ufdfa\u0340", max_size=8))
def test_saslprep_by_the_tables(text: str) -> None:
    assert prepared_or_none(text) == by_the_tables(text)


def test_saslprep_of_more_than_any_name_has() -> None:
    assert len(saslprep("\ufdfa" * 341)) == 341 * 18
    assert saslprep("a" * 5000) == "a" * 5000  # nothing to be prepared
    with pytest.raises(SaslError, match="too long"):
        saslprep("\ufdfa" * 342)


def test_saslprep_of_right_to_left() -> None:
    assert saslprep("\u0627\u0628") == "\u0627\u0628"


def test_no_secret_in_any_repr() -> None:
    for thing in (Token("a", "X", b"hush"), stored(b"hush"), Password("a", "", b"hush")):
        assert "hush" not in repr(thing)
        assert repr(scram.verifier(b"hush", SALT)[0])[2:-1] not in repr(thing)
