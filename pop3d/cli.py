"""The command line of pop3d: what can be typed."""

from __future__ import annotations

from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from pop3d.ending import ended
from pop3d.exit_status import ExitStatus
from pop3d.system.process import no_core

if TYPE_CHECKING:
    from pop3d.uidl_format import UidSource

__all__ = ["main"]

app = typer.Typer(
    name="pop3d",
    help="A POP3S daemon for Maildir.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
user_app = typer.Typer(help="Edit the users file, in place and atomically.", no_args_is_help=True)
cert_app = typer.Typer(help="Certificates.", no_args_is_help=True)
app.add_typer(user_app, name="user")
app.add_typer(cert_app, name="cert")

_debug = False

Config = Annotated[
    Path | None, typer.Option("--config", help="Default: ./pop3d.toml, then /etc/pop3d/pop3d.toml.", metavar="FILE")
]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pop3d {version('pop3core')}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a fault of ours.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    global _debug
    _debug = debug


@app.command()
def serve(config: Config = None) -> None:
    """Run in the foreground; log to stderr. SIGTERM and SIGINT end it, SIGHUP reads configuration and users again."""
    from pop3d.commands.serve import serve as run

    run(config)


@app.command()
def demo(
    port: Annotated[int, typer.Option(help="Where to listen on 127.0.0.1.", min=0, max=65_535)] = 8995,
    once: Annotated[bool, typer.Option("--once", help="Run one pop3cli session against it, show it, end.")] = False,
) -> None:
    """Serve a sample mailbox on loopback, with a certificate of its own; leaves nothing behind."""
    from pop3d.commands.demo import demo as run

    raise typer.Exit(run(port, once=once))


@app.command()
def check(
    config: Config = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Check nothing; print what is in force, secrets masked.")
    ] = False,
) -> None:
    """List all that is wrong with configuration, ports, certificate, users and mail. Exit code 78: there are faults."""
    if print_config:
        from pop3d.commands.print_config import print_config as run_print

        run_print(config)
        return
    from pop3d.commands.check import check as run

    raise typer.Exit(run(config))


User = Annotated[str, typer.Argument(help="The user's name.")]


@app.command()
def deliver(user: User, config: Config = None) -> None:
    """Deliver a message from standard input. Exit code 67: unknown user; 75: try again later."""
    from pop3d.commands.deliver import deliver_stdin

    deliver_stdin(user, config)


def _uid_source(uidl: str | None) -> UidSource | None:
    from pop3d.uidl_format import UidSource

    try:
        return None if uidl is None else UidSource.of(uidl)
    except ValueError as fault:
        raise typer.BadParameter(f"{uidl!r}: {fault}", param_hint="--uidl") from None


_IMPORT_HELP = """Import another mailbox's messages, with their unique-ids. Run again, it brings what is missing.

SOURCE is an mbox file, a Maildir, or a mailbox on another server: pop3s://user@host (or pop3:// with STLS). It stays as
it is. The other server's password comes from --password-command, POP3D_IMPORT_PASSWORD, or is asked for.

\b
pop3d import alice /home/alice/Maildir
pop3d import alice /var/mail/alice --x-uidl
pop3d import alice pop3s://alice@old.example.org --cacert old.pem
pop3d import --all /etc/dovecot/users '/var/vmail/{domain}/{local}/Maildir'
pop3d import --all users 'pop3s://{user}*master@old.example.org'
"""


@app.command("import", help=_IMPORT_HELP)
def import_(
    words: Annotated[list[str], typer.Argument(metavar="USER SOURCE", help="With --all: SOURCE alone.")],
    config: Config = None,
    everybody: Annotated[
        Path | None,
        typer.Option(
            "--all",
            help="All users of a passwd-file; SOURCE is a template with {user}, {local}, {domain}, {home}.",
            metavar="USERS-FILE",
        ),
    ] = None,
    uidl: Annotated[
        str | None,
        typer.Option(help="Whose unique-ids a Maildir has, as `store.uidl`; default: find out.", metavar="FORMAT"),
    ] = None,
    control: Annotated[
        str | None,
        typer.Option(
            help="The folder with Dovecot's list, if it is not in the Maildir; with --all a template.", metavar="DIR"
        ),
    ] = None,
    x_uidl: Annotated[bool, typer.Option("--x-uidl", help="X-UIDL fields of an mbox are unique-ids.")] = False,
    cacert: Annotated[
        Path | None, typer.Option(help="Whom to trust with the other server's certificate.", metavar="FILE")
    ] = None,
    pin: Annotated[
        list[str] | None, typer.Option(help="The other server's key or certificate, by SHA-256.", metavar="SHA256")
    ] = None,
    password_command: Annotated[
        str | None, typer.Option(help="Prints the other server's password.", metavar="CMD")
    ] = None,
    passwords: Annotated[
        Path | None, typer.Option(help="With --all: a file of lines user:password, mode 0600.", metavar="FILE")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Import once more what was imported before.")] = False,
) -> None:
    from pop3d.commands.import_source import ImportOptions

    options = ImportOptions(_uid_source(uidl), control, x_uidl, cacert, tuple(pin or ()), password_command, again)
    if everybody is not None:
        from pop3d.commands.import_all import import_all

        if len(words) != 1:
            raise typer.BadParameter("with --all there is one word, the source's template", param_hint="SOURCE")
        raise typer.Exit(import_all(everybody, words[0], config, options, passwords))
    from pop3d.commands.import_mail import import_mail

    if len(words) != 2:
        raise typer.BadParameter("give the user and the source", param_hint="USER SOURCE")
    if passwords is not None:
        raise typer.BadParameter("is for --all", param_hint="--passwords")
    raise typer.Exit(import_mail(words[0], words[1], config, options))


@app.command()
def undelete(
    user: User,
    messages: Annotated[
        list[str] | None, typer.Argument(metavar="[MESSAGE...]", help="Numbers of the list, or unique-ids.")
    ] = None,
    config: Config = None,
    since: Annotated[
        str | None, typer.Option(help="What was deleted then or later, such as 2026-11-27T14:00.", metavar="DATE")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would come back.")] = False,
    sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The list as JSON, an object a line.")] = False,
) -> None:
    """List what a user has deleted, where `deleted` keeps it, or bring it back. Exit code 67: no such message."""
    from pop3d.commands.undelete import Choice
    from pop3d.commands.undelete import undelete as run

    choice = Choice.of(messages or (), since, everything=everything)
    raise typer.Exit(run(user, config, choice, dry_run=dry_run, sure=sure, as_json=as_json))


@app.command()
def mailbox(
    user: User,
    config: Config = None,
    forget: Annotated[
        bool, typer.Option("--forget", help="A mailbox that is missing is meant to be gone: serve an empty one.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show a user's mailbox: where it is, messages, octets, quota, lock. Exit code 67: unknown user."""
    from pop3d.commands import mailbox as command

    if forget:
        command.forget(user, config)
    else:
        command.show(user, config, as_json=as_json)


AsJson = Annotated[bool, typer.Option("--json", help="JSON, an object a line.")]


@app.command()
def who(
    whom: Annotated[str, typer.Argument(metavar="[USER|ADDRESS]", help="A user, an address or a network.")] = "",
    config: Config = None,
    everybody: Annotated[bool, typer.Option("--all", help="Also connections that have not logged in.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show who is connected. Exit code 69: no daemon runs."""
    from pop3d.commands.sessions import who as run

    run(whom, config, everybody=everybody, as_json=as_json)


@app.command()
def kick(
    whom: Annotated[str, typer.Argument(metavar="USER|ADDRESS", help="A user, an address or a network.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """End sessions now; nothing is deleted. Exit code 67: there are none; 69: no daemon runs."""
    from pop3d.commands.sessions import kick as run

    run(whom, config, as_json=as_json)


@app.command()
def status(config: Config = None, as_json: AsJson = False) -> None:
    """Show how the daemon is. Exit code 69: none runs."""
    from pop3d.commands.status import status as run

    run(config, as_json=as_json)


Users = Annotated[Path | None, typer.Option(help="The users file; default: the configuration's.", metavar="FILE")]
Scheme = Annotated[
    str | None,
    typer.Option(help="argon2id, scram-sha-256 or plain; default: argon2id, or scram-sha-256 where SCRAM is offered."),
]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input, one line.")
]


@user_app.command("add")
def user_add(
    name: User,
    config: Config = None,
    users: Users = None,
    scheme: Scheme = None,
    password_stdin: PasswordStdin = False,
) -> None:
    """Add a user; asks for the password."""
    from pop3d.commands.user import add

    add(name, config=config, users=users, scheme=scheme, password_stdin=password_stdin)


@user_app.command("passwd")
def user_passwd(
    name: User,
    config: Config = None,
    users: Users = None,
    scheme: Scheme = None,
    password_stdin: PasswordStdin = False,
) -> None:
    """Give a user another password; asks for it. Exit code 67: unknown user."""
    from pop3d.commands.user import passwd

    passwd(name, config=config, users=users, scheme=scheme, password_stdin=password_stdin)


@user_app.command("remove")
def user_remove(name: User, config: Config = None, users: Users = None) -> None:
    """Remove a user; the mail stays. Exit code 67: unknown user."""
    from pop3d.commands.user import remove

    remove(name, config=config, users=users)


@user_app.command("test")
def user_test(
    name: Annotated[str, typer.Argument(help="The name, as a client says it.")],
    config: Config = None,
    address: Annotated[
        str, typer.Option("--from", help="The client's address; default: any that may.", metavar="ADDRESS")
    ] = "",
    clear: Annotated[bool, typer.Option("--clear-text", help="As if the client had no TLS.")] = False,
    password_stdin: PasswordStdin = False,
) -> None:
    """Try a login as the daemon would check it, step by step. Exit code 67: unknown user; 77: refused; 75: later."""
    from pop3d.commands.try_login import try_login

    raise typer.Exit(try_login(name, config, address=_address(address), clear=clear, password_stdin=password_stdin))


def _address(text: str) -> str:
    try:
        return text and str(ip_address(text))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no IP address", param_hint="--from") from None


@user_app.command("list")
def user_list(config: Config = None, users: Users = None) -> None:
    """Show names and schemes, never a secret: a table on a terminal, lines with a tab elsewhere."""
    from pop3d.commands.user import list_users

    list_users(config=config, users=users)


@cert_app.command("create")
def cert_create(
    host: Annotated[list[str], typer.Option(help="A name or IP address clients connect to; repeatable.")],
    out: Annotated[Path, typer.Option(help="Folder for cert.pem and key.pem.", metavar="DIR")] = Path(),
    days: Annotated[int, typer.Option(help="How long it is valid.", min=1, max=3_650)] = 365,
) -> None:
    """Make a self-signed certificate (ECDSA P-256) and its key."""
    from pop3d.commands.cert import create

    create(host, out=out, days=days)


def main() -> NoReturn:
    """The program: exits with an `ExitStatus`."""
    no_core()
    ended(_typed, lambda: _debug)


def _typed() -> object:
    try:
        return app(standalone_mode=False)
    except typer.Abort:
        return ExitStatus.INTERRUPTED
    except typer.Exit as done:
        return done.exit_code


if __name__ == "__main__":
    main()
