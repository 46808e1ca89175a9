"""Errors speak of settings; the command line shows the options that stand for them."""

from __future__ import annotations

from dataclasses import fields

import pytest
from typer.main import get_command

from pop3cli.accounts.url import Settings
from pop3cli.cli.app import app
from pop3cli.errors import LoginRefused, SettingFault
from pop3cli.options import OPTION_OF, error_text, with_options


def options_of(command: object) -> set[str]:
    """All options of a command and of those below it."""
    found = {name for param in getattr(command, "params", ()) for name in param.opts}
    return found.union(*(options_of(below) for below in getattr(command, "commands", {}).values()))


def test_every_setting_has_an_option_that_the_program_takes() -> None:
    assert OPTION_OF.keys() == {setting.name for setting in fields(Settings)} - {"title"}
    assert set(OPTION_OF.values()) <= options_of(get_command(app))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("`cacert` /no/such/file: cannot be read", "--cacert /no/such/file: cannot be read"),
        ("does not go with `pins` or `cacert`", "does not go with --pin or --cacert"),
        ("use `auth=scram-sha-256`", "use --auth scram-sha-256"),
        ("give `client_cert=FILE`", "give --client-cert FILE"),
        ("give `password_command=CMD`, or set IT", "give --password-command CMD, or set IT"),
        ("`list` shows what there is; `title`, `auth, auth` and `auth=`", None),
        ("auth, cacert and timeout without backticks", None),
    ],
)
def test_settings_in_backticks_are_shown_as_options(text: str, shown: str | None) -> None:
    assert with_options(text) == (shown or text)


def test_an_error_is_shown_with_its_notes() -> None:
    fault = LoginRefused("login", "no", "look at `auth`", code=None, text="no")
    fault.add_note("`auth=plain` does not")
    assert error_text(fault) == "login: no; look at --auth; --auth plain does not"
    assert error_text(SettingFault("`proxy` x", "not the URL of a proxy")) == "--proxy x: not the URL of a proxy"
