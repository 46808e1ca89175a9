"""`pop3d check --print-config`: what it prints is what is in force, and can be loaded again."""

from pathlib import Path

import pytest

from pop3d.commands.print_config import printed
from pop3d.config import Config, load
from tests.pop3d.commands.small_site import run, small_site

PLAIN = '[[listen]]\nhost = "127.0.0.1"\nport = 0\ntls = "none"\n'
TLS = (
    '[[listen]]\n[[listen]]\nport = 110\ntls = "starttls"\n[tls]\ncertificate = "cert.pem"\nprivate_key = "key.pem"\n'
    '[[tls.sni]]\nhosts = ["a.example.org", "*.b.example.org"]\ncertificate = "a.pem"\nprivate_key = "a.key"\n'
)


def loaded(folder: Path, text: str) -> Config:
    path = folder / "pop3d.toml"
    path.write_text(text)
    return load(path)


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        TLS,
        PLAIN + '[auth]\ntrusted_networks = ["10.0.0.0/8"]\n[metrics]\n',
        PLAIN + '[auth]\nbackend = "dovecot"\n[auth.dovecot]\nuserdb_socket = "userdb"\n',
        PLAIN + '[store]\nbackend = "memory"\n',
        PLAIN + '[store]\nbackend = "postgres"\n[store.postgres]\nconninfo = "host=db dbname=mail"\n',
        PLAIN + '[store]\nbackend = "my.plugin:Store"\n',
        PLAIN + '[[listen]]\nprotocol = "lmtp"\nhost = "127.0.0.1"\nport = 24\ntls = "none"\n',
        PLAIN + '[store]\npath = "{home}/Mäil \\" \\\\ \\u0001"\nexpire = 30\ndeleted = "gone/{user}"\n',
    ],
)
def test_it_can_be_loaded_again(tmp_path: Path, text: str) -> None:
    config = loaded(tmp_path, text)
    (other := tmp_path / "elsewhere").mkdir()
    found, before = loaded(other, printed(config)).model_dump(), config.model_dump()
    if config.store.backend != "maildir":  # a path that is not in use is not printed as one that is
        found["store"]["path"] = before["store"]["path"]
    if config.store.postgres is not None:  # in another order
        found["store"]["postgres"]["conninfo"] = before["store"]["postgres"]["conninfo"]
    assert found == before


def test_what_is_not_the_default_is_marked(tmp_path: Path) -> None:
    text = printed(loaded(tmp_path, PLAIN + "[limits]\nconnections = 77\n[store]\nquota_octets = 0\n"))
    lines = text.splitlines()
    assert lines[0] == f'# in force by "{tmp_path}/pop3d.toml"'
    assert "connections = 77 # default: 10000" in lines
    assert 'tls = "none" # default: "implicit"' in lines
    assert "quota_octets = 0" in lines
    assert f'state = "{tmp_path}/state"' in lines
    assert f'path = "{tmp_path}/mail/{{user}}"' in lines
    assert "# retention_days is not set" in lines
    assert len([line for line in lines if "# default: " in line]) == 4  # host and port too


def test_secrets_are_masked(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    for conninfo in ("host=db password=hidden user=x", "postgresql://x:hidden@db/mail"):
        config = loaded(
            tmp_path, f'{PLAIN}[auth]\nbackend = "postgres"\n[auth.postgres]\nconninfo = "{conninfo}"\n'
            f'admin_conninfo = "{conninfo}"\n[store]\nbackend = "my.plugin:Store"\noptions = {{ token = "hidden" }}\n',
        )  # fmt: skip
        text = printed(config)
        assert "hidden" not in text
        assert text.count("password=***") == 2
        assert 'token = "***"' in text
        loaded(tmp_path, text)


def test_the_command(tmp_path: Path) -> None:
    code, said, errors = run(small_site(tmp_path), "check", "--print-config")
    assert (code, errors) == (0, "")
    assert 'deleted = "' in said
