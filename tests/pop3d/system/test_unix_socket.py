"""A Unix socket beside others, dead and living."""

import errno
import socket
from pathlib import Path

import pytest

from pop3d.system.unix_socket import UnixListener, is_stale


def test_it_has_its_mode_and_goes_with_its_server(tmp_path: Path) -> None:
    path = tmp_path / "lmtp"
    with (made := UnixListener.bound(path, 0o640)).sock:
        assert path.stat().st_mode & 0o777 == 0o640
        made.sock.listen()
        with pytest.raises(OSError) as caught:
            UnixListener.bound(path, 0o640)
        assert caught.value.errno == errno.EADDRINUSE
        made.remove()
    assert not path.exists()


def test_a_dead_socket_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "lmtp"
    assert not is_stale(path)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert is_stale(path)
    first = UnixListener.bound(path, 0o600)
    first.sock.close()
    with (second := UnixListener.bound(path, 0o600)).sock:
        first.remove()  # it is another's now
        assert path.exists()
        second.remove()
    path.write_text("a file")
    with pytest.raises(OSError) as caught:
        UnixListener.bound(path, 0o600)
    assert caught.value.errno == errno.ENOTSOCK
    assert path.read_text() == "a file"
    path.unlink()
    path.symlink_to(tmp_path / "target")
    with pytest.raises(OSError):
        UnixListener.bound(path, 0o600)
    assert not (tmp_path / "target").exists()
