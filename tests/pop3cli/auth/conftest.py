"""An issuer of tokens for the tests of logins."""

from collections.abc import Iterator

import pytest

from tests.pop3cli.issuer import Issuer, issuing


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuing() as issuer:
        yield issuer
