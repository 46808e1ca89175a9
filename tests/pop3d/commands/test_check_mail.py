"""`pop3d check` and the Maildirs of the users: whether the daemon can open them, and whose they are."""

import os
import shutil

import pytest

from tests.pop3d.commands.findings import as_root, change, checked, found, only
from tests.site import Site

pytestmark = pytest.mark.usefixtures("one_message")


@pytest.mark.skipif(os.geteuid() != 0, reason="makes files of other users, which takes root")
def test_mailboxes_that_are_links(site: Site) -> None:
    with (site.root / "users").open("a") as users:
        users.write("bob:{PLAIN}x\ncarol:{PLAIN}x\n")
    (site.root / "mail/bob").symlink_to("alice")
    assert found(site) == []
    os.chown(site.root / "mail/bob", 60_001, 60_001, follow_symlinks=False)
    only(site, "fault", r"mail/bob: cannot be opened: the symbolic link 'bob' of user number 60001 leads to somebody")
    (site.root / "mail/bob").unlink()
    (site.root / "mail/carol").symlink_to("nowhere")
    only(site, "fault", "mail/carol: cannot be opened: No such file")


def test_no_mail_yet(site: Site) -> None:
    shutil.rmtree(site.root / "mail")
    only(site, "warning", "is not there, so all mailboxes are empty")
    (site.root / "mail").write_text("")
    only(site, "fault", "cannot be read: Not a directory")


def test_a_mailbox_that_cannot_be_opened(site: Site) -> None:
    shutil.rmtree(site.root / "mail/alice/new")
    (site.root / "mail/alice/new").write_text("")
    only(site, "fault", r"mail/alice: cannot be opened: .*new/ is not a folder of its own")


def test_a_mailbox_in_use_is_none_of_our_business(site: Site, daemon) -> None:
    import poplib

    client = poplib.POP3_SSL("localhost", site.port, context=site.context(), timeout=30)
    client.user("alice")
    client.pass_("secret")
    assert found(site) == []
    client.quit()


@as_root
def test_deleted_on_another_file_system(site: Site) -> None:
    change(site, "[store]", '[store]\ndeleted = "/proc/nowhere/{user}"')
    only(site, "fault", "`deleted` is on another file system than")
    change(site, "/proc/nowhere", "deleted")
    assert found(site) == []


@as_root
def test_mail_of_others_is_a_fault(open_site: Site) -> None:
    mail = open_site.root / "mail"
    os.chown(mail / "bob/new/1.host", 0, 0)
    os.chown(mail / "bob/cur", 54321, 0)
    assert checked(open_site) == [
        f"fault: {mail / 'bob'}: 2 files in it belong to another user, such as root; chown -R 12345 {mail / 'bob'}",
        "1 fault, no warnings",
    ]
    (mail / "alice").chmod(0)
    lines = checked(open_site)
    assert any(line.startswith(f"fault: {mail / 'alice'}: cannot be opened: ") for line in lines)
    mail.chmod(0o700)
    os.chown(mail, 0, 0)
    assert checked(open_site)[0].startswith(f"fault: {mail}: cannot be read: Permission denied; ")


@as_root
def test_what_is_kept_of_mailboxes_must_be_the_users(open_site: Site) -> None:
    keep = open_site.root / "state" / "keep"
    keep.mkdir(parents=True, mode=0o700)
    words = (
        f"fault: {keep}: `user` cannot read and write it, so a mailbox that is missing is not told from an empty one; "
    )
    assert [line for line in checked(open_site) if line.startswith(words)]
    shutil.rmtree(open_site.root / "mail" / "bob")
    assert [
        line for line in checked(open_site) if line.startswith(f"fault: {open_site.root / 'mail' / 'bob'}: whether")
    ]
    os.chown(keep, 12345, 12345)
    assert checked(open_site) == ["no faults, no warnings"]
    (open_site.root / "state").chmod(0o700)
    assert [line for line in checked(open_site) if line.startswith(words)]
