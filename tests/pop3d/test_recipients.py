"""Where mail goes, and the kinds of faults that whoever brings it tells apart."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from pop3d.auth import Account
from pop3d.auth.user_limits import UserLimits
from pop3d.config import Config, load
from pop3d.recipients import DeliverLater, InMaildir, NoMailbox, recipient_of
from pop3d.stores.maildir.seen_mailboxes import SeenMailboxes
from pop3d.stores.quota import OverQuota, Quota
from tests.maildirs import files
from tests.pop3d.commands.small_site import small_site


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load(small_site(tmp_path) / "pop3d.toml")


def test_a_maildir_with_its_quota(config: Config, tmp_path: Path) -> None:
    found = recipient_of(config, Account("alice", limits=UserLimits(quota_octets=4)))
    deleted = str(tmp_path / "deleted/alice")
    assert found == InMaildir(str(tmp_path / "mail/alice"), deleted, Quota(4, 4))
    found.deliver([b"x", b"\n"])
    (name,) = files(tmp_path / "mail/alice")
    assert (tmp_path / "mail/alice" / name).read_bytes() == b"x\n"
    with pytest.raises(OverQuota, match=r"2 of 4 octets, and this message has 3"):
        found.deliver([b"xy\n"])
    assert len(files(tmp_path / "mail/alice")) == 1


def test_a_fault_of_the_disk_or_of_who_sends_is_for_later(config: Config, tmp_path: Path) -> None:
    def cut() -> Iterator[bytes]:
        yield b"Subject: half\n"
        raise OSError(errno.EIO, "Input/output error")

    found = recipient_of(config, Account("alice"))
    with pytest.raises(DeliverLater, match=r"^not delivered: Input/output error$"):
        found.deliver(cut())
    assert files(tmp_path / "mail/alice") == []
    (tmp_path / "mail/alice/new").rmdir()
    (tmp_path / "mail/alice/new").write_bytes(b"")
    with pytest.raises(DeliverLater, match=r"^not delivered: .*mail/alice: new/ is not a folder"):
        found.deliver([b"x\n"])


def test_a_mailbox_that_is_gone_is_not_made_anew(config: Config, tmp_path: Path) -> None:
    (tmp_path / "mail/alice/new").mkdir(parents=True)
    SeenMailboxes(config.state, config.store.path).check(str(tmp_path / "mail/alice"), there=True)
    (tmp_path / "mail/alice/new").rmdir()
    with pytest.raises(DeliverLater, match=r"cannot be used now: .* it was there before") as raised:
        recipient_of(config, Account("alice"))
    assert type(raised.value) is DeliverLater


def test_an_account_without_a_mailbox(tmp_path: Path) -> None:
    file = small_site(tmp_path) / "pop3d.toml"
    file.write_text(file.read_text().replace("mail/{user}", "mail/{domain}/{local}"))
    with pytest.raises(NoMailbox, match=r"^alice: "):
        recipient_of(load(file), Account("alice"))
