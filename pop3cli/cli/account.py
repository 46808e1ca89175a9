"""Arguments and options of ``pop3cli account`` and ``discover``; what they do is in `pop3cli.commands.account`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pop3cli.cli.global_options import EPILOG
from pop3cli.cli.runner import LazyModule, run_work
from pop3cli.exit_status import ExitStatus
from pop3cli.terminal.terminal import Terminal

if TYPE_CHECKING:
    from pop3cli.commands import account as account_command
else:
    account_command = LazyModule("commands.account")

__all__ = ["app", "discover_servers"]

app = typer.Typer(help="Named accounts: a URL and the options that go with it.")
_Name = Annotated[str, typer.Argument(metavar="NAME", help="The account's name.", show_default=False)]


@app.command("add", epilog=EPILOG)
def account_add(
    ctx: typer.Context,
    name: _Name,
    url: Annotated[
        str,
        typer.Argument(metavar="URL", help="pop3s://user@host[:port]; an address with --discover", show_default=False),
    ],
    discover: Annotated[bool, typer.Option("--discover", help="URL is a mail address: find its server.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask whether that is the right server.")] = False,
    keyring: Annotated[
        bool, typer.Option("--keyring", help="Keep the password in the keyring; it is asked for now.")
    ] = False,
    oauth: Annotated[
        str | None,
        typer.Option("--oauth", metavar="PROVIDER", help="Log in by a token: microsoft, google or an issuer's URL."),
    ] = None,
    client_id: Annotated[
        str | None, typer.Option("--client-id", metavar="ID", help="The application, as the provider knows it.")
    ] = None,
    oauth_scope: Annotated[
        str | None, typer.Option("--oauth-scope", metavar="SCOPE", help="What to ask for, else the provider's usual.")
    ] = None,
) -> int:
    """Give an account a name, and keep the options that were said with it. No password is ever in that file."""
    said = account_command.OAuthOptions(oauth, client_id, oauth_scope)

    def work(terminal: Terminal) -> ExitStatus:
        return account_command.add(
            name, url, ctx.obj, terminal, keyring=keyring, oauth=said, discover=discover, yes=yes
        )

    return run_work(ctx.obj, work)


@app.command("login", epilog=EPILOG)
def account_login(
    ctx: typer.Context,
    name: _Name,
    browser: Annotated[bool, typer.Option("--browser", help="In a browser on this machine, not by a code.")] = False,
) -> int:
    """Log in with the provider of an account's tokens; from then on they are renewed."""
    return run_work(ctx.obj, lambda terminal: account_command.login(name, ctx.obj, terminal, browser=browser))


@app.command("list", epilog=EPILOG)
def account_list(ctx: typer.Context) -> int:
    """The named accounts."""
    return run_work(ctx.obj, lambda terminal: account_command.show(ctx.obj, terminal))


@app.command("remove", epilog=EPILOG)
def account_remove(ctx: typer.Context, name: _Name) -> int:
    """Forget an account, and its password in the keyring."""
    return run_work(ctx.obj, lambda terminal: account_command.remove(name, ctx.obj, terminal))


def discover_servers(
    ctx: typer.Context,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="alice@example.org", show_default=False)],
) -> int:
    """Which server a mail address has its mailbox on, as its domain says."""
    return run_work(ctx.obj, lambda terminal: account_command.show_servers(address, ctx.obj, terminal))
