"""Opening on the event loop what the kernel has in memory."""

import os
from pathlib import Path

from pop3d.stores.maildir import nowait


def test_open_cached_tells_no_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    with open(tmp_path / "file", "rb") as file:
        file.read()
        descriptor = nowait.open_cached(tmp_path / "file", os.O_RDONLY)
    if descriptor is not None:
        assert os.read(descriptor, 2) == b"x"
        assert not os.get_inheritable(descriptor)
        os.close(descriptor)
    assert nowait.open_cached(tmp_path / "nonesuch", os.O_RDONLY) is None
    assert nowait.open_cached(tmp_path / "link", os.O_RDONLY | os.O_NOFOLLOW) is None
    assert nowait.open_cached("file", os.O_RDONLY, -1) is None
