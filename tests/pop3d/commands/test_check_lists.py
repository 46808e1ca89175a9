"""`pop3d check` and another server's lists of unique-ids."""

import os

import pytest

from pop3d.stores.maildir.seen_mailboxes import SeenMailboxes
from tests.pop3d.commands.findings import change, found, only
from tests.site import Site

LIST = b"3 V1600000000 N9\n1 :1.host\n"

pytestmark = pytest.mark.usefixtures("one_message")


@pytest.fixture
def from_dovecot(site: Site) -> Site:
    change(site, "[store]", '[store]\nuidl = "dovecot:%v.%u"')
    site.maildir("alice", {"new/1.host": b"x\n"})
    (site.root / "mail/alice/dovecot-uidlist").write_bytes(LIST)
    return site


def test_a_list_as_it_should_be_is_nothing(from_dovecot: Site) -> None:
    assert found(from_dovecot) == []


def test_a_damaged_list_is_told_once(from_dovecot: Site) -> None:
    path = from_dovecot.root / "mail/alice/dovecot-uidlist"
    path.write_bytes(LIST[:-3])
    os.utime(path, (1_600_000_000, 1_600_000_000))
    text = only(from_dovecot, "warning", "dovecot-uidlist is damaged: the last line is not complete; unique-ids")
    assert text.startswith(f"{from_dovecot.root}/mail/alice: ")


def test_a_list_that_cannot_be_read_is_a_fault(from_dovecot: Site) -> None:
    path = from_dovecot.root / "mail/alice/dovecot-uidlist"
    path.unlink()
    path.mkdir()
    only(from_dovecot, "fault", "dovecot-uidlist is no regular file; give it")


def test_a_list_that_is_gone(from_dovecot: Site) -> None:
    root = from_dovecot.root
    (root / "mail/alice/dovecot-uidlist").unlink()
    only(from_dovecot, "warning", "no mailbox has a dovecot-uidlist, so all unique-ids are those of file names; look")
    SeenMailboxes(root / "state", str(root / "mail/{user}")).note_list(str(root / "mail/alice"))
    texts = sorted(text for _, text in found(from_dovecot))
    assert len(texts) == 2
    assert "dovecot-uidlist was there before and is missing; unique-ids that clients were told stay" in texts[0]


def test_a_list_where_control_says(from_dovecot: Site) -> None:
    change(from_dovecot, "[store]\n", '[store]\ncontrol = "control/{user}"\n')
    only(from_dovecot, "warning", "no mailbox has a dovecot-uidlist")
    folder = from_dovecot.root / "control/alice/.INBOX"
    folder.mkdir(parents=True)
    (from_dovecot.root / "mail/alice/dovecot-uidlist").rename(folder / "dovecot-uidlist")
    assert found(from_dovecot) == []
