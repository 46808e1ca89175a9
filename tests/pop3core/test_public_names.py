"""What `import pop3core` gives: every name it promises, the server's half when it is asked for, and no other."""

import subprocess
import sys

import pytest

import pop3core
from pop3core import maildrop, server


@pytest.mark.parametrize("name", pop3core.__all__)
def test_every_name_is_there(name: str) -> None:
    assert hasattr(pop3core, name)  # which imports its module
    homes = [module for word, module in sys.modules.items() if word.startswith("pop3core.") and hasattr(module, name)]
    assert homes
    assert {id(getattr(module, name)) for module in homes} == {id(getattr(pop3core, name))}


def test_names_that_come_late_are_their_modules_own() -> None:
    assert pop3core.Listing is maildrop.Listing
    assert pop3core.ServerConfig is server.ServerConfig
    assert pop3core.ServerConnection is server.ServerConnection


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'pop3core' has no attribute 'Servers'"):
        pop3core.Servers  # type: ignore[attr-defined]  # noqa: B018


def test_nobody_imports_more_than_is_asked_for() -> None:
    program = (
        "import sys, pop3core.framing; print('pop3core.client' in sys.modules);"
        " pop3core.ClientConnection; print('pop3core.server' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\nFalse\n"
