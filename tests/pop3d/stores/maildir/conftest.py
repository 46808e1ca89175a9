"""A mailbox with three messages, and a store of mailboxes."""

from pathlib import Path

import pytest

from pop3d.stores.maildir.store import MaildirStore
from tests.maildirs import make_maildir


@pytest.fixture
def box(tmp_path: Path) -> Path:
    return make_maildir(
        tmp_path / "mail" / "alice",
        {"new/3.three.host": b"three\n", "cur/1.one.host:2,S": b"one\n", "cur/2.two.host,S=4:2,": b"two\n"},
    )


@pytest.fixture
def store(tmp_path: Path) -> MaildirStore:
    return MaildirStore(str(tmp_path / "mail" / "{user}"), tmp_path / "state")
