"""`pop3d check` and the users file: who cannot log in, or has no mailbox."""

from pathlib import Path

import pytest

from pop3d.auth.passwords import hashed
from pop3d.extras import install_line
from tests.pop3d.auth.test_hashing import customized
from tests.pop3d.auth.test_passwords import MADE_ELSEWHERE
from tests.pop3d.commands.findings import change, found, only
from tests.site import Site

pytestmark = pytest.mark.usefixtures("one_message")


def test_a_users_file_that_cannot_be_read(site: Site) -> None:
    users = site.root / "users"
    users.chmod(0o604)
    only(site, "fault", r"everybody on this machine gets at the secrets of users \(mode 0604\); chmod o= ")
    users.write_bytes(b"alice:{PLAIN}\xff\n")
    users.chmod(0o600)
    only(site, "fault", "not UTF-8")
    users.write_text("# nobody\n")
    only(site, "fault", "it has no users: nobody can log in, and mail waits; `pop3d user add NAME`")
    users.unlink()
    only(site, "fault", "No such file or directory; `pop3d user add NAME` makes it")


def test_faulty_lines_of_users_are_all_listed(site: Site) -> None:
    (site.root / "users").write_text(
        "alice:{PLAIN}secret\nbob:{NOPE}hidden\nalice:{PLAIN}hidden\nhidden\na b:{PLAIN}hidden\n"
        "carol's:{SHA512-CRYPT}$6$rounds=99999999$hidden$x\n"
    )
    seen = found(site)
    assert {kind for kind, _ in seen} == {"fault"}
    where = f"{site.root / 'users'} line "
    for (_, text), start, words in zip(
        seen,
        ("2: an unknown scheme", "3: the user 'alice' stands there twice", "4: a line is", "5: a user name", "6: what"),
        (
            "`pop3d user passwd bob`",
            "remove one of the two lines with an editor; `pop3d user remove` removes both",
            "or remove it",
            "or remove it",
            "`pop3d user passwd 'carol'\"'\"'s'`",
        ),
        strict=True,
    ):
        assert text.startswith(where + start), text
        assert words in text
        assert "hidden" not in text


def test_who_cannot_use_what_is_offered(site: Site) -> None:
    users = site.root / "users"
    users.write_text(f"alice:{{PLAIN}}x\nbob:{hashed('x')}\ncarol:{hashed('x', 'SCRAM-SHA-256')}\n")
    assert found(site) == []
    change(site, "[auth]", '[auth]\nmechanisms = ["plain", "scram-sha-256"]')
    text = only(site, "warning", r"line 2: the user 'bob' has \{ARGON2ID\}, which does not serve scram-sha-256;")
    assert text.endswith("`pop3d user passwd bob` stores what does")
    change(site, '"plain", "scram-sha-256"', '"scram-sha-256", "apop"')
    seen = found(site)
    assert [kind for kind, _ in seen] == ["fault", "warning"]
    assert "scram-sha-256, apop: no login is possible; `pop3d user passwd bob --scheme plain`" in seen[0][1]
    assert "the user 'carol' has {SCRAM-SHA-256}, which does not serve apop;" in seen[1][1]


def test_who_has_a_plain_secret_that_no_proof_can_be_made_of(site: Site) -> None:
    (site.root / "users").write_text("alice:{PLAIN}se\acret\n")
    assert found(site) == []
    change(site, "[auth]", '[auth]\nmechanisms = ["plain", "apop", "scram-sha-256"]')
    text = only(site, "warning", "line 1: the user 'alice' has a {PLAIN} secret that SASLprep")
    assert "does not serve apop, scram-sha-256; `pop3d user passwd alice --scheme plain` stores another" in text
    assert "cret" not in text.replace("secret", "")
    change(site, '"plain", "apop", "scram-sha-256"', '"scram-sha-256"')
    text = only(site, "fault", "line 1: the user 'alice'")
    assert "does not serve scram-sha-256: no login is possible; `pop3d user passwd alice` stores another" in text


def test_schemes_without_their_extra(site: Site, tmp_path: Path, run_pop3d, monkeypatch) -> None:
    (site.root / "users").write_text(f"alice:{MADE_ELSEWHERE[3]}\nbob:{MADE_ELSEWHERE[5]}\n")
    assert found(site) == []
    customized(tmp_path, monkeypatch, "import sys\nsys.modules['passlib'] = None\n")
    done = run_pop3d("check", "--config", str(site.config))
    assert done.returncode == 78
    assert "1 user (bob) of {SHA512-CRYPT} cannot log in; " + install_line("crypt") in done.stdout


def test_users_without_a_mailbox(site: Site) -> None:
    change(site, 'path = "mail/{user}"', 'path = "{home}/mail"')
    (site.root / "users").write_text("alice:{PLAIN}x\nbob:{PLAIN}x::::home/bob\ncarol:{PLAIN}x::::/nowhere/carol\n")
    seen = found(site)
    assert [kind for kind, _ in seen] == ["fault", "fault"]
    assert "line 1: the user 'alice' has no mailbox by `path`: the user has no home" in seen[0][1]
    assert "line 2: the home of 'bob' is no absolute path" in seen[1][1]


def test_a_user_whose_deleted_messages_are_kept_in_the_mailbox(site: Site) -> None:
    change(site, 'path = "mail/{user}"', f'path = "{{home}}/mail"\ndeleted = "{site.root}/homes/{{user}}/mail"')
    homes = [f"{name}:{{PLAIN}}x::::{site.root}/homes/{name}" for name in ("alice", "bob")]
    (site.root / "users").write_text(f"{homes[0]}\n{homes[1]}/inner\n")
    only(site, "fault", "line 1: `deleted` of the user 'alice' is the mailbox itself, so nothing can be deleted")


def test_locked_users_and_indented_lines_are_no_faults(site: Site) -> None:
    (site.root / "users").write_text("alice:{PLAIN}x\nbob:!$6$hidden\n  carol:{PLAIN}hidden\n")
    seen = found(site)
    assert [(kind, text.partition(" line ")[2]) for kind, text in seen] == [
        ("warning", "2: the user 'bob' is locked; nothing, if that is meant"),
        ("warning", "3: there are blanks before it, which Dovecot takes for a part of the name; remove them"),
    ]


def test_extra_fields_and_weak_secrets_are_counted(site: Site) -> None:
    (site.root / "users").write_text(
        "alice:{PLAIN}x\nu1:{PLAIN}x::::::nologin\nu2:{PLAIN}x::::::nologin userdb_mail=maildir:~/M\n"
        "u3:{PLAIN}x::::::allow_nets=10.0.0.0/8,nowhere\nu4:{PLAIN}x::::::proxy=y host=10.0.0.1\n"
        + "".join(f"w{n}:{{SHA}}nU4eI71bcnBGqeO0t9tXvY1u5oQ=\n" for n in range(5))
    )
    where = f"{site.root / 'users'}"
    assert [(kind, text.removeprefix(where).removeprefix(": ")) for kind, text in found(site)] == [
        ("fault", " line 4: allow_nets: 'nowhere' is no network; mend the field"),
        ("warning", "2 users (u1, u2) may not log in (nologin); nothing, if that is meant"),
        ("fault", "1 user (u4) cannot log in: proxy: the mailbox is on another server; remove the field"),
        (
            "warning",
            "1 user (u2) with the field userdb_mail, which has no effect: [store] says where the mailbox is; "
            "remove it, or ignore this",
        ),
        (
            "warning",
            "5 users (w0, w1, w2 ...) with a weak secret, {SHA1}; `pop3d user passwd NAME` stores a better one",
        ),
    ]
