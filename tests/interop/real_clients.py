"""`python -m tests.interop.real_clients`: which client logs in by which mechanism, over TLS 1.2 and 1.3.

Every client that is installed visits a pop3d of each configuration: by each mechanism that it can be told to use, and
by its own choice. What must come of it, and why where a login fails, is in `expected`; the table marks what is
otherwise, and the status is 1 then.
"""

import argparse
import json
import os
import poplib
import re
import ssl
import sys
import tempfile
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pop3d.auth.passwords import hashed
from pop3d.net.certificates import create_self_signed
from tests import issuer
from tests.interop.programs import FORCED, PROGRAMS, Outcome, Visit, missing
from tests.pki import Authority
from tests.site import Daemon, Site, free_port, without_pyopenssl

CONFIGURATIONS: dict[str, list[str]] = {
    "plain": ["plain"],
    "login": ["plain", "login"],
    "apop": ["plain", "apop"],
    "scram": ["plain", "scram-sha-256"],
    "scram-plus": ["plain", "scram-sha-256", "scram-sha-256-plus"],
    "scram-plus-no-pyopenssl": ["plain", "scram-sha-256", "scram-sha-256-plus"],
    "external": ["plain", "external"],
    "oauthbearer": ["oauthbearer"],
    "xoauth2": ["xoauth2"],
}
"""`mechanisms` of [auth]."""
NO_PYOPENSSL = "scram-plus-no-pyopenssl"
"""Here -PLUS is not announced behind TLS 1.3."""
TOKENS = ("oauthbearer", "xoauth2")
VERSIONS = ("1.2", "1.3")
STORED = ("PLAIN", "SCRAM-SHA-256")
"""Schemes of passwords in the users file."""
PASSWORD = "s3cret"
MESSAGE = b"Subject: caf\xe9\n\n.\n..\n.hidden\nFrom here on\n\x80\xff\n\nlast\n"
AT_A_TIME = 4


@dataclass(frozen=True)
class Cell:
    """One client's visit. It has a user, and so a mailbox, of its own."""

    configuration: str
    program: str
    mechanism: str | None
    """None: the client's own choice."""
    tls: str
    stored: str = "PLAIN"
    stls: bool = False

    @property
    def user(self) -> str:
        words = (self.program, self.mechanism or "own", self.tls, self.stored, "stls" if self.stls else "implicit")
        return "-".join(words).lower()


@dataclass(frozen=True)
class Result:
    cell: Cell
    outcome: Outcome
    session: dict[str, str]
    """The fields of the daemon's line about the session; none where nobody logged in."""
    plus: bool
    """SCRAM-SHA-256-PLUS was announced over this version of TLS."""

    @property
    def wrong(self) -> str:
        """What is not as it is expected to be; nothing, if all is."""
        mechanism, words = expected(self.cell, self.plus)
        if mechanism is None:
            if self.session or self.outcome.message is not None:
                return f"logged in by {self.session.get('mechanism')}"
            return "" if words in self.outcome.said else f"never said {words!r}: {self.outcome.said[-2000:]}"
        found = {name: self.session.get(name) for name in ("tls", "mechanism", "retrieved", "reason")}
        wanted = {"tls": f"TLSv{self.cell.tls}", "mechanism": mechanism, "retrieved": "1", "reason": "QUIT"}
        if found != wanted:
            return f"{found}: {self.outcome.said[-2000:]}"
        if self.outcome.status != 0:
            return f"status {self.outcome.status}: {self.outcome.said[-2000:]}"
        arrived = MESSAGE.replace(b"\n", b"\r\n")
        return "" if self.outcome.message == arrived else f"{self.outcome.message!r} arrived"


def expected(cell: Cell, plus: bool) -> tuple[str | None, str]:
    """By which mechanism a client logs in; None where it cannot, and the words with which it says so.

    ``plus``: whether SCRAM-SHA-256-PLUS is announced on this connection.
    """
    if cell.mechanism == "APOP" and cell.stored != "PLAIN":
        # APOP needs the password itself; neomutt does not show what the server says
        return None, "APOP authentication failed" if cell.program == "neomutt" else "wrong user name or password"
    if cell.mechanism is not None:
        return cell.mechanism, ""
    if cell.configuration in TOKENS:
        return cell.configuration.upper(), ""
    if cell.program == "fetchmail":
        return "USER", ""
    if cell.program in ("mutt", "neomutt"):
        # built with GNU SASL, they choose the strongest mechanism, and give it no channel binding; then they send "*"
        # and do not read the reply to it, so that USER and PASS, which they try next, fail too
        if plus:
            return None, "channel binding was not provided"
        if "scram-sha-256" in CONFIGURATIONS[cell.configuration]:
            return "SCRAM-SHA-256", ""
    return "PLAIN", ""


def cells(configuration: str, programs: Collection[str]) -> Iterator[Cell]:
    mechanisms = [name.upper() for name in CONFIGURATIONS[configuration]]
    # elsewhere it is the mechanism beside PLAIN that is of interest
    offered = {*mechanisms, "USER"} if configuration in ("plain", "scram-plus") else {*mechanisms} - {"PLAIN"}
    by_password = configuration not in (*TOKENS, "external")
    for program in programs:
        own: list[str | None] = [None]
        if configuration in TOKENS and program != "curl":
            own = []  # they use a token only where they are told to
        ways = own + [name for name in FORCED[program] if name in offered and configuration != NO_PYOPENSSL]
        for way in ways:
            for tls in VERSIONS:
                yield from (Cell(configuration, program, way, tls, stored) for stored in STORED[: 1 + by_password])
        if ways:  # one case of STLS each
            yield Cell(configuration, program, ways[0], VERSIONS[-1], stls=True)


@dataclass(frozen=True)
class Served:
    site: Site
    ports: tuple[int, int]
    """Of implicit TLS and of STLS."""
    authority: Authority
    log: list[str]


@contextmanager
def serving(root: Path, configuration: str, wanted: Collection[Cell]) -> Iterator[Served]:
    """A pop3d with a mailbox for each cell; its log is whole behind the context."""
    create_self_signed(["localhost"], root)
    authority = Authority(root / "authority")
    (root / "keys.json").write_text(json.dumps(issuer.key_set()))
    secrets = {"PLAIN": f"{{PLAIN}}{PASSWORD}", "SCRAM-SHA-256": hashed(PASSWORD, "SCRAM-SHA-256")}
    (root / "users").write_text("".join(f"{cell.user}:{secrets[cell.stored]}\n" for cell in wanted))
    ports = free_port(), free_port()
    site = Site(root, ports[0])
    for cell in wanted:
        site.maildir(cell.user, {"new/1.host": MESSAGE})
    tokens = f'[auth.oauth]\nissuer = "{issuer.NAME}"\naudience = "{issuer.AUDIENCE}"\njwks = "keys.json"'
    site.config.write_text(f"""
hostname = "localhost"
{'user = "root"' if os.geteuid() == 0 else ""}
[[listen]]
host = "127.0.0.1"
port = {ports[0]}
[[listen]]
host = "127.0.0.1"
port = {ports[1]}
tls = "starttls"
[tls]
certificate = "cert.pem"
private_key = "key.pem"
{f'client_ca = "{authority.certificate}"' if configuration == "external" else ""}
[auth]
users = "users"
mechanisms = {json.dumps(CONFIGURATIONS[configuration])}
{tokens if configuration in TOKENS else ""}
[store]
path = "mail/{{user}}"
[limits]
auth_penalty = 0
""")
    daemon = Daemon(site, env=without_pyopenssl(root) if configuration == NO_PYOPENSSL else None)
    log: list[str] = []
    reader = threading.Thread(target=lambda: log.extend(daemon.process.stderr or ()))
    reader.start()
    try:
        yield Served(site, ports, authority, log)
    finally:
        daemon.process.terminate()
        daemon.process.wait(20)
        reader.join(20)
        if daemon.process.stderr is not None:
            daemon.process.stderr.close()


def announces_plus(served: Served, tls: str) -> bool:
    context = served.site.context()
    context.minimum_version = context.maximum_version = {
        "1.2": ssl.TLSVersion.TLSv1_2,
        "1.3": ssl.TLSVersion.TLSv1_3,
    }[tls]
    client = poplib.POP3_SSL("localhost", served.ports[0], context=context, timeout=20)
    announced = client.capa()["SASL"]
    client.quit()
    return "SCRAM-SHA-256-PLUS" in announced


def visit(served: Served, cell: Cell) -> Outcome:
    folder = served.site.root / "clients" / cell.user
    folder.mkdir(parents=True)
    by_token = cell.configuration in TOKENS
    own = None
    if cell.configuration == "external":
        own = served.authority.issue(cell.user, emails=[cell.user], client=True)
    return PROGRAMS[cell.program](
        Visit(
            folder=folder,
            port=served.ports[cell.stls],
            user=cell.user,
            secret=issuer.token(email=cell.user) if by_token else PASSWORD,
            certificate=served.site.certificate,
            tls=cell.tls,
            stls=cell.stls,
            mechanism=cell.mechanism,
            by_token=by_token,
            own=own,
        )
    )


def results(root: Path, configuration: str, programs: Collection[str]) -> list[Result]:
    """Of all cells of a configuration, some at a time."""
    wanted = list(cells(configuration, programs))
    if not wanted:
        return []
    with serving(root, configuration, wanted) as served:
        plus = {tls: announces_plus(served, tls) for tls in VERSIONS}
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            outcomes = list(pool.map(lambda cell: visit(served, cell), wanted))
    sessions = {}
    for line in served.log:
        if " INFO session " in line:
            fields = dict(re.findall(r"(\w+)=(\S+)", line))
            sessions[fields["user"]] = fields
    return [
        Result(cell, outcome, sessions.get(cell.user, {}), plus[cell.tls])
        for cell, outcome in zip(wanted, outcomes, strict=True)
    ]


def told(found: Collection[Result]) -> str:
    """What the table says of visits that differ by how the password is stored at most."""
    said: dict[str, list[str]] = {}
    for result in found:
        mechanism, words = expected(result.cell, result.plus)
        words = "NOT AS EXPECTED" if result.wrong else mechanism or f"no: {words}"
        said.setdefault(words, []).append(result.cell.stored)
    if len(said) == 1:
        return next(iter(said))
    return "; ".join(f"{words} (stored: {', '.join(stored)})" for words, stored in said.items())


def table(found: Collection[Result]) -> Table:
    """A row for each client and way to log in, with the configurations in which the outcome is the same."""
    columns: dict[tuple[str, str, str], dict[str, list[Result]]] = {}
    for result in found:
        cell = result.cell
        row = columns.setdefault((cell.program, cell.mechanism or "its own choice", cell.configuration), {})
        row.setdefault("STLS" if cell.stls else cell.tls, []).append(result)
    rows: dict[tuple[str, ...], list[str]] = {}
    for (program, mechanism, configuration), row in columns.items():
        outcomes = [told(row[name]) if name in row else "" for name in (*VERSIONS, "STLS")]
        rows.setdefault((program, mechanism, *outcomes), []).append(configuration)
    shown = Table("client", "told to use", "configurations", *(f"TLS {tls}" for tls in VERSIONS), "STLS, TLS 1.3")
    for (program, mechanism, *outcomes), configurations in sorted(rows.items(), key=lambda row: row[0][0]):
        shown.add_row(program, mechanism, ", ".join(configurations), *outcomes)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", default=",".join(PROGRAMS), help="of: %(default)s")
    parser.add_argument("--configurations", default=",".join(CONFIGURATIONS), help="of: %(default)s")
    options = parser.parse_args()
    console = Console()
    for words in filter(None, map(missing, options.clients.split(","))):
        console.print(words, style="dim")
    programs = [name for name in options.clients.split(",") if not missing(name)]
    found: list[Result] = []
    for configuration in options.configurations.split(","):
        with tempfile.TemporaryDirectory(prefix="real-clients-") as root:
            found += results(Path(root), configuration, programs)
    for name, mechanisms in CONFIGURATIONS.items():
        console.print(f"{name}: mechanisms = {json.dumps(mechanisms)}", markup=False)
    console.print(table(found))
    wrong = [result for result in found if result.wrong]
    for result in wrong:
        console.print(f"{result.cell}: {result.wrong}", markup=False)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
