"""`pop3d check` and messages that another server has compressed."""

import pytest

from pop3d.commands import check_compressed
from tests.packed import PACKERS
from tests.pop3d.commands.findings import change, found, only
from tests.site import Site

pytestmark = pytest.mark.usefixtures("one_message")


def test_compressed_messages_are_told_of(site: Site) -> None:
    site.maildir("alice", {f"cur/{name}.host:2,SZ": pack(b"Subject: x\n\n") for name, pack in PACKERS.items()})
    text = only(
        site, "warning", "compressed: 1 by LZ4, 1 by bzip2, 1 by gzip, 1 by xz, 1 by zstd; they are sent unpacked"
    )
    assert text.startswith(f"{site.root}/mail: ")
    change(site, "[store]", '[store]\ncompressed = "refuse"')
    seen = found(site)
    assert [kind for kind, _ in seen] == ["warning"] * len(PACKERS)
    assert all('`compressed` in [store] is "refuse"' in text for _, text in seen)
    site.maildir("alice", {"new/9.host": b"CRYPTED\x03\x07" + bytes(50)})
    assert [kind for kind, _ in sorted(found(site))] == ["fault"] + ["warning"] * len(PACKERS)


def test_messages_that_cannot_be_unpacked_are_named(site: Site) -> None:
    whole = PACKERS["gzip"](b"Subject: x\n\n" + bytes(range(256)) * 1000)
    box = {f"cur/1{number}.host:2,S": whole[:-number] for number in range(1, 6)}
    site.maildir("alice", {**box, "new/9.host": b"CRYPTED\x03\x07" + bytes(50), ".hidden": whole[:-1]})
    (site.root / "mail/alice/cur/link").symlink_to(site.root / "mail/alice/new/9.host")
    seen = sorted(found(site))
    assert [kind for kind, _ in seen] == ["fault", "fault"]
    names = "'cur/11.host:2,S', 'cur/12.host:2,S', 'cur/13.host:2,S' and 2 more cannot be sent: "
    assert names + "its compressed octets (gzip) are truncated; restore the file from a backup" in seen[0][1]
    assert "'new/9.host' cannot be sent: it is encrypted by Dovecot (mail_crypt); `doveadm" in seen[1][1]


def test_not_all_is_unpacked_where_it_would_take_long(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    box = {f"cur/1{number}.host:2,S": PACKERS["xz"](b"Subject: x\n\n" + bytes(500_000)) for number in range(5)}
    site.maildir("alice", box)
    monkeypatch.setattr(check_compressed, "_CONTENT_MAX", 1_000_000)
    (compressed, rest) = (text for _, text in found(site))
    assert "compressed: 5 by xz" in compressed
    assert "more than 20000 files, or 1000000 octets" in rest
    monkeypatch.setattr(check_compressed, "_CONTENT_MAX", 10_000_000)
    only(site, "warning", "compressed: 5 by xz")
    monkeypatch.setattr(check_compressed, "_FILES_MAX", 3)
    assert len(found(site)) == 2
