"""Both sides of a SASL mechanism joined, and what a server keeps for SCRAM."""

import base64

from pop3core.sasl import scram
from pop3core.sasl.base import (
    ClientSteps,
    Outcome,
    ScramSecret,
    SecretWanted,
    ServerSteps,
    VerdictWanted,
)

# RFC 7677 §3
NONCE, SERVER_NONCE = "rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")


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
