"""The other event loop: a whole session, a reload and the orderly end on uvloop."""

import importlib.util
import poplib
import signal
import sys
from pathlib import Path

import pytest

from pop3d.config import ConfigError, load
from pop3d.extras import install_line
from tests.site import Daemon, Site


def configured(site: Site) -> None:
    site.config.write_text(f'loop = "uvloop"\n{site.config.read_text()}')


@pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="uvloop is missing: pip install uvloop")
def test_pop3d_on_uvloop(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    configured(site)
    monkeypatch.setattr(poplib, "_MAXLINE", 4_000_000)
    box = site.maildir("alice", {"new/1.host": b"x" * 3_000_000 + b"\n", "new/2.host": b"two\n"})
    daemon = Daemon(site)
    try:
        assert "uvloop" in Path(f"/proc/{daemon.process.pid}/maps").read_text()
        client = poplib.POP3_SSL("localhost", site.port, context=site.context(), timeout=20)
        client.user("alice")
        client.pass_("secret")
        assert client.retr(2)[1] == [b"two"]
        assert len(client.retr(1)[1][0]) == 3_000_000
        client.dele(2)
        client.quit()
        daemon.send(signal.SIGHUP)
        daemon.wait_for("users reloaded")
        idle = poplib.POP3_SSL("localhost", site.port, context=site.context(), timeout=20)
        daemon.send(signal.SIGTERM)
        assert idle.file.readline() == b"-ERR [SYS/TEMP] shutting down; closing\r\n"
        assert idle.file.readline() == b""
        idle.close()
    finally:
        assert daemon.end() == 0
    assert [path.name for path in box.glob("new/*")] == ["1.host"]


def test_uvloop_without_the_extra_says_what_to_install(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    configured(site)
    with pytest.raises(ConfigError) as caught:
        load(site.config)
    (fault,) = caught.value.faults
    assert fault.endswith(f"`loop`: uvloop is missing: {install_line('uvloop')}")
