"""Every key of the configuration: accepted, refused as not yet supported, or unknown; all faults at once."""

from ipaddress import ip_network
from pathlib import Path

import pytest

import pop3d.config
from pop3d.config import Config, ConfigError, find, load

BASE = """
hostname = "mail.example.org"
[[listen]]
host = "127.0.0.1"
port = 995
[tls]
certificate = "cert.pem"
private_key = "key.pem"
"""

USERS_BY = "[auth]\nbackend = 'postgres'\n[auth.postgres]\nconninfo = "
MAIL_IN = "[store.postgres]\nconninfo = "
TOKENS = "[auth]\nmechanisms = ['xoauth2']"
OAUTH = "issuer = 'i'\naudience = 'a'\njwks = 'keys'"
ASKED = "introspection = 'https://h/'\nclient_id = 'x'\nclient_secret_file = 'f'"


def write(folder: Path, text: str) -> Path:
    path = folder / "pop3d.toml"
    path.write_text(text)
    return path


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(write(folder, text))
    return caught.value.faults


LMTP = BASE + "[[listen]]\nprotocol = 'lmtp'\n"


def test_lmtp_listens_within_this_machine(tmp_path: Path) -> None:
    listen = load(write(tmp_path, LMTP)).listen[1]
    assert (listen.host, listen.port, listen.tls) == ("127.0.0.1", 24, "none")
    config = load(write(tmp_path, f"{LMTP}path = 'lmtp'\ngroup = 'postfix'\n[lmtp]\nlocal_domains = ['A.example']"))
    listen = config.listen[1]
    assert (listen.path, listen.mode, listen.group) == (tmp_path / "lmtp", "0660", "postfix")
    assert config.lmtp.local_domains == ("a.example",)
    alone = "[[listen]]\nprotocol = 'lmtp'\nhost = '::1'\nport = 2003\n"  # needs no certificate
    assert load(write(tmp_path, alone)).has_lmtp


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LMTP + "host = '192.0.2.1'", "writes into every mailbox"),
        (LMTP + "tls = 'implicit'", "stays within one machine; remove `tls`"),
        (LMTP + "insecure = true", "stays within one machine"),
        (LMTP + "path = 'x'\nport = 24", "`port` is of TCP"),
        (LMTP + "mode = '0666'", "`mode` is of a Unix socket"),
        (LMTP + "path = 'x'\nmode = '0999'", "octal digits"),
        (BASE + "[[listen]]\npath = 'x'", "`path` is of a Unix socket, for protocol"),
        (BASE + "[lmtp]\nover_quota = 'later'", "add one, or remove the table"),
        (LMTP + "[lmtp]\nrecipient_delimiter = 'x'", "may stand in an address"),
        (LMTP + "[lmtp]\nlocal_domain = ['x']", "did you mean `local_domains`"),
        (LMTP + "[store]\nbackend = 'memory'", "delivers into a Maildir or PostgreSQL"),
        (LMTP + "[auth]\nbackend = 'pam'", "has to know who there is"),
        (LMTP + "[auth]\nbackend = 'dovecot'", "set `userdb_socket`"),
    ],
)
def test_what_lmtp_cannot_do_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (fault,) = faults(tmp_path, text)
    assert words.lower() in fault.lower()


def test_keys_that_are_not_given_have_defaults(tmp_path: Path) -> None:
    config = load(write(tmp_path, BASE))
    assert config.hostname == "mail.example.org"
    assert config.user is None
    assert config.state == tmp_path / "state"
    assert config.drain_timeout == 10
    (listen,) = config.listen
    assert (listen.host, listen.port, listen.tls) == ("127.0.0.1", 995, "implicit")
    assert config.tls is not None
    assert config.tls.certificate == tmp_path / "cert.pem"
    assert config.tls.minimum_version == "1.2"
    assert config.auth.users == tmp_path / "users"
    assert config.store.path == str(tmp_path / "mail/{user}")
    assert config.store.control == ""
    limits = config.limits
    assert (limits.connections, limits.connections_per_ip) == (10_000, 100)
    assert (limits.unauthenticated, limits.unauthenticated_per_ip) == (1_000, 50)
    assert (limits.handshake_timeout, limits.login_timeout) == (10, 45)
    assert (limits.write_timeout, limits.idle_timeout) == (60, 600)
    assert (limits.bad_commands, limits.max_auth_failures) == (20, 3)
    assert config.log.level == "info"


@pytest.mark.parametrize(
    ("line", "where", "value"),
    [
        ('user = "vmail"', "user", "vmail"),
        ('group = "#1000"', "group", "#1000"),
        ('state = "/var/lib/pop3d"', "state", Path("/var/lib/pop3d")),
        ("drain_timeout = 3", "drain_timeout", 3),
        ('loop = "asyncio"', "loop", "asyncio"),
    ],
)
def test_keys_at_the_top(tmp_path: Path, line: str, where: str, value: object) -> None:
    assert getattr(load(write(tmp_path, line + BASE)), where) == value


@pytest.mark.parametrize(
    ("table", "line", "value"),
    [
        ("auth", 'backend = "file"', "file"),
        ("auth", 'backend = "pam"', "pam"),
        ("auth", 'users = "/etc/pop3d/users"', Path("/etc/pop3d/users")),
        ("auth", 'mechanisms = ["apop", "scram-sha-256"]', ("apop", "scram-sha-256")),
        ("auth", 'trusted_networks = ["192.0.2.0/24"]', (ip_network("192.0.2.0/24"),)),
        ("store", 'backend = "memory"', "memory"),
        ("store", "utf8_downgrade = true", True),
        ("store", "sizes_in_names = true", True),
        ("store", "mark_seen = true", True),
        ("store", 'deleted = "/deleted/{user}"', "/deleted/{user}"),
        ("store", 'path = "/m/{domain}/{local}"', "/m/{domain}/{local}"),
        ("store", 'path = "{home}/Maildir"', "{home}/Maildir"),
        ("store", 'uidl = "courier"', "courier"),
        ("store", 'uidl = "dovecot:%v.%u"', "dovecot:%v.%u"),
        ("limits", "connections = 5", 5),
        ("limits", "connections_per_ip = 5", 5),
        ("limits", "unauthenticated = 5", 5),
        ("limits", "unauthenticated_per_ip = 5", 5),
        ("limits", "handshake_timeout = 5", 5),
        ("limits", "login_timeout = 5", 5),
        ("limits", "write_timeout = 5", 5),
        ("limits", "idle_timeout = 5", 5),
        ("limits", "bad_commands = 5", 5),
        ("limits", "max_auth_failures = 5", 5),
        ("log", 'format = "text"', "text"),
        ("log", 'format = "json"', "json"),
        ("log", 'level = "debug"', "debug"),
        ("log", 'file = ""', None),
        ("metrics", 'listen = "[::1]:9000"', "[::1]:9000"),
    ],
)
def test_keys_of_tables(tmp_path: Path, table: str, line: str, value: object) -> None:
    config = load(write(tmp_path, f"{BASE}\n[{table}]\n{line}\n"))
    assert getattr(getattr(config, table), line.split()[0]) == value


@pytest.mark.parametrize(
    ("path", "deleted"),
    [
        ("mail/{user}", "mail/{user}"),
        ("mail/{user}", "./mail//x/../{user}/"),
        ("mail/{user}", "mail/{local}@{domain}"),
        ("mail/{domain}/{local}", "mail/{domain}/{local}/."),
        ("{home}/Maildir", "{home}/Maildir"),
        ("mail/{user}", "mail/{user}/cur"),
        ("mail/{user}", "mail/{user}/cur/deleted"),
        ("mail/{user}", "mail/{user}/new"),
        ("deleted/{user}/tmp/x", "deleted/{user}"),
        ("mail/{user}", "BASE/mail/{user}"),
        ("BASE/mail/{user}", "mail/{user}"),
    ],
)
def test_deleted_messages_are_not_kept_in_the_mailbox(tmp_path: Path, path: str, deleted: str) -> None:
    store = f"[store]\npath = '{path}'\ndeleted = '{deleted}'\n".replace("BASE", str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, f"{BASE}\n{store}"))
    (line,) = caught.value.faults
    assert "`store.deleted`: it is the mailbox itself, or another user's" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("path", "deleted"),
    [
        ("mail/{user}", "deleted/{user}"),
        ("mail/{user}", "mail/{user}/.deleted"),
        ("mail/{user}", "mail/{user}/current"),
        ("mail/{domain}/{local}", "mail/{domain}/deleted/{local}"),
        ("{home}/Maildir", "deleted/{user}"),
        ("{home}/Maildir", "{home}/Deleted"),
        ("cur/{user}", "cur/{domain}/x/{user}"),
    ],
)
def test_deleted_messages_are_kept_elsewhere(tmp_path: Path, path: str, deleted: str) -> None:
    assert load(write(tmp_path, f"{BASE}\n[store]\npath = '{path}'\ndeleted = '{deleted}'\n")).store.deleted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[limits]\nconections = 5", "unknown key `limits.conections`; did you mean `connections`?"),
        ("[store]\npaht = 'x'", "unknown key `store.paht`; did you mean `path`?"),
        ("[storage]\npath = 'x'", "unknown key `storage`; did you mean `store`?"),
        ("[[listen]]\nprt = 1", "unknown key `listen.prt`; did you mean `port`?"),
        ("[auth]\nzzz = 1", "unknown key `auth.zzz`"),
        ("[limits]\nconnections = 0", "`limits.connections`"),
        ("[limits]\nauth_penalty = 5\nauth_penalty_max = 4", "`auth_penalty_max` is less than `auth_penalty`"),
        ("[limits]\nlogin_timeout = 'soon'", "`limits.login_timeout`"),
        ("[[listen]]\nport = 99999", "`listen.port`"),
        ("[[listen]]\nhost = '0.0.0.0'\ntls = 'none'", "in clear text"),
        ("[[listen]]\nproxy_protocol = true", "name the proxies that may"),
        ("[[listen]]\ntrusted_proxies = ['10.0.0.1/8']", "`listen.trusted_proxies`: a network is like"),
        ("[[listen]]\ntrusted_proxies = [5]", "`listen.trusted_proxies`: a network is like"),
        ("[auth]\ntrusted_networks = ['webmail']", "`auth.trusted_networks`: a network is like"),
        ("[auth]\ntrusted_networks = ['::/0']", "`auth.trusted_networks`: every address would be trusted"),
        ("[auth]\nmechanisms = []", "nobody could log in"),
        ("[auth]\nbackend = 'postgres'", "the table [auth.postgres] go together"),
        ("[auth.postgres]\nconninfo = 'dbname=x'", "the table [auth.postgres] go together"),
        (f"{USERS_BY}'dbname=x'\nquery = 'select 1'", "`auth.postgres.query`: the query has no %(user)s"),
        (f"{USERS_BY}'password=sesame dbnam=x'", "`auth.postgres.conninfo`: say it as libpq does"),
        (f"{USERS_BY}'dbname=x'\nqury = ''", "`auth.postgres.qury`; did you mean `query`?"),
        (f"{USERS_BY}'dbname=x'\ntimeout = 0", "`auth.postgres.timeout`: "),
        ("[store]\nbackend = 'postgres'", "the table [store.postgres] go together"),
        (f"[store]\nbackend = 'postgres'\nmark_seen = true\n{MAIL_IN}'dbname=x'", "`mark_seen` is of Maildir"),
        ("[auth]\nmechanisms = ['xoauth2']", "go with the table [auth.oauth]"),
        (f"[auth.oauth]\n{OAUTH}", "go with the table [auth.oauth]"),
        (
            f"[auth]\nbackend = 'oauth'\n[auth.oauth]\n{OAUTH}",
            'cannot serve plain; say mechanisms = ["oauthbearer", "xoauth2"]',
        ),
        (f"{TOKENS}\nbackend = 'oauth'\n[auth.oauth]\n{OAUTH}\n[store]\npath = '{{home}}'", "{home} comes from"),
        (
            "[auth]\nbackend = 'pam'\nmechanisms = ['plain', 'apop']",
            'cannot serve apop; say mechanisms = ["login", "plain"]',
        ),
        ("[auth]\nbackend = 'pam'\n[store]\npath = '{home}'", "{home} comes from the users file"),
        ("[auth]\nbackend = 'pam'\n[auth.pam]\nservise = 'x'", "`auth.pam.servise`; did you mean `service`?"),
        ("[auth]\nbackend = 'pam'\n[auth.pam]\nservice = '../x'", "`auth.pam.service`"),
        ("[auth.pam]\nservice = 'x'", '[auth.pam] is for backend = "pam"'),
        (f"{TOKENS}\n[auth.oauth]\nisuer = 'x'\n{OAUTH}", "`auth.oauth.isuer`; did you mean `issuer`?"),
        (f"{TOKENS}\n[auth.oauth]\nissuer = 'i'", "`auth.oauth`: tokens are checked by `jwks` or by `introspection`"),
        (f"{TOKENS}\n[auth.oauth]\n{OAUTH}\nintrospection = 'https://h/'", "give one of them"),
        (f"{TOKENS}\n[auth.oauth]\njwks = 'k'\nissuer = 'i'", "`issuer` and `audience` are needed"),
        (f"{TOKENS}\n[auth.oauth]\njwks = 'k'\naudience = 'a'", "`issuer` and `audience` are needed"),
        (f"{TOKENS}\n[auth.oauth]\n{ASKED}", "`audience` or `scope` is needed"),
        (f"{TOKENS}\n[auth.oauth]\nscope = 's'\nintrospection = 'https://h/'", "go together"),
        (f"{TOKENS}\n[auth.oauth]\nclient_id = 'x'\n{OAUTH}", "go together"),
        (f"{TOKENS}\n[auth.oauth]\nleeway_seconds = 301\n{OAUTH}", "`auth.oauth.leeway_seconds`"),
        (f"{TOKENS}\n[auth.oauth]\n{OAUTH.replace('keys', 'http://example.org/keys')}", "http:// is for loopback"),
        (f"{TOKENS}\n[auth.oauth]\n{OAUTH.replace('keys', 'file:///etc/keys')}", "use an https:// URL"),
        (f"{TOKENS}\n[auth.oauth]\n{OAUTH.replace('keys', 'https://u:p@h/keys')}", "use an https:// URL"),
        (f"{TOKENS}\n[auth.oauth]\n{OAUTH.replace('keys', 'https://h:port/keys')}", "use an https:// URL"),
        (f"{TOKENS}\n[auth.oauth]\nscope = 's'\n{ASKED.replace('https://h/', '/h')}", "use an https:// URL"),
        ("[store]\npath = 'mail'", "all users would share one mailbox"),
        ("[store]\nuidl = 'cyrus'", "`store.uidl`: 'cyrus' is none of"),
        ("[store]\nuidl = 'dovecot:%u%z'", "'%z': there is no variable 'z'"),
        ("[store]\nuidl = 'dovecot:%m'", "%m is of mbox"),
        ("[store]\ncontrol = 'c/{user}'", "`control` says where Dovecot has its lists"),
        ("[store]\nuidl = 'dovecot'\ncontrol = 'c'", "all users would share one mailbox"),
        ("[auth]\nbackend = 'pam'\n[store]\nuidl = 'dovecot'\ncontrol = '{home}'", "{home} comes from the users file"),
        ("[store]\npath = 'mail/{local}'", "users of two domains would share one mailbox"),
        ("[store]\npath = 'mail/{name}'", "unknown placeholder {name}"),
        ("[store]\npath = 'mail/{user'", "placeholders are"),
        ("[auth]\nmechanisms = ['external']", "name who signs them, `client_ca`"),
        ("[log]\nlevel = 'loud'", "`log.level`"),
    ],
)
def test_faults_name_the_key_and_the_way_out(tmp_path: Path, text: str, words: str) -> None:
    (fault,) = faults(tmp_path, f"{BASE}\n{text}\n")
    assert words in fault
    assert fault.startswith(str(tmp_path / "pop3d.toml"))


def test_all_faults_are_listed_at_once(tmp_path: Path) -> None:
    found = faults(tmp_path, "hostname = 'two words'\n[limits]\nconections = 1\n[metrics]\nlisten = ''\n")
    assert len(found) == 4
    for words in ("`hostname`", "`limits.conections`", "`metrics.listen`", "at least one [[listen]]"):
        assert any(words in fault for fault in found)


def test_tls_needs_a_certificate(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "[[listen]]\nport = 995\n")
    assert "[tls] is missing" in fault


def test_files_of_tls_are_beside_the_configuration(tmp_path: Path) -> None:
    more = 'certificate_rsa = "r.pem"\nprivate_key_rsa = "r.key"\nclient_ca = "ca.pem"\nclient_name = "dns"\n'
    more += '[[tls.sni]]\nhosts = ["A.example"]\ncertificate = "/a.pem"\nprivate_key = "a.key"\n'
    tls = load(write(tmp_path, BASE + more)).tls
    assert tls is not None
    assert tls.files == [
        tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "r.pem", tmp_path / "r.key",
        Path("/a.pem"), tmp_path / "a.key", tmp_path / "ca.pem",
    ]  # fmt: skip
    assert tls.client_name == "dns"
    assert tls.sni[0].hosts == ("a.example",)


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("", "*"),
        ("*", "*"),
        ("localhost", "localhost"),
    ],
)
def test_hosts_in_their_spellings(tmp_path: Path, written: str, host: str) -> None:
    listen = f'[[listen]]\nhost = "{written}"\ntls = "none"\ninsecure = true\n'
    metrics = f'[metrics]\nlisten = "{written if written in ("*", "localhost", "[::1]") else "[::1]"}:9195"\n'
    config = load(write(tmp_path, listen + metrics))
    assert config.listen[0].host == host
    assert config.metrics is not None and config.metrics.host == (host if written in ("*", "localhost") else "::1")


@pytest.mark.parametrize("host", ["[127.0.0.1", "[mail.example.org]", "::1::", "127.0.0.1:995"])
def test_hosts_that_are_none(tmp_path: Path, host: str) -> None:
    told = faults(tmp_path, f'[[listen]]\nhost = "{host}"\ntls = "none"\ninsecure = true\n')
    assert "`listen.host`: no such address; say one like" in told[0]


def test_listeners_behind_a_proxy(tmp_path: Path) -> None:
    networks = "trusted_proxies = ['127.0.0.1', '2001:db8::/32']"
    config = load(write(tmp_path, f"{BASE}\n[[listen]]\nproxy_protocol = true\n{networks}"))
    *_, listen = config.listen
    assert listen.proxy_protocol
    assert [str(network) for network in listen.trusted_proxies] == ["127.0.0.1/32", "2001:db8::/32"]


def test_keys_of_oauth_are_read_and_their_faults_told(tmp_path: Path) -> None:
    oauth = load(write(tmp_path, f"{BASE}{TOKENS}\n[auth.oauth]\n{OAUTH}")).auth.oauth
    assert oauth is not None
    assert (oauth.jwks, oauth.user_claim, oauth.leeway_seconds) == (str(tmp_path / "keys"), "email", 30)
    for url in ("https://example.org:8443/keys", "http://127.0.0.1:80/keys", "http://[::1]/keys"):
        oauth = load(write(tmp_path, f"{BASE}{TOKENS}\n[auth.oauth]\n{OAUTH.replace('keys', url)}")).auth.oauth
        assert oauth is not None
        assert oauth.jwks == url
    config = load(write(tmp_path, f"{BASE}{TOKENS}\nbackend = 'oauth'\n[auth.oauth]\nscope = 's'\n{ASKED}"))
    assert config.auth.oauth is not None
    assert config.auth.oauth.client_secret_file == tmp_path / "f"


def test_clear_text_is_for_loopback_or_the_insecure(tmp_path: Path) -> None:
    for lines in ('host = "127.0.0.1"', 'host = "::1"', 'host = "localhost"', 'host = "0.0.0.0"\ninsecure = true'):
        config = load(write(tmp_path, f'[[listen]]\ntls = "none"\n{lines}\n'))
        assert config.tls is None


@pytest.mark.parametrize("text", ["= 1", "a = ", "[listen", "\ufffe\x00"])
def test_what_is_no_toml_is_said_so(tmp_path: Path, text: str) -> None:
    (fault,) = faults(tmp_path, text)
    assert "not TOML" in fault


def test_octets_that_are_no_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "pop3d.toml"
    path.write_bytes(b'hostname = "\xff"')
    with pytest.raises(ConfigError, match="not TOML"):
        load(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--config"):
        load(tmp_path / "nowhere.toml")


def test_the_configuration_is_looked_for_in_two_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"looked for pop3d\.toml and /etc/pop3d/pop3d\.toml"):
        find(None)
    write(tmp_path, BASE)
    assert find(None) == Path("pop3d.toml")
    assert find(Path("x")) == Path("x")


def test_a_folder_with_braces_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "a{user}b{"
    folder.mkdir()
    path = load(write(folder, BASE)).store.path
    assert path.format(user="alice") == str(folder / "mail/alice")


def test_no_value_of_a_faulty_key_is_repeated(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, f"{BASE}\n[auth]\nusers = 5\nmechanisms = ['plain']\n")
    assert "users" in fault
    assert isinstance(Config.model_fields["auth"].default.users, Path)


class _Closed(type(Path())):  # type: ignore[misc]  # below a folder that this user may not look into
    def exists(self, *, follow_symlinks: bool = True) -> bool:
        raise PermissionError(13, "Permission denied")


def test_a_folder_that_one_may_not_look_into_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "pop3d.toml"
    there.touch()
    monkeypatch.setattr(pop3d.config, "PLACES", (_Closed("pop3d.toml"), there))
    assert pop3d.config.find(None) == there
