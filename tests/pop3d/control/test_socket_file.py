import fcntl
import os
import socket
import stat
from pathlib import Path

import pytest

from pop3d.control import socket_file
from pop3d.control.socket_file import connected, make


def names(state: Path) -> list[str]:
    return sorted(path.name for path in state.iterdir())


def reached(state: Path) -> list[str]:
    found = connected(state)
    for _, sock in found:
        sock.close()
    return [name for name, _ in found]


def test_one_daemon(tmp_path: Path) -> None:
    assert reached(tmp_path) == []
    file = make(tmp_path)
    assert (file.name, file.others) == ("control.sock", 0)
    assert stat.S_IMODE((tmp_path / "control.sock").stat().st_mode) == 0o600
    assert reached(tmp_path) == ["control.sock"]
    file.listener.sock.close()
    file.remove()
    assert names(tmp_path) == []


def test_a_socket_of_a_dead_daemon_is_replaced(tmp_path: Path) -> None:
    dead = make(tmp_path)
    dead.listener.sock.close()
    assert reached(tmp_path) == []
    living = make(tmp_path)
    assert (living.name, living.others) == ("control.sock", 0)
    dead.remove()  # it is another's by now
    assert reached(tmp_path) == ["control.sock"]
    living.listener.sock.close()
    living.remove()


def test_daemons_that_share_a_folder_have_one_each(tmp_path: Path) -> None:
    one, two = make(tmp_path), make(tmp_path)
    three = make(tmp_path)
    assert [(file.name, file.others) for file in (one, two, three)] == [
        ("control.sock", 0), ("control-2.sock", 1), ("control-3.sock", 2),
    ]  # fmt: skip
    two.listener.sock.close()
    assert reached(tmp_path) == ["control.sock", "control-3.sock"]
    again = make(tmp_path)
    assert (again.name, again.others) == ("control-2.sock", 1)
    for file in (one, three, again):
        file.listener.sock.close()
        file.remove()
    os.close(two._folder)


def test_a_daemon_that_is_too_busy_to_accept_lives(tmp_path: Path) -> None:
    file = make(tmp_path)
    file.listener.sock.listen(0)
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for one in waiting:
        one.setblocking(False)
        one.connect_ex(str(tmp_path / "control.sock"))
    other = make(tmp_path)
    assert (other.name, other.others) == ("control-2.sock", 1)
    for one in (*waiting, file.listener.sock, other.listener.sock):
        one.close()
    file.remove()
    other.remove()


def test_what_is_no_socket_stays(tmp_path: Path) -> None:
    (tmp_path / "control.sock").write_text("mine")
    (tmp_path / "control-2.sock").symlink_to("/nowhere/else")
    file = make(tmp_path)
    assert file.name == "control-3.sock"
    file.listener.sock.close()
    file.remove()
    assert names(tmp_path) == ["control-2.sock", "control.sock"]


def test_a_path_that_is_too_long_for_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / ("x" * 120) / ("y" * 120)
    state.mkdir(parents=True)
    file = make(state)
    assert reached(state) == ["control.sock"]
    file.listener.sock.close()
    file.remove()
    monkeypatch.setattr(socket_file, "_DESCRIPTORS", "/nowhere")
    with pytest.raises(OSError, match="at most 107 octets; choose a shorter `state`"):
        make(state)


def test_folders_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError):
        make(tmp_path / "missing")
    monkeypatch.setattr(socket_file, "_LOCK_SECONDS", 0.02)
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        with pytest.raises(BlockingIOError, match="another process has locked it"):
            make(tmp_path)
    finally:
        os.close(folder)
    make(tmp_path).listener.sock.close()
