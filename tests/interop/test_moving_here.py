"""From the real Dovecot, and the real Courier, to pop3d: every message keeps its unique-id."""

import os
import poplib
import shutil
import subprocess
from pathlib import Path

import pytest

from pop3d.store_contract import ALICE, content
from pop3d.stores.maildir.store import MaildirOptions, MaildirStore
from tests.interop import dovecot
from tests.maildirs import make_maildir

COURIER = Path("/usr/lib/courier/courier/courierpop3d")
BOX = {
    "new/1700000001.M1P1.host": b"Subject: 1\n\nbody\n",
    "new/1700000002.M2P1.host,S=17,W=20": b"Subject: 2\n\nbody\n",
    "cur/1700000003.M3P1.host:2,S": b"Subject: 3\n\nbody\n",
}


def by_dovecot(port: int) -> dict[bytes, bytes]:
    """Unique-ids by content, as a client of Dovecot sees them."""
    client = poplib.POP3("127.0.0.1", port, timeout=20)
    client.user("alice")
    client.pass_("secret")
    uids = dict(line.split(b" ") for line in client.uidl()[1])
    texts = {b"\r\n".join(client.retr(int(number))[1]) + b"\r\n": uid for number, uid in uids.items()}
    client.quit()
    return texts


async def by_pop3d(folder: Path, uidl: str) -> dict[bytes, bytes]:
    store = MaildirStore(str(folder / "{user}"), None, MaildirOptions(uidl=uidl))  # type: ignore[arg-type]
    drop = await store.open(ALICE, utf8=False)
    try:
        return {await content(drop, number): uid for number, uid in enumerate(drop.messages.uids, 1)}
    finally:
        await drop.close()


def changed(box: Path) -> None:
    """What other programs do meanwhile: flags, a delivery, a message that goes."""
    for path in sorted((box / "cur").iterdir())[:2]:
        path.rename(path.with_name(f"{path.name.partition(':')[0]}:2,RS"))
    (box / "new" / "1700000009.M9P1.host").write_bytes(b"Subject: 9\n\nlate\n")


@pytest.mark.skipif(dovecot.missing() is not None, reason=str(dovecot.missing()))
async def test_from_dovecot(tmp_path: Path) -> None:
    box = make_maildir(tmp_path / "mail" / "alice", BOX)
    for path in (tmp_path / "mail").rglob("*"):
        shutil.chown(path, "nobody", "nogroup")
    with dovecot.serving(tmp_path / "dovecot", str(tmp_path / "mail" / "%u")) as port:
        before = by_dovecot(port)
        assert len(before) == 3
        changed(box)
        shutil.chown(box / "new" / "1700000009.M9P1.host", "nobody", "nogroup")
        later = by_dovecot(port)
    assert later.items() > before.items()
    assert await by_pop3d(tmp_path / "mail", "dovecot") == later
    changed(box)
    (box / "new" / "1800000000.M1P1.host").write_bytes(b"Subject: after\n\nx\n")
    after = await by_pop3d(tmp_path / "mail", "dovecot")
    assert after.items() > before.items()
    assert after[b"Subject: after\r\n\r\nx\r\n"] == b"1800000000.M1P1.host"


@pytest.mark.skipif(not COURIER.exists(), reason="Courier is not installed (Debian: apt install courier-pop)")
async def test_from_courier(tmp_path: Path) -> None:
    box = make_maildir(tmp_path / "alice", BOX)

    def by_courier() -> dict[bytes, bytes]:
        answers = subprocess.run(
            [COURIER, box],
            input=b"UIDL\r\nQUIT\r\n",
            capture_output=True,
            cwd=tmp_path,
            env={**os.environ, "AUTHENTICATED": "alice", "AUTHADDR": "alice", "HOME": str(tmp_path)},
            timeout=20,
        ).stdout
        uids = [
            line.split(b" ")[1] for line in answers.partition(b"\r\n+OK\r\n")[2].split(b"\r\n.\r\n")[0].split(b"\r\n")
        ]
        names = sorted((box / "cur").iterdir(), key=lambda path: path.name)
        return {path.read_bytes().replace(b"\n", b"\r\n"): uid for path, uid in zip(names, uids, strict=True)}

    before = by_courier()
    assert len(before) == 3
    assert all(uid.startswith(b"UID") for uid in before.values())
    assert await by_pop3d(tmp_path, "courier") == before
    changed(box)
    assert (await by_pop3d(tmp_path, "courier")).items() > before.items()
