"""``pop3cli``: the command line.

This module has the arguments and options of all commands, but those of named accounts and of sync, which are in
`pop3cli.cli.account` and `pop3cli.cli.sync`. What a command does is in `pop3cli.commands`, imported when it is run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, cast

import typer
from typer.main import get_command

from pop3cli.accounts.url import Account, Settings
from pop3cli.cli import account as account_command
from pop3cli.cli import sync as sync_command
from pop3cli.cli.completion import complete_account
from pop3cli.cli.global_options import EPILOG, GlobalOptionsGroup
from pop3cli.cli.runner import LazyModule, on_account_of, run_work, warn
from pop3cli.errors import OutputFailed, UsageFault
from pop3cli.exit_status import ExitStatus
from pop3cli.net.trace import Trace
from pop3cli.options import Options
from pop3cli.terminal.terminal import Terminal

if TYPE_CHECKING:
    from pop3cli.commands import check as check_command
    from pop3cli.commands import delete as delete_command
    from pop3cli.commands import list as list_command
    from pop3cli.commands import show as show_command
    from pop3cli.commands import stats as stats_command
else:
    check_command, delete_command, list_command, show_command, stats_command = map(
        LazyModule, ("commands.check", "commands.delete", "commands.list", "commands.show", "commands.stats")
    )

__all__ = ["main", "run"]


app = typer.Typer(
    cls=GlobalOptionsGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Read and keep a POP3 mailbox, over verified TLS.",
    epilog="ACCOUNT is pop3s://user@host[:port], or a name given to one by account add. The password is taken from"
    " --password-command, from the environment's POP3CLI_PASSWORD, from the keyring, or asked for; never from the"
    " command line.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version  # slow to import, and seldom wanted

        try:
            print(f"pop3cli {version('pop3core')}")
        except PackageNotFoundError:
            print("pop3cli, not installed")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    ctx: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")] = False,
    no_color: Annotated[
        bool, typer.Option("--no-color", help="No colours (also: NO_COLOR in the environment).")
    ] = False,
    cacert: Annotated[
        Path | None, typer.Option("--cacert", metavar="FILE", help="Trust the certificates in FILE, and no others.")
    ] = None,
    pin: Annotated[
        list[str] | None,
        typer.Option("--pin", metavar="SHA256", help="The server's key or certificate; may be given again."),
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Do not verify the server. Anybody may listen.")] = False,
    client_cert: Annotated[
        Path | None, typer.Option("--client-cert", metavar="FILE", help="Our certificate; log in by it.")
    ] = None,
    client_key: Annotated[Path | None, typer.Option("--client-key", metavar="FILE", help="Its key.")] = None,
    proxy: Annotated[
        str | None, typer.Option("--proxy", metavar="URL", help="Connect through it: socks5://HOST:PORT.")
    ] = None,
    auth: Annotated[
        str | None, typer.Option("--auth", metavar="MECHANISM", help="How to log in; else the best there is.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="SECONDS", min=0.1, help="How long the server may take for each answer: 60."),
    ] = None,
    password_command: Annotated[
        str | None,
        typer.Option("--password-command", metavar="CMD", help="Run CMD (no shell); its first line is the password."),
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Show what goes over the wire, on standard error; secrets are masked.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> int:
    settings = Settings(
        cacert=cacert,
        pins=tuple(pin or ()),
        insecure=insecure,
        client_cert=client_cert,
        client_key=client_key,
        proxy=proxy,
        auth=auth,
        timeout=timeout,
        password_command=password_command,
    )
    shown = Terminal(color=not no_color).wire
    ctx.obj = Options(json, not no_color, debug, settings, lambda: Trace(shown) if trace else None)
    if ctx.invoked_subcommand is None:
        print(ctx.get_help(), end="")
        return ExitStatus.USAGE
    return ExitStatus.OK


_Account = Annotated[
    str,
    typer.Argument(
        metavar="ACCOUNT",
        help="A name, or pop3s://user@host[:port]",
        show_default=False,
        autocompletion=complete_account,
    ),
]
_Number = Annotated[int, typer.Argument(metavar="N", min=1, help="The message's number.", show_default=False)]


@app.command("check", epilog=EPILOG)
def check_account(
    ctx: typer.Context,
    account: Annotated[
        str,
        typer.Argument(
            metavar="ACCOUNT",
            help="A name, or pop3s://[user@]host[:port]",
            show_default=False,
            autocompletion=complete_account,
        ),
    ],
) -> int:
    """What a server shows, whether it can be trusted, and whether the login works; what to do about the rest."""
    return on_account_of(ctx, account, check_command.check, user_required=False)


@app.command(epilog=EPILOG)
def stat(ctx: typer.Context, account: _Account) -> int:
    """How many messages there are, and how large they are together."""
    return on_account_of(ctx, account, list_command.stat)


@app.command("list", epilog=EPILOG)
def list_messages(
    ctx: typer.Context,
    account: _Account,
    last: Annotated[int | None, typer.Option("--last", metavar="N", min=1, help="Only the last N messages.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All messages, on a terminal as well.")] = False,
) -> int:
    """From, Subject, Date and size of each message, the newest at the end; on a terminal the last 200."""

    def work(found: Account, options: Options, terminal: Terminal) -> ExitStatus:
        from pop3cli.commands.message_table import LIST_LAST

        if everything and last is not None:
            raise UsageFault("list --all", "does not go with --last")
        for_person = terminal.is_terminal and not everything and not options.json
        most = last or (LIST_LAST if for_person else None)
        return list_command.list_messages(found, options, terminal, most)

    return on_account_of(ctx, account, work)


@app.command(epilog=EPILOG)
def uidl(ctx: typer.Context, account: _Account) -> int:
    """The unique id of each message."""
    return on_account_of(ctx, account, list_command.uidl)


@app.command(epilog=EPILOG)
def stats(
    ctx: typer.Context,
    account: _Account,
    top: Annotated[int, typer.Option("--top", metavar="N", min=1, max=1000, help="Senders and months shown.")] = 10,
) -> int:
    """Who and what fills the mailbox: senders, months, sizes, the largest messages."""

    def work(found: Account, options: Options, terminal: Terminal) -> ExitStatus:
        return stats_command.stats(found, options, terminal, top)

    return on_account_of(ctx, account, work)


@app.command(epilog=EPILOG)
def show(
    ctx: typer.Context,
    account: _Account,
    number: _Number,
    raw: Annotated[bool, typer.Option("--raw", help="The exact message, as get shows it.")] = False,
    headers: Annotated[bool, typer.Option("--headers", help="All headers, and nothing else.")] = False,
    save: Annotated[
        Path | None,
        typer.Option("--save-attachments", metavar="DIR", help="Save what is attached to new files in DIR."),
    ] = None,
) -> int:
    """A message to be read: headers, text (HTML as text), what is attached."""

    def work(found: Account, options: Options, terminal: Terminal) -> ExitStatus:
        if raw and (headers or options.json):
            raise UsageFault("show --raw", "does not go with --headers or --json")
        if save is not None and (raw or headers):
            raise UsageFault("show --save-attachments", "does not go with --raw or --headers")
        if raw:
            return show_command.get(found, number, None, options, terminal)
        return show_command.show(found, number, options, terminal, headers_only=headers, save_to=save)

    return on_account_of(ctx, account, work)


@app.command(epilog=EPILOG)
def get(
    ctx: typer.Context,
    account: _Account,
    number: _Number,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write it to FILE, whole or not at all; - is stdout."),
    ] = None,
) -> int:
    """A message's exact bytes."""
    file = None if output in (None, "-") else Path(str(output))
    return on_account_of(
        ctx, account, lambda found, options, terminal: show_command.get(found, number, file, options, terminal)
    )


@app.command(epilog=EPILOG)
def delete(
    ctx: typer.Context,
    account: _Account,
    numbers: Annotated[
        list[int], typer.Argument(metavar="N...", min=1, help="The messages' numbers.", show_default=False)
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Delete messages: all that are named, or none."""
    return on_account_of(
        ctx,
        account,
        lambda found, options, terminal: delete_command.delete(found, numbers, options, terminal, yes=yes),
    )


@app.command(epilog=EPILOG)
def doctor(
    ctx: typer.Context,
    account: _Account,
    destructive: Annotated[
        bool, typer.Option("--destructive", help="Examine deleting as well: this removes the smallest message.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before that.")] = False,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write the findings to FILE as JUnit's XML, too.")
    ] = None,
) -> int:
    """Examine a server: what it announces, sends, locks, refuses, and what its RFCs say about that."""

    def work(found: Account, options: Options, terminal: Terminal) -> ExitStatus:
        from pop3cli.doctor.command import doctor as examine  # no other command needs it

        return examine(found, options, terminal, destructive=destructive, yes=yes, junit=junit)

    return on_account_of(ctx, account, work)


app.command(epilog=EPILOG)(sync_command.sync)


@app.command(epilog=EPILOG)
def shell(
    ctx: typer.Context,
    account: Annotated[
        str | None,
        typer.Argument(
            metavar="[ACCOUNT]",
            help="A name, or pop3s://[user@]host[:port]; else open one inside.",
            show_default=False,
            autocompletion=complete_account,
        ),
    ] = None,
) -> int:
    """Speak POP3 with a server: every command, in colour; help explains. Reads a script from a pipe as well."""

    def work(terminal: Terminal) -> ExitStatus:
        if ctx.obj.json:
            raise UsageFault("shell --json", "a dialogue has no JSON form")
        from pop3cli.shell.shell import Shell

        warn(ctx.obj, terminal)
        return Shell(ctx.obj, terminal).run(account)

    return run_work(ctx.obj, work)


app.add_typer(account_command.app, name="account")
app.command("discover", epilog=EPILOG)(account_command.discover_servers)


# --- the program ---


# UsageError of the click that this version of typer uses: its own copy, or the package
_UsageError: Final = cast(type[Exception], typer.BadParameter.__base__)


def run(arguments: Sequence[str]) -> int:
    """The program, given its arguments; its exit status."""
    if "--no-color" in arguments:
        os.environ["NO_COLOR"] = "1"  # for help as well, which typer shows
    terminal = Terminal()
    try:
        with terminal.writing():  # help and version, which typer shows
            status = get_command(app).main(list(arguments), prog_name="pop3cli", standalone_mode=False)
        terminal.flush()
    except OutputFailed as fault:
        if not fault.quiet:
            terminal.error(str(fault))
        return fault.status
    except _UsageError as fault:
        context: typer.Context | None = getattr(fault, "ctx", None)
        path = "pop3cli" if context is None else context.command_path
        terminal.error(fault.format_message().rstrip("."), f"see {path} --help")  # type: ignore[attr-defined]
        return ExitStatus.USAGE
    except (typer.Abort, KeyboardInterrupt):
        return ExitStatus.INTERRUPTED
    return int(status or 0)


def main() -> None:
    """What the installed script calls."""
    sys.exit(run(sys.argv[1:]))
