"""All that the fuzzer has found so far, and a little more, goes through both engines again."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.harness import client_input, server_input
from tests.pop3core.play import transcripts

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("side", ["server", "client"])
def test_the_corpus(side: str) -> None:
    one_input = server_input if side == "server" else client_input
    files = sorted((CORPUS / side).iterdir())
    assert files
    for path in files:
        one_input(path.read_bytes())


@pytest.mark.parametrize("choice", range(16))
def test_dialogues_as_seeds(choice: int) -> None:
    for transcript in transcripts():
        for head in (bytes([choice, 255, 255]), bytes([choice | 0xC0, 0, 0])):
            server_input(head + b"".join(said for said, _ in transcript.turns))
            client_input(head + b"".join(answer for _, answer in transcript.turns))


@given(st.binary(max_size=200))
def test_anything(data: bytes) -> None:
    server_input(data)
    client_input(data)
