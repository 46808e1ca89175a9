"""What an administrator gets wrong, and what `pop3d check` says to that, word for word."""

# ruff: noqa: E501  (lines are as they are shown)

import os
from pathlib import Path

import pytest

from pop3d.commands.check import findings
from pop3d.net.certificates import create_self_signed

RIGHT = """hostname = "localhost"
ROOT
state = "state"

[[listen]]
host = "127.0.0.1"
port = 0

[tls]
certificate = "cert.pem"
private_key = "key.pem"

[auth]
users = "users"

[store]
path = "mail/{user}"
""".replace("ROOT", 'user = "root"' if os.geteuid() == 0 else "")
FAULTY_USERS = "alice:{PLAIN}x\nbob\ncarol:{NOPE}x\nalice:{PLAIN}y\ndave:secret\nd e:{PLAIN}x\n"

MISTAKES: list[tuple[str, str, list[str]]] = [
    ("[[listen]]", "[listen]", ["`listen`: write [[listen]], with two brackets: there may be several"]),
    ('[[listen]]\nhost = "127.0.0.1"\nport = 0\n', "", ["`listen` is missing; at least one [[listen]] is needed"]),
    ("port = 0", 'port = "995"', ["`listen.port`: a number is wanted, without quotes and without a unit"]),
    ("port = 0", "port = 99999", ["`listen.port`: it is too large; take at most 65535"]),
    ("port = 0", "port = 995.5", ["`listen.port`: a whole number is wanted"]),
    ("port = 0", "port = true", ["`listen.port`: a number is wanted, and not true or false"]),
    (
        'host = "127.0.0.1"',
        'tls = "none"',
        [
            '`listen`: tls = "none" off loopback would send passwords in clear text; use "implicit" or "starttls", or say insecure = true'
        ],
    ),
    ("port = 0", "port = 0\ntls = false", ['`listen.tls`: text is wanted; there are "implicit", "starttls", "none"']),
    (
        "port = 0",
        'port = 0\ntls = "ssl"',
        ['`listen.tls`: there is no "ssl"; there are "implicit", "starttls", "none"'],
    ),
    (
        "port = 0",
        'port = 0\ninsecure = "yes"',
        ["`listen.insecure`: true or false is wanted, in lower case and without quotes"],
    ),
    (
        "port = 0",
        "port = 0\ninsecure = 1",
        ["`listen.insecure`: true or false is wanted, in lower case and without quotes"],
    ),
    (
        '127.0.0.1"',
        '127.0.0.1:995"',
        [
            '`listen.host`: no such address; say one like "192.0.2.1" or "2001:db8::1", a name, or "*" for all of this machine'
        ],
    ),
    (
        '127.0.0.1"',
        '192.0.2.1"',
        [
            "[[listen]] number 1: cannot listen on 192.0.2.1 port 0: Cannot assign requested address; choose an address of this machine"
        ],
    ),
    (
        "port = 0",
        "port = 0\nproxy_protocol = true",
        [
            '`listen`: `proxy_protocol` lets a peer say whose connection it is; name the proxies that may: trusted_proxies = ["192.0.2.1/32"]'
        ],
    ),
    (
        "port = 0",
        'port = 0\ntrusted_proxies = ["proxy.example.org"]',
        [
            '`listen.trusted_proxies`: a network is like "10.0.0.0/8" or "2001:db8::/64", with no bit set behind the prefix; or an address'
        ],
    ),
    (
        'users = "users"',
        'mechanisms = ["plain", "cram-md5", "cram-md5"]',
        [
            '`auth.mechanisms`: there is no "cram-md5"; there are "plain", "login", "apop", "scram-sha-256", "scram-sha-256-plus", "external", "oauthbearer", "xoauth2"'
        ],
    ),
    (
        'users = "users"',
        'mechanisms = ["PLAIN"]',
        [
            '`auth.mechanisms`: there is no "PLAIN"; there are "plain", "login", "apop", "scram-sha-256", "scram-sha-256-plus", "external", "oauthbearer", "xoauth2"; did you mean "plain"?'
        ],
    ),
    ('users = "users"', 'mechanisms = "plain"', ['`auth.mechanisms`: it is a list; write it in brackets: ["plain"]']),
    ('users = "users"', "mechanisms = []", ['`auth.mechanisms`: nobody could log in; say mechanisms = ["plain"]']),
    (
        'users = "users"',
        'mechanisms = ["external"]',
        ["the mechanism external is a login by client certificate: name who signs them, `client_ca` in [tls]"],
    ),
    (
        'users = "users"',
        'mechanisms = ["oauthbearer"]',
        ["`auth`: the mechanisms oauthbearer and xoauth2 go with the table [auth.oauth]; give both, or none"],
    ),
    (
        'users = "users"',
        'backend = "ldap"',
        [
            "`auth.backend` = 'ldap': it is neither one of ours (file, pam, postgres, oauth, dovecot) nor a plug-in of an installed package (there are: none); take one of those, or install its package"
        ],
    ),
    (
        'users = "users"',
        'backend = "postgresql"',
        [
            "`auth.backend` = 'postgresql': it is neither one of ours (file, pam, postgres, oauth, dovecot) nor a plug-in of an installed package (there are: none); did you mean 'postgres'?"
        ],
    ),
    (
        'users = "users"',
        'backend = "postgres"',
        ['`auth`: `backend = "postgres"` and the table [auth.postgres] go together; give both, or none'],
    ),
    (
        'users = "users"',
        'backend = "pam"\nmechanisms = ["apop"]',
        ['`auth`: backend = "pam" cannot serve apop; say mechanisms = ["login", "plain"]'],
    ),
    (
        'users = "users"',
        'default_domain = "@example.org"',
        ['`auth.default_domain`: a domain without "@", such as "example.org"'],
    ),
    (
        'users = "users"',
        'trusted_networks = ["0.0.0.0/0"]',
        [
            "`auth.trusted_networks`: every address would be trusted; name those of the webmail, the fetcher or the proxy"
        ],
    ),
    (
        'users = "users"',
        'trusted_networks = "10.0.0.0/8"',
        ['`auth.trusted_networks`: it is a list; write it in brackets: ["192.0.2.1/32"]'],
    ),
    ("certificate =", "certifcate =", ["unknown key `tls.certifcate`; did you mean `certificate`?"]),
    ('private_key = "key.pem"\n', "", ["`tls.private_key` is missing; add private_key = ... to [tls]"]),
    ("[auth]", "[autth]", ["unknown key `autth`; did you mean `auth`?"]),
    ("[store]", "[limit]\nconnections = 3\n[store]", ["unknown key `limit`; did you mean `limits`?"]),
    (
        "[store]",
        "[log]\nmax_auth_failures = 3\n[store]",
        ["unknown key `log.max_auth_failures`; its place is below [limits]"],
    ),
    ("path =", "drain_timeout = 3\npath =", ["unknown key `store.drain_timeout`; its place is above the first table"]),
    ('[auth]\nusers = "users"', 'auth = "users"', ["unknown key `tls.auth`; it is a table: write [auth]"]),
    ("[store]", '[log]\nrotate = "daily"\n[store]', ["unknown key `log.rotate`; [log] has format, level, file"]),
    (
        "[store]",
        '[log]\nlevel = "INFO"\n[store]',
        ['`log.level`: there is no "INFO"; there are "debug", "info", "warning", "error"; did you mean "info"?'],
    ),
    (
        "[store]",
        "[metrics]\nlisten = 9195\n[store]",
        ['`metrics.listen`: text is wanted; write it in double quotes: "9195"'],
    ),
    ("hostname", "metrics = true\nhostname", ["`metrics`: it is a table; write [metrics] with its keys below"]),
    ('"localhost"', '"mail server"', ["`hostname`: a host name is at most 253 ASCII characters without blanks"]),
    ('"localhost"', "5", ['`hostname`: text is wanted; write it in double quotes: "5"']),
    (
        "hostname",
        'drain_timeout = "10s"\nhostname',
        ["`drain_timeout`: a number is wanted, without quotes and without a unit"],
    ),
    (
        "[store]",
        "[limits]\nconnections = 10000000\n[store]",
        ["`limits.connections`: it is too large; take at most 1000000"],
    ),
    (
        "[store]",
        "[limits]\nauth_penalty = 30\n[store]",
        ["`limits`: `auth_penalty_max` is less than `auth_penalty`, where penalties begin"],
    ),
    (
        "private_key",
        "minimum_version = 1.2\nprivate_key",
        ['`tls.minimum_version`: it stands without quotes; there are "1.2", "1.3"'],
    ),
    (
        "private_key",
        'minimum_version = "1.1"\nprivate_key',
        ['`tls.minimum_version`: there is no "1.1"; there are "1.2", "1.3"; did you mean "1.3"?'],
    ),
    (
        "[auth]",
        '[tls.sni]\nhosts = ["a.b"]\n[auth]',
        ["`tls.sni`: write [[tls.sni]], with two brackets: there may be several"],
    ),
    (
        '"localhost"',
        "localhost",
        [
            'not TOML: line 1, column 12: invalid value; text stands in double quotes, and `true` and `false` are in lower case: key = "text"'
        ],
    ),
    (
        '"localhost"',
        '"localhost',
        ["not TOML: line 1, column 22: a quotation mark is not closed; close it in the same line"],
    ),
    (
        "hostname",
        'hostname = "x"\nhostname',
        ["not TOML: line 2, column 23: this key stands there a second time; remove one of them"],
    ),
    (
        "[store]",
        "[auth]\n[store]",
        ["not TOML: line 16, column 6: this table stands there a second time; put the keys of both together"],
    ),
    ("[tls]", "[tls", ["not TOML: line 9, column 5: a bracket is not closed; write [table]"]),
    ("hostname =", "hostname:", ['not TOML: line 1, column 9: there is no = behind the key; write key = "text"']),
    (
        "port = 0",
        "port = 0\ninsecure = True",
        [
            'not TOML: line 8, column 12: invalid value; text stands in double quotes, and `true` and `false` are in lower case: key = "text"'
        ],
    ),
    (
        '"cert.pem"',
        '"C:\\certs\\cert.pem"',
        [
            "not TOML: line 10, column 20: unescaped '\\' in a string; double each backslash, or use single quotes: 'C:\\folder'"
        ],
    ),
    (
        "hostname",
        "; remark\nhostname",
        ['not TOML: line 1, column 1: invalid statement; a line is key = "text", [table] or # remark'],
    ),
    (
        '"cert.pem"\nprivate_key = "key.pem"',
        '"key.pem"\nprivate_key = "cert.pem"',
        [
            "certificate R/key.pem: it holds a private key; certificate and key are named the wrong way round: exchange the two",
            "private key R/cert.pem: it holds a certificate; certificate and key are named the wrong way round: exchange the two",
        ],
    ),
    (
        '"cert.pem"',
        '"nowhere.pem"',
        [
            "certificate R/nowhere.pem: No such file or directory; name the file that is there, or make one with `pop3d cert create --host NAME`"
        ],
    ),
    ('"cert.pem"', '"mail"', ["certificate R/mail: Is a directory; name the file in it"]),
    ('"cert.pem"', '"empty"', ["certificate R/empty: it is empty; put the right file there"]),
    (
        '"key.pem"',
        '"other.pem"',
        ["private key R/other.pem: does not belong to certificate R/cert.pem; give the right pair"],
    ),
    ('"users"', '"nowhere"', ["users file R/nowhere: No such file or directory; `pop3d user add NAME` makes it"]),
    ('"users"', '"mail"', ["users file R/mail: Is a directory; name the file in it"]),
    (
        '"users"',
        '"faulty"',
        [
            "R/faulty line 2: a line is name:{SCHEME}secret; mend the line, or remove it",
            "R/faulty line 3: an unknown scheme; use {ARGON2ID}, or another that the documentation lists; mend the line, or store another secret with `pop3d user passwd carol`",
            "R/faulty line 4: the user 'alice' stands there twice; line 1 counts; remove one of the two lines with an editor; `pop3d user remove` removes both",
            "R/faulty line 5: the secret has no scheme before it, such as {ARGON2ID}; mend the line, or store another secret with `pop3d user passwd dave`",
            "R/faulty line 6: a user name has no blanks and no control characters; mend the line, or remove it",
        ],
    ),
    (
        "mail/{user}",
        "mail/%u",
        [
            "`store.path`: all users would share one mailbox; use {user}, {local} or {home} in it; {user} stands for Dovecot's %u"
        ],
    ),
    (
        "mail/{user}",
        "mail/{name}",
        ["`store.path`: unknown placeholder {name}; there are {user}, {local}, {domain}, {home}"],
    ),
    (
        "mail/{user}",
        "mail/{local}",
        ["`store.path`: users of two domains would share one mailbox; use {domain} beside {local}, or {user}"],
    ),
    (
        "mail/{user}",
        "~/{user}",
        ['`store.path`: "~" means nothing here; use {home}, which comes from the users file, or a path with {user}'],
    ),
    (
        'path = "mail/{user}"',
        'backend = "Maildir"',
        [
            "`store.backend` = 'Maildir': it is neither one of ours (maildir, memory, postgres) nor a plug-in of an installed package (there are: none); did you mean 'maildir'?"
        ],
    ),
    (
        'mail/{user}"',
        'mail/{user}"\nquota_octets = "10M"',
        ["`store.quota_octets`: a number is wanted, without quotes and without a unit"],
    ),
    (
        'mail/{user}"',
        'mail/{user}"\nexpire = "30d"',
        ['`store.expire`: say "never", or days as a whole number up to 36500: expire = 30'],
    ),
    (
        'mail/{user}"',
        'mail/{user}"\nexpire = false',
        ['`store.expire`: say "never", or days as a whole number up to 36500: expire = 30'],
    ),
    (
        'mail/{user}"',
        'mail/{user}"\nretention_days = 3',
        ['`store`: `retention_days` is for `deleted`, such as "deleted/{user}", which is not set'],
    ),
    (
        'mail/{user}"',
        'mail/{user}"\ndeleted = "mail/{user}"',
        [
            '`store.deleted`: it is the mailbox itself, or another user\'s: messages would be deleted where they are kept; take a folder of its own, such as "deleted/{user}"'
        ],
    ),
    (
        'mail/{user}"',
        'mail/{user}"\nuidl = "dovecott"',
        ['`store.uidl`: \'dovecott\' is none of "filename", "dovecot", "dovecot:FORMAT" and "courier"'],
    ),
    (
        '"state"',
        '"users"',
        [
            "state folder R/users: cannot be written to: Not a directory; make it a folder that can be written to, or set another `state`; nothing is cached or remembered"
        ],
    ),
    # what does no harm
    ("hostname", "\ufeffhostname", []),
    ("host = ", "\thost = ", []),
    ("\n", "\r\n", []),
]
"""What stands there, what somebody writes in its place, and what is said of that; R: the folder, whose file it is."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mistakes")
    create_self_signed(["localhost"], root)
    create_self_signed(["localhost"], root / "another")
    (root / "another/key.pem").rename(root / "other.pem")
    for name, text in (("users", "alice:{PLAIN}secret\n"), ("faulty", FAULTY_USERS), ("empty", "")):
        (root / name).write_text(text)
        (root / name).chmod(0o600)
    for name in ("tmp", "new", "cur"):
        (root / "mail/alice" / name).mkdir(parents=True)
    return root


def said(config: Path) -> list[str]:
    lines = [("" if one.fault else "warning: ") + one.text for one in findings(config)]
    told = [line.replace(f"{config}: ", "").replace(str(config.parent), "R") for line in lines]
    return [line for line in told if not line.startswith("warning: `user`: root")]


@pytest.mark.parametrize(("right", "wrong", "lines"), MISTAKES)
def test_a_mistake_is_told_so_that_it_can_be_mended(folder: Path, right: str, wrong: str, lines: list[str]) -> None:
    config = folder / "pop3d.toml"
    assert right in RIGHT
    text = RIGHT.replace(right, wrong) if right == "\n" else RIGHT.replace(right, wrong, 1)
    config.write_bytes(text.encode())
    assert said(config) == lines


@pytest.mark.parametrize(
    ("octets", "line"),
    [
        (b"# b\xfccher\n", "not TOML: line 1 has an octet that is not UTF-8; save the file as UTF-8"),
        (RIGHT.encode("utf-16"), "not TOML: it is UTF-16; save it as UTF-8"),
        (b"", "`listen` is missing; at least one [[listen]] is needed"),
    ],
)
def test_a_file_that_is_no_text_of_ours(folder: Path, octets: bytes, line: str) -> None:
    (folder / "pop3d.toml").write_bytes(octets)
    assert said(folder / "pop3d.toml") == [line]
