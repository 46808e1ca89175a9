"""The users file of a site of Dovecot's, and who gets in by it: at the real Dovecot, and at pop3d.

`tests.interop.moving` shows it as a table.
"""

import contextlib
import poplib
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from pop3core.events import Password
from pop3d.abuse.addresses import is_within
from pop3d.auth.schemes import NOT_READ
from pop3d.auth.users_file import UsersFile
from tests.interop import dovecot

DOVEADM = shutil.which("doveadm")
NEVER = {"DES-CRYPT": "a DES hash is not read", **{name: f"{{{name}}} is not read" for name in NOT_READ}}
"""Schemes of Dovecot's that pop3d does not read, and what it says then."""


def doveadm(*words: str) -> str:
    """What `doveadm pw` prints; empty where it does not."""
    assert DOVEADM is not None
    done = subprocess.run([DOVEADM, "-c", "/dev/null", "pw", *words], capture_output=True, text=True, timeout=60)
    return done.stdout.removesuffix("\n") if done.returncode == 0 else ""


def schemes() -> list[str]:
    return doveadm("-l").split() if DOVEADM is not None else []


MD5 = "5ebe2294ecd0e0f08eab7690d2a6ee69"  # of "secret"
SIX = "$6$abc$IdWKNKTJEb8LxY7CGg8YBXlvtfZzFw7Mp/r6niK9YB2mdvgY..TKjv1T..8RadRt2qvUHYRLr/TsVArtr91iR1"
YES = "$y$j9T$saltsaltsalt$AnbE4uovRUrp5W/7h65lVXbBxJijULPRqRjd39xI5w9"
LINES = (
    "# a comment",
    "",
    "plain:{PLAIN}secret",
    "small:{plain}secret",
    "clear:{CLEARTEXT}secret:1000:1000::/home/clear",
    f"bare6:{SIX}",
    f"crypt6:{{CRYPT}}{SIX}",
    f"other:{{SHA256-CRYPT}}{SIX}",
    f"yes:{{CRYPT}}{YES}",
    "bare1:$1$saltsalt$9xy1btjgzLYfb7hivXtC//",
    "more1:$1$saltsalt$9xy1btjgzLYfb7hivXtC//$ignored",
    f"pwdfile:{MD5}[34]",
    f"md5:{{MD5}}{MD5}",
    f"plainmd5:{{PLAIN-MD5}}{MD5}",
    "ldapmd5:{LDAP-MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==",
    "sha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
    "shahex:{SHA}e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4",
    "encoded:{PLAIN.b64}c2VjcmV0",
    "star:*",
    "bang:!",
    "bangs:!!",
    f"locked:{{SHA512-CRYPT}}!{SIX}",
    f"shadow:!{SIX}",
    "x:x",
    "empty:",
    "name",
    "nope:{NOPE}secret",
    "twice:{PLAIN}secret",
    "twice:{PLAIN}other",
    "first:*",
    "first:{PLAIN}secret",
    "left:{PLAIN}secret::::::nologin",
    "no:{PLAIN}secret::::::nologin=no",
    "away:{PLAIN}secret::::::userdb_mail=maildir:~/x nologin=y reason=gone",
    "near:{PLAIN}secret::::::allow_nets=127.0.0.0/8",
    "mapped:{PLAIN}secret::::::allow_nets=::ffff:127.0.0.1",
    "far:{PLAIN}secret::::::allow_nets=192.0.2.0/24,2001:db8::/32",
    "some:{PLAIN}secret::::::allow_nets=nowhere,127.0.0.1",
    "none:{PLAIN}secret::::::allow_nets=nowhere",
    "local:{PLAIN}secret::::::allow_nets=local",
    "both:{PLAIN}secret::::::allow_nets=127.0.0.0/8 allow_nets=192.0.2.0/24",
    "fails:{PLAIN}secret::::::fail=y",
    "noauth:{PLAIN}secret::::::noauthenticate",
    "later:{PLAIN}secret::::::delay_until=99999999999",
    "once:{PLAIN}secret::::::delay_until=1000",
    "nodelay:{PLAIN}secret::::::nodelay=y",
    "protected:{PLAIN}secret::::::nologin:protected=y",
    "removed:{PLAIN}secret::::::nologin nologin:remove",
    "shell:{PLAIN}secret:1:1::/home/shell:/usr/sbin/nologin:",
    "colons:{PLAIN}secret:1:1:gecos:/home/colons:/bin/sh:userdb_mail=maildir:~/x:LAYOUT=fs nologin",
    f"many:{MD5}[99]",
)


@dataclass(frozen=True)
class Login:
    """A line of the file, by its name, and whether its user gets in with the password ``secret``."""

    name: str
    line: str
    by_dovecot: bool
    by_pop3d: bool


def made(scheme: str) -> str:
    """A line whose secret `doveadm pw` makes."""
    name = f"by-{scheme.lower()}"
    return f"{name}:{doveadm('-s', scheme, '-u', name, '-p', 'secret')}"


AT_ONCE = """
auth_failure_delay = 0
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
"""


def all_lines() -> list[str]:
    """`LINES`, and one by each scheme of Dovecot's."""
    return [*LINES, *map(made, schemes())]


async def logins(lines: Iterable[str], end: str = "\n") -> list[Login]:
    """Who of the users in these lines logs in. ``end``: of each line."""
    lines = list(lines)
    by_name = {line.partition(":")[0]: line for line in reversed(lines) if line and not line.startswith("#")}
    with tempfile.TemporaryDirectory() as folder:  # below pytest's own, nobody but root gets anywhere
        path = Path(folder) / "users"
        path.write_text(end.join(lines))
        path.chmod(0o644)
        users = UsersFile(path)
        root, mail = Path(folder) / "dovecot", f"{folder}/mail/%u"
        with dovecot.serving(root, mail, passwd_file=path, extra=AT_ONCE) as port:
            theirs = {name for name in by_name if _by_dovecot(port, name)}
        try:
            ours = {name for name in by_name if await _by_pop3d(users, name)}
        finally:
            await users.close()
    return [Login(name, line, name in theirs, name in ours) for name, line in by_name.items()]


def _by_dovecot(port: int, name: str) -> bool:
    client = poplib.POP3("127.0.0.1", port, timeout=30)
    with contextlib.closing(client):
        try:
            client.user(name)
            client.pass_("secret")
        except poplib.error_proto:
            return False
        with contextlib.suppress(poplib.error_proto):  # that its mailbox is faulty is not the question
            client.quit()
        return True


async def _by_pop3d(users: UsersFile, name: str) -> bool:
    account = await users.authenticate(Password(name, "", b"secret"))
    if account is None or account.forbidden:
        return False
    return not account.networks or is_within("127.0.0.1", account.networks)


def table(found: Iterable[Login]) -> Table:
    """One line for each."""
    shown = Table("user", "line", "Dovecot", "pop3d")
    for one in found:
        style = None if one.by_dovecot == one.by_pop3d else "bold"
        words = ("in" if one.by_dovecot else "refused", "in" if one.by_pop3d else "refused")
        shown.add_row(one.name, _shortened(one.line), *words, style=style)
    return shown


def _shortened(line: str) -> str:
    about = line.partition(":")[2]
    return about if len(about) <= 48 else f"{about[:30]}...{about[-15:]}"
