"""``pop3cli``: the command line.

This module knows words and options, `pop3cli.commands` what is done about them. Options that hold for every command
may stand before it or after it; `_OptionsAnywhere` is all there is to that. Whatever goes wrong ends in `_run`: one
line on standard error, an exit status that says what it was, and a traceback only for who asks with ``--debug``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer
from typer.core import TyperGroup
from typer.main import get_command

from pop3cli.accounts import Account, Settings
from pop3cli.completion import complete_account
from pop3cli.errors import MailError, OutputFailed, UsageFault
from pop3cli.exit_status import ExitStatus
from pop3cli.options import Options
from pop3cli.render import Terminal
from pop3cli.trace import Trace

if TYPE_CHECKING:
    from pop3cli import accounting, check, commands
else:

    class _Later:
        """A module of ours, imported when the first of its names is asked for: `sync` needs none."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str) -> Any:
            return getattr(import_module(f"pop3cli.{self._name}"), name)

    accounting, check, commands = map(_Later, ("accounting", "check", "commands"))

__all__ = ["main", "run"]


class _OptionsAnywhere(TyperGroup):
    """Options of the whole program may stand behind the command as well: they are moved before it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse with our own options first."""
        takes_value = {name: not getattr(param, "is_flag", True) for param in self.params for name in param.opts}
        ours, others = _sorted_out(args, takes_value)
        return super().parse_args(ctx, [*ours, *others])


def _sorted_out(args: list[str], takes_value: dict[str, bool]) -> tuple[list[str], list[str]]:
    """The arguments that are options of ours, with their values, and the rest; behind ``--`` nothing is an option."""
    ours: list[str] = []
    others: list[str] = []
    rest = iter(args)
    for word in rest:
        name, _, _ = word.partition("=")
        if word == "--":
            others += [word, *rest]
        elif name not in takes_value:
            others.append(word)
        else:
            ours.append(word)
            if takes_value[name] and word == name:
                ours += list(_next_of(rest))
    return ours, others


def _next_of(words: Iterator[str]) -> list[str]:
    word = next(words, None)
    return [] if word is None else [word]


_EPILOG: Final = (
    "Also, before or after the command: --json, --no-color, --cacert FILE, --pin SHA256, --timeout SECONDS,"
    " --password-command CMD, --trace and more; see pop3cli --help."
)

app = typer.Typer(
    cls=_OptionsAnywhere,
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


@app.command("check", epilog=_EPILOG)
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
    return _on(ctx, account, check.check, user_required=False)


@app.command(epilog=_EPILOG)
def stat(ctx: typer.Context, account: _Account) -> int:
    """How many messages there are, and how large they are together."""
    return _on(ctx, account, commands.stat)


@app.command("list", epilog=_EPILOG)
def list_messages(
    ctx: typer.Context,
    account: _Account,
    last: Annotated[int | None, typer.Option("--last", metavar="N", min=1, help="Only the last N messages.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All messages, on a terminal as well.")] = False,
) -> int:
    """From, Subject, Date and size of each message, the newest at the end; on a terminal the last 200."""

    def work(found: Account, options: Options, terminal: Terminal) -> ExitStatus:
        from pop3cli.listing import LIST_LAST

        if everything and last is not None:
            raise UsageFault("list --all", "does not go with --last")
        for_person = terminal.is_terminal and not everything and not options.json
        most = last or (LIST_LAST if for_person else None)
        return commands.list_messages(found, options, terminal, most)

    return _on(ctx, account, work)


@app.command(epilog=_EPILOG)
def uidl(ctx: typer.Context, account: _Account) -> int:
    """The unique id of each message."""
    return _on(ctx, account, commands.uidl)


@app.command(epilog=_EPILOG)
def stats(
    ctx: typer.Context,
    account: _Account,
    top: Annotated[int, typer.Option("--top", metavar="N", min=1, max=1000, help="Senders and months shown.")] = 10,
) -> int:
    """Who and what fills the mailbox: senders, months, sizes, the largest messages."""

    def work(found: Account, options: Options, terminal: Terminal) -> ExitStatus:
        from pop3cli import overview

        return overview.stats(found, options, terminal, top)

    return _on(ctx, account, work)


@app.command(epilog=_EPILOG)
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
            return commands.get(found, number, None, options, terminal)
        return commands.show(found, number, options, terminal, headers_only=headers, save_to=save)

    return _on(ctx, account, work)


@app.command(epilog=_EPILOG)
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
    return _on(ctx, account, lambda found, options, terminal: commands.get(found, number, file, options, terminal))


@app.command(epilog=_EPILOG)
def delete(
    ctx: typer.Context,
    account: _Account,
    numbers: Annotated[
        list[int], typer.Argument(metavar="N...", min=1, help="The messages' numbers.", show_default=False)
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Delete messages: all that are named, or none."""
    return _on(
        ctx,
        account,
        lambda found, options, terminal: commands.delete(found, numbers, options, terminal, sure=yes),
    )


@app.command(epilog=_EPILOG)
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

        return examine(found, options, terminal, destructive=destructive, sure=yes, junit=junit)

    return _on(ctx, account, work)


@app.command(epilog=_EPILOG)
def sync(
    ctx: typer.Context,
    accounts: Annotated[
        list[str],
        typer.Argument(metavar="ACCOUNT...", help="Names, or pop3s://user@host[:port]", show_default=False),
    ],
    destination: Annotated[
        str, typer.Argument(metavar="DEST", help="A Maildir, or FILE.mbox; {account} in it.", show_default=False)
    ],
    delete: Annotated[bool, typer.Option("--delete/--keep", help="Delete what was fetched; or keep it there.")] = False,
    delete_after: Annotated[
        str | None, typer.Option("--delete-after", metavar="TIME", help="Delete what was fetched so long ago: 30d.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    max_size: Annotated[
        str | None, typer.Option("--max-size", metavar="SIZE", help="Leave larger ones on the server: 25M.")
    ] = None,
    headers_only: Annotated[
        bool, typer.Option("--headers-only", help="Fetch headers alone, and delete nothing.")
    ] = False,
    judge: Annotated[
        str | None,
        typer.Option("--filter", metavar="CMD", help="Ask CMD about each: status 0 keep, 100 skip, 101 delete."),
    ] = None,
    filter_timeout: Annotated[
        float, typer.Option("--filter-timeout", metavar="SECONDS", min=0.1, help="How long CMD may take.")
    ] = 60.0,
    state: Annotated[
        str | None, typer.Option("--state", metavar="FILE", help="What remembers; {account} in it.")
    ] = None,
    watch: Annotated[str | None, typer.Option("--watch", metavar="TIME", help="Go on, every so often: 5m.")] = None,
    import_state: Annotated[
        tuple[str, str] | None,
        typer.Option("--import-state", metavar="PROGRAM FILE", help="Know first what mpop, getmail or fetchmail knew."),
    ] = None,
) -> int:
    """Fetch what is new into a Maildir or an mbox; what a cut or a crash interrupts goes on where it was."""
    from pop3cli.sync.app import Words, run_sync

    words = Words(
        delete, delete_after, dry_run, max_size, headers_only, judge, filter_timeout, state, watch, import_state
    )

    def work(terminal: Terminal) -> ExitStatus:
        _warn(ctx.obj, terminal)
        return run_sync(accounts, destination, words, ctx.obj, terminal)

    return _run(ctx.obj, work)


@app.command(epilog=_EPILOG)
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
        from pop3cli.shell import Shell

        _warn(ctx.obj, terminal)
        return Shell(ctx.obj, terminal).run(account)

    return _run(ctx.obj, work)


# --- named accounts ---

account_app = typer.Typer(help="Named accounts: a URL and the options that go with it.")
app.add_typer(account_app, name="account")
_Name = Annotated[str, typer.Argument(metavar="NAME", help="The account's name.", show_default=False)]


@account_app.command("add", epilog=_EPILOG)
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
    said = accounting.OAuth(oauth, client_id, oauth_scope)

    def work(terminal: Terminal) -> ExitStatus:
        return accounting.add(name, url, ctx.obj, terminal, keyring=keyring, oauth=said, found_out=discover, sure=yes)

    return _run(ctx.obj, work)


@app.command("discover", epilog=_EPILOG)
def discover_servers(
    ctx: typer.Context,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="alice@example.org", show_default=False)],
) -> int:
    """Which server a mail address has its mailbox on, as its domain says."""
    return _run(ctx.obj, lambda terminal: accounting.show_servers(address, ctx.obj, terminal))


@account_app.command("login", epilog=_EPILOG)
def account_login(
    ctx: typer.Context,
    name: _Name,
    browser: Annotated[bool, typer.Option("--browser", help="In a browser on this machine, not by a code.")] = False,
) -> int:
    """Log in with the provider of an account's tokens; from then on they are renewed."""
    return _run(ctx.obj, lambda terminal: accounting.login(name, ctx.obj, terminal, browser=browser))


@account_app.command("list", epilog=_EPILOG)
def account_list(ctx: typer.Context) -> int:
    """The named accounts."""
    return _run(ctx.obj, lambda terminal: accounting.show(ctx.obj, terminal))


@account_app.command("remove", epilog=_EPILOG)
def account_remove(ctx: typer.Context, name: _Name) -> int:
    """Forget an account, and its password in the keyring."""
    return _run(ctx.obj, lambda terminal: accounting.remove(name, ctx.obj, terminal))


# --- how runs begin and end ---


_Work = Callable[[Account, Options, Terminal], ExitStatus]


def _on(ctx: typer.Context, text: str, work: _Work, *, user_required: bool = True) -> int:
    """Do a command's work on the account that ``text`` names, with its settings."""

    def on_account(terminal: Terminal) -> ExitStatus:
        _warn(ctx.obj, terminal)
        from pop3cli.book import find

        account, settings = find(text, ctx.obj.settings, user_required=user_required)
        return work(account, replace(ctx.obj, settings=settings), terminal)

    return _run(ctx.obj, on_account)


def _warn(options: Options, terminal: Terminal) -> None:
    if options.settings.insecure:  # RFC 8314 §5.2
        terminal.error("--insecure: the server is NOT verified: whoever answers in its place reads password and mail")


def _run(options: Options, work: Callable[[Terminal], ExitStatus]) -> int:
    """Do a command's work; its exit status. Whatever failed is one line on standard error."""
    terminal = Terminal(color=options.color)
    # asyncio's remarks on connections that go are no one's help: what they mean is told as an error of ours
    logging.getLogger("asyncio").setLevel(logging.WARNING if options.debug else logging.CRITICAL)
    try:
        status = work(terminal)
        terminal.flush()
        return status
    except (Exception, KeyboardInterrupt) as fault:
        return _failed(fault, options, terminal)


def _failed(fault: BaseException, options: Options, terminal: Terminal) -> ExitStatus:
    with contextlib.suppress(OutputFailed):
        terminal.flush()  # what came before the error is shown before it
    if options.debug:
        terminal.trace()
    match fault:
        case OutputFailed(quiet=True):
            return fault.status
        case MailError():
            terminal.error(str(fault), *getattr(fault, "__notes__", ()))
            return fault.status
        case KeyboardInterrupt():
            terminal.error("interrupted")
            return ExitStatus.INTERRUPTED
        case _:
            what = f"{type(fault).__name__}: {fault}"
            terminal.error(f"a bug of ours: {what}", "please report it, with what --debug shows")
            return ExitStatus.SOFTWARE


# UsageError of the click that this version of typer uses: its own copy, or the package
_UsageError: Final = cast(type[Exception], typer.BadParameter.__base__)


def run(arguments: Sequence[str]) -> int:
    """The program, given its arguments; its exit status."""
    if "--no-color" in arguments:
        os.environ["NO_COLOR"] = "1"  # for help as well, which typer shows
    try:
        status = get_command(app).main(list(arguments), prog_name="pop3cli", standalone_mode=False)
    except _UsageError as fault:
        context: typer.Context | None = getattr(fault, "ctx", None)
        path = "pop3cli" if context is None else context.command_path
        Terminal().error(fault.format_message().rstrip("."), f"see {path} --help")  # type: ignore[attr-defined]
        return ExitStatus.USAGE
    except (typer.Abort, KeyboardInterrupt):
        return ExitStatus.INTERRUPTED
    return int(status or 0)


def main() -> None:
    """What the installed script calls."""
    sys.exit(run(sys.argv[1:]))
