"""curl, fetchmail, mpop, mutt and neomutt log in by each mechanism, over TLS 1.2 and 1.3, and read a message."""

from importlib.util import find_spec

import pytest

from tests.interop.programs import PROGRAMS, missing
from tests.interop.real_clients import CONFIGURATIONS, NO_PYOPENSSL, TOKENS, Result, results


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def visited(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Result]]:
    """A configuration, and what came of the visits of all clients that are installed."""
    installed = [program for program in PROGRAMS if not missing(program)]
    return request.param, results(tmp_path_factory.mktemp(request.param), request.param, installed)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_client_logs_in_and_reads(visited: tuple[str, list[Result]], program: str) -> None:
    if words := missing(program):
        pytest.skip(words)
    configuration, found = visited
    own = [result for result in found if result.cell.program == program]
    assert own or configuration in TOKENS
    if configuration in ("scram-plus", NO_PYOPENSSL):
        announced = {result.cell.tls: result.plus for result in own}
        assert announced == {"1.2": True, "1.3": configuration == "scram-plus" and find_spec("OpenSSL") is not None}
    assert {result.cell: result.wrong for result in own if result.wrong} == {}
