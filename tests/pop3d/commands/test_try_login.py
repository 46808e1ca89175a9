"""`pop3d user test`: each step, and what the process ends with."""

import fcntl
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from pop3d.commands.try_login import try_login
from pop3d.errors import CommandError
from tests.issuer import AUDIENCE, NAME, key_set, token
from tests.pop3d.commands.small_site import run, small_site
from tests.postgres import execute

Try = Callable[..., tuple[int, dict[str, tuple[str, str]]]]

USERS = """# comment
alice:{PLAIN}secret
Bob@example.org:{PLAIN}secret::::::nologin
carol:{PLAIN}secret::::::allow_nets=192.0.2.0/24 require_tls login_delay=60
dave:{SHA256-CRYPT}!locked
erin:{NOPE}x
frank
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    small_site(tmp_path)
    (tmp_path / "users").write_text(USERS)
    return tmp_path


@pytest.fixture
def attempt(site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Try:
    """Exit status, and word and text of each step, by its name."""

    def attempt(name: str, secret: str = "secret", **options: object) -> tuple[int, dict[str, tuple[str, str]]]:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(secret.encode() + b"\n")))
        told = {"address": "", "clear": False, "password_stdin": True, **options}
        status = try_login(name, site / "pop3d.toml", **told)  # type: ignore[arg-type]
        lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        return status, {name: (word, text) for word, name, text in lines}

    return attempt


def configure(site: Path, old: str, new: str) -> None:
    text = (site / "pop3d.toml").read_text()
    assert old in text
    (site / "pop3d.toml").write_text(text.replace(old, new))


def test_a_login_that_works(site: Path) -> None:
    """As a process: nothing but the steps is shown."""
    new = site / "mail" / "alice" / "new"
    new.mkdir(parents=True)
    (new / "1.host").write_bytes(b"one\ntwo\n")
    code, said, errors = run(site, "user", "test", "alice", "--password-stdin", stdin=b"secret\n")
    assert (code, errors) == (0, "")
    *before, mailbox, lock, quota, login = said.splitlines()
    assert before == [
        "ok\tname\t'alice' is looked for as 'alice' (usernames = \"lower-domain\")",
        f"ok\tuser\t'alice' in the users file {site}/users, line 2",
        "ok\tsecret\tscheme PLAIN",
        "ok\tmechanisms\tcan serve: plain",
        "ok\tpassword\tright, of the user 'alice'",
        "ok\tpermitted\tnothing forbids this login",
    ]
    assert mailbox.startswith(f"ok\tmailbox\t{site}/mail/alice, opened as ")
    assert mailbox.endswith(": 1 messages, 10 octets")  # as they are sent
    assert (lock, quota) == ("ok\tlock\twas free", "-\tquota\t4 messages; a full mailbox can be read")
    assert login == "ok\tlogin\twould be let in"


def test_names(site: Path, attempt: Try) -> None:
    configure(site, "[store]", '[auth]\ndefault_domain = "Example.org"\n[store]')
    status, steps = attempt("Bob")
    assert steps["name"][1].startswith("'Bob' is looked for as 'Bob@example.org' (")
    assert steps["user"] == ("ok", f"'Bob@example.org' in the users file {site}/users, line 3")
    assert status == 77
    assert attempt("a/b") == (67, {"name": ("failed", '\'a/b@example.org\': a user name has no "/" and no ":"')})


def test_users_who_are_not_there(site: Path, attempt: Try) -> None:
    status, steps = attempt("nobody")
    assert (status, steps["user"]) == (67, ("failed", f"no such user in the users file {site}/users"))
    status, steps = attempt("erin")
    assert status == 77
    assert steps["secret"][0] == "failed"
    assert "an unknown scheme" in steps["secret"][1]
    (site / "users").write_text("al@EX.org:{PLAIN}x\nal@ex.org:{PLAIN}x\n")
    status, steps = attempt("al@Ex.org")
    assert status == 67
    assert "'al@EX.org' and 'al@ex.org'" in steps["user"][1]


def test_a_wrong_password(attempt: Try, site: Path) -> None:
    status, steps = attempt("alice", "wrong")
    assert status == 77
    assert steps["password"] == ("failed", "refused, as it is not the one that is stored")
    assert "mailbox" not in steps
    assert not (site / "state").exists() or not (site / "state" / "keep" / "known-users").exists()
    with pytest.raises(CommandError, match="the password has more than"):
        attempt("alice", "x" * 100_000)


def test_what_forbids_a_login(attempt: Try, site: Path) -> None:
    status, steps = attempt("bob@example.org")
    assert (status, steps["fields"], steps["permitted"]) == (77, ("-", "nologin"), ("failed", "nologin"))
    assert steps["password"][0] == "ok"
    status, steps = attempt("carol")
    assert status == 0
    assert steps["permitted"] == ("ok", "from 192.0.2.0/24 only (--from ADDRESS tests one), with TLS only")
    assert steps["delay"][1].startswith("60 seconds between two logins")
    assert attempt("carol", address="192.0.2.9")[0] == 0
    status, steps = attempt("carol", address="198.51.100.1")
    assert (status, steps["permitted"]) == (77, ("failed", "not from this network (192.0.2.0/24)"))
    status, steps = attempt("carol", clear=True)
    assert (status, steps["permitted"]) == (77, ("failed", "not without TLS (192.0.2.0/24)"))
    status, steps = attempt("dave")
    assert status == 77
    assert steps["mechanisms"] == ("failed", "can serve: none; cannot, by what is stored: plain")
    assert run(site, "user", "test", "carol", "--from", "x", "--password-stdin")[0] == 2


def test_mechanisms_by_what_is_stored(attempt: Try, site: Path) -> None:
    configure(site, "[store]", '[auth]\nmechanisms = ["plain", "apop", "scram-sha-256"]\n[store]')
    assert attempt("alice")[1]["mechanisms"] == ("ok", "can serve: plain, apop, scram-sha-256")
    (site / "users").write_text("alice:{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=\n")
    assert attempt("alice")[1]["mechanisms"] == (
        "ok",
        "can serve: plain; cannot, by what is stored: apop, scram-sha-256",
    )


def test_mailboxes_that_cannot_be_opened(attempt: Try, site: Path) -> None:
    box = site / "mail" / "alice"
    box.mkdir(parents=True)
    root = os.open(box, os.O_RDONLY)
    fcntl.flock(root, fcntl.LOCK_EX)
    try:
        status, steps = attempt("alice")
    finally:
        os.close(root)
    assert status == 75
    assert "the mailbox is in use by another session" in steps["mailbox"][1]
    assert steps["lock"] == ("-", "`pop3d mailbox` shows who holds it")
    (box / "new").write_text("in the way")
    status, steps = attempt("alice")
    assert (status, steps["mailbox"][0]) == (75, "failed")
    assert "new/ is not a folder of its own" in steps["mailbox"][1]


def test_a_token_of_an_issuer(attempt: Try, site: Path) -> None:
    (site / "keys.json").write_text(json.dumps(key_set()))
    configure(
        site, "[store]", f'[auth]\nbackend = "oauth"\nmechanisms = ["oauthbearer"]\n[auth.oauth]\nissuer = "{NAME}"\n'
        f'audience = "{AUDIENCE}"\njwks = "keys.json"\n[store]',
    )  # fmt: skip
    status, steps = attempt("alice", token())
    assert (status, steps["token"]) == (0, ("ok", "right, of the user 'alice'"))
    assert steps["user"] == ("-", 'backend "oauth" does not say who there is; it is asked when somebody logs in')
    status, steps = attempt("alice", "rubbish")
    assert status == 77
    assert steps["token"][1].startswith("refused: token of 'alice' refused: ")


def test_users_in_a_database(attempt: Try, site: Path, database: str) -> None:
    auth = f'[auth]\nbackend = "postgres"\n[auth.postgres]\nconninfo = "{database}"\n'
    configure(site, "[store]", f"{auth}[store]")
    execute(database, "insert into pop3_users values ('alice', '{PLAIN}secret', null)")
    status, steps = attempt("alice")
    assert (status, steps["user"]) == (0, ("ok", "'alice' in the database, by `query` of [auth.postgres]"))
    assert attempt("bob")[0] == 67
    configure(site, database, "host=/nowhere dbname=x")
    status, steps = attempt("alice")
    assert (status, steps["users"][0]) == (75, "failed")
