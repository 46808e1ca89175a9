"""What holds for all SASL mechanisms: no message makes another error, no repr shows a secret."""

from hypothesis import given
from hypothesis import strategies as st

from pop3core.sasl import MECHANISMS, SaslError, scram
from pop3core.sasl.base import (
    NoSecret,
    Password,
    SecretWanted,
    Tls,
    Token,
    VerdictWanted,
)
from tests.pop3core.mechanisms import SALT, stored


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


def test_no_secret_in_any_repr() -> None:
    for thing in (Token("a", "X", b"hush"), stored(b"hush"), Password("a", "", b"hush")):
        assert "hush" not in repr(thing)
        assert repr(scram.verifier(b"hush", SALT)[0])[2:-1] not in repr(thing)
