"""`pop3d check` where somebody else is asked: the issuer of tokens, or PAM."""

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pop3d.extras import install_line
from tests.issuer import NAME, Issuer, key_set
from tests.pop3d.commands.findings import change, checked, found, only
from tests.site import Site

pytestmark = pytest.mark.usefixtures("one_message")


def tokens(site: Site, how: str, mechanisms: str = "") -> None:
    change(site, "[store]", f'[auth.oauth]\nissuer = "{NAME}"\naudience = "pop3"\n{how}\n[store]')
    change(site, 'users = "users"', mechanisms or 'users = "users"\nmechanisms = ["plain", "xoauth2"]')


def test_check_reads_the_keys_of_an_issuer(site: Site) -> None:
    tokens(site, 'jwks = "keys.json"')
    only(site, "fault", "keys.json: No such file or directory; name a readable file")
    (site.root / "keys.json").write_text('{"keys": []}')
    only(site, "fault", "keys.json: no key for RS256")
    (site.root / "keys.json").write_text(json.dumps(key_set()))
    assert found(site) == []
    (site.root / "users").write_text("alice:{NOPE}x\n")
    only(site, "fault", "users line 1: ")
    # without a users file
    change(site, 'users = "users"\nmechanisms = ["plain", "xoauth2"]', 'backend = "oauth"\nmechanisms = ["xoauth2"]')
    (site.root / "users").unlink()
    assert found(site) == []


def test_keys_of_an_issuer_that_is_asked(site: Site) -> None:
    issuer = Issuer()
    try:
        tokens(site, f'jwks = "{issuer.url}/keys"')
        assert found(site) == []
        assert issuer.asked == {"/keys": 1}
        issuer.status = 404
        only(site, "fault", "/keys answers with status 404")
    finally:
        issuer.close()


def test_our_secret_for_introspection(site: Site) -> None:
    secret = site.root / "secret"
    tokens(site, 'introspection = "https://127.0.0.1:9/"\nclient_id = "pop3d"\nclient_secret_file = "secret"')
    only(site, "fault", "secret: No such file or directory")
    secret.write_text(" \n")
    secret.chmod(0o600)
    only(site, "fault", "secret: empty, or not UTF-8")
    secret.write_text("hidden-secret\n")
    assert found(site) == []
    secret.chmod(0o644)
    assert "hidden-secret" not in only(site, "fault", "secret: .*our secret for introspection")


@pytest.fixture
def service() -> Iterator[Path]:
    if os.geteuid() != 0 or not Path("/etc/pam.d").is_dir():
        pytest.skip("writes a service for PAM: run as root, with libpam0g there")
    path = Path("/etc/pam.d") / f"pop3d-check-{os.getpid()}"
    yield path
    path.unlink(missing_ok=True)


def test_services_of_pam(open_site: Site, service: Path) -> None:
    def seen() -> list[str]:
        return [line for line in checked(open_site) if "pam" in line.lower() and sys.executable not in line]

    (open_site.root / "users").unlink()
    change(open_site, "[tls]", f'[auth]\nbackend = "pam"\n[auth.pam]\nservice = "{service.name}"\n[tls]')
    (none,) = seen()
    assert none.startswith(f"fault: {service}: there is no such service of PAM")
    service.write_text("auth required pam_permit.so\naccount required pam_permit.so\n")
    assert seen() == []
    service.chmod(0o600)
    (unreadable,) = seen()
    assert unreadable.startswith(f"fault: {service}: `user` cannot read it: Permission denied; chmod a+r")
    service.chmod(0o644)
    service.write_text("auth required pam_unix.so nullok\n")
    (unix,) = seen()
    assert unix.startswith(f"warning: {service}: pam_unix lets an ordinary user check no password but his own")
    service.write_text("# auth pam_unix.so\naccount required pam_unix.so\nauth required pam_permit.so\n")
    assert seen() == []


def test_pam_without_its_extra(site: Site, service: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service.write_text("auth required pam_permit.so\naccount required pam_permit.so\n")
    change(site, 'users = "users"', f'backend = "pam"\n[auth.pam]\nservice = "{service.name}"')
    assert found(site) == []
    monkeypatch.setitem(sys.modules, "pam", None)
    monkeypatch.delitem(sys.modules, "pop3d.auth.pam")
    only(site, "fault", re.escape(install_line("pam")))
