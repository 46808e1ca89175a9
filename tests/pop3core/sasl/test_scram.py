"""SCRAM: the vectors of RFC 7677, both sides joined, another implementation as an oracle, and nonsense."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pop3core.sasl import SaslError, scram
from pop3core.sasl.base import (
    Challenge,
    NoSecret,
    ProofFailed,
    SecretWanted,
    Tls,
    VerdictWanted,
    Verified,
)
from pop3core.sasl.prep import saslprep
from tests.pop3core.mechanisms import NONCE, SALT, SERVER_NONCE, converse, stored

DIALOGUE = [
    b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
]


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


@pytest.mark.parametrize("password", ["\u00ad", "\u200b\ufeff"])
def test_a_password_of_nothing_but_what_is_mapped_to_nothing_is_not_the_empty_one(password: str) -> None:
    with pytest.raises(SaslError):
        scram.verifier(password.encode(), SALT)
