"""An mbox as a source: which messages it has, on each run."""

from pathlib import Path

import pytest

from pop3d.stores.arriving import SourceEnded, SourceUnusable
from pop3d.stores.mbox_source import MboxSource

ONE = b"From a Fri Jan  2 10:13:52 1970 +0000\nSubject: 1\nX-UIDL: %b\nStatus: %b\n\n1\n\n"


def test_messages_are_known_again_in_an_mbox_that_has_changed(tmp_path: Path) -> None:
    box = tmp_path / "box"
    box.write_bytes(ONE % (b"one", b"O") + ONE % (b"two", b"O"))
    found = list(MboxSource(box, x_uidl=True).messages(()))
    assert [message.uid for message in found] == [b"one", b"two"]
    assert {message.arrived for message in found} == {123_232 * 10**9}
    done = {message.key for message in found}
    assert len(done) == 2
    box.write_bytes(b"From b\nSubject: 2\n\n" + ONE % (b"one", b"RO") + ONE % (b"two", b"RO") + ONE % (b"three", b""))
    left = [b"".join(message.content())[:13] for message in MboxSource(box).messages(done)]
    assert left == [b"Subject: 2\n", b"Subject: 1\nX-"]
    assert [message.uid for message in MboxSource(box).messages(done)] == [None, None]


def test_internal_data_of_an_mbox_is_no_message(tmp_path: Path) -> None:
    internal = (
        b"From MAILER-DAEMON Fri Jan  5 10:00:00 2001\nSubject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\n"
        b"X-IMAP: 0978689999 0000000003\nStatus: RO\n\nnot a real message\n\n"
    )
    box = tmp_path / "box"
    box.write_bytes(internal + b"From a\nSubject: real\nX-IMAPbase: 1 1\n\nhello\n\n" + internal)
    source = MboxSource(box)
    # a copy of it further on is something that somebody has sent
    assert [b"".join(message.content())[:13] for message in source.messages(())] == [b"Subject: real", b"Subject: DON'"]
    assert source.remarks == [f"{box}: its first message is internal data of another server, and no mail"]
    assert source.progress == source.total == box.stat().st_size


def test_what_is_no_mbox(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"Subject: x\n")
    with pytest.raises(SourceUnusable, match="no mbox file: it does not begin"):
        MboxSource(tmp_path / "text")
    with pytest.raises(SourceUnusable, match="No such file"):
        MboxSource(tmp_path / "missing")
    with pytest.raises(SourceUnusable, match="not a regular file"):
        MboxSource(Path("/dev/null"))
    (tmp_path / "link").symlink_to(tmp_path / "text")
    with pytest.raises(SourceUnusable, match="link: a symbolic link; name the file that it leads to"):
        MboxSource(tmp_path / "link")
    (tmp_path / "empty").touch()
    assert list(MboxSource(tmp_path / "empty").messages(())) == []


def test_an_mbox_that_becomes_shorter_ends_there(tmp_path: Path) -> None:
    box = tmp_path / "box"
    box.write_bytes(ONE % (b"one", b"O") + b"more\n" * 20_000)
    messages = MboxSource(box).messages(())
    message = next(messages)
    box.write_bytes(ONE % (b"one", b"O"))
    with pytest.raises(SourceEnded, match="became shorter while it was read; stop what writes it, and import again"):
        list(message.content())
