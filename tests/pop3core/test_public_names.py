"""What `import pop3core` gives: every name it promises, the server's half when it is asked for, and no other."""

import subprocess
import sys

import pytest

import pop3core
from pop3core import maildrop, server


@pytest.mark.parametrize("name", pop3core.__all__)
def test_every_name_is_there(name: str) -> None:
    homes = [module for word, module in sys.modules.items() if word.startswith("pop3core.") and hasattr(module, name)]
    assert homes
    assert {id(getattr(module, name)) for module in homes} == {id(getattr(pop3core, name))}


def test_names_that_come_late_are_their_modules_own() -> None:
    assert pop3core.Listing is maildrop.Listing
    assert pop3core.ServerConfig is server.ServerConfig
    assert pop3core.ServerConnection is server.ServerConnection


def test_another_name_is_none() -> None:
    with pytest.raises(AttributeError, match="'pop3core' has no attribute 'Servers'"):
        pop3core.Servers  # type: ignore[attr-defined]  # noqa: B018


def test_a_client_does_without_the_servers_half() -> None:
    program = "import sys, pop3core; pop3core.ClientConnection; print('pop3core.server' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"
