"""A power cut, simulated on a file system of its own: what stands in its image at an instant is what a cut would leave.

Copying the image of a mounted ext4 takes what was written to its disk, and nothing of what the kernel still holds.
"""

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pop3cli.accounts.url import Settings, parse_account
from pop3cli.auth.oauth import PRESETS, OAuthClient, Tokens
from pop3cli.auth.token_store import StoredTokens, keep
from pop3d.store_contract import ALICE, content
from pop3d.stores.maildir.delivery import deliver
from pop3d.stores.maildir.store import MaildirStore
from tests.maildirs import make_maildir

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system takes root")

MESSAGES = {f"new/{number:02}.host": b"text %d\n" % number for number in range(1, 37)}


@contextlib.contextmanager
def mounted(image: Path) -> Iterator[Path]:
    folder = image.with_suffix(".mounted")
    folder.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-o", "loop", image, folder], capture_output=True).returncode:
        pytest.skip("no image can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(32 << 20)
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is missing: install e2fsprogs")
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    return image


async def left_by(cut: Path) -> dict[bytes, bytes]:
    """Unique-ids and texts of what is there when the power is back."""
    with mounted(cut) as disk:
        drop = await MaildirStore(str(disk / "{user}")).open(ALICE, utf8=False)
        found = {uid: await content(drop, number) for number, uid in enumerate(drop.messages.uids, 1)}
        await drop.close()
    return found


def expected(*numbers: int) -> dict[bytes, bytes]:
    return {b"%02d.host" % number: b"text %d\r\n" % number for number in numbers}


async def test_what_was_confirmed_stays_deleted_and_nothing_else_goes(image: Path, tmp_path: Path) -> None:
    with mounted(image) as disk:
        box = make_maildir(disk / "alice", MESSAGES)
        os.sync()
        drop = await MaildirStore(str(disk / "{user}")).open(ALICE, utf8=False)
        await drop.remove(range(1, 16))
        shutil.copyfile(image, tmp_path / "confirmed.img")  # here, QUIT is answered +OK
        await drop.close()
        os.unlink(box / "new/36.host")  # by somebody who does not sync
        shutil.copyfile(image, tmp_path / "not synced.img")
    assert await left_by(tmp_path / "confirmed.img") == expected(*range(16, 37))
    assert await left_by(tmp_path / "not synced.img") == expected(*range(16, 37))  # or the cut would not be one


async def test_a_cut_at_any_time_takes_nothing_that_was_not_marked(image: Path, tmp_path: Path) -> None:
    cuts: list[Path] = []

    async def cut_again_and_again() -> None:
        while True:
            cuts.append(tmp_path / f"cut{len(cuts)}.img")
            await asyncio.to_thread(shutil.copyfile, image, cuts[-1])

    with mounted(image) as disk:
        make_maildir(disk / "alice", MESSAGES)
        os.sync()
        store = MaildirStore(str(disk / "{user}"))
        cutting = asyncio.ensure_future(cut_again_and_again())
        for number in range(15):
            drop = await store.open(ALICE, utf8=False)
            await drop.remove([1])
            await drop.close()
            while len(cuts) <= number // 3:  # one begins with every third session at least
                await asyncio.sleep(0.01)
        cutting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await cutting
    left = [set(await left_by(cut)) for cut in cuts[:-1][:8]]  # the last may not be whole
    assert len(left) >= 4
    kept = set(expected(*range(16, 37)))
    assert all(kept <= found <= set(expected(*range(1, 37))) for found in left)
    assert all(later <= earlier for earlier, later in itertools.pairwise(left))  # nothing comes back


async def test_what_was_delivered_is_there_and_whole(image: Path, tmp_path: Path) -> None:
    with mounted(image) as disk:
        make_maildir(disk / "alice", {})
        os.sync()
        await asyncio.to_thread(deliver, str(disk / "alice"), [b"a text\n" * 5_000])
        shutil.copyfile(image, tmp_path / "delivered.img")
    assert list((await left_by(tmp_path / "delivered.img")).values()) == [b"a text\r\n" * 5_000]


def test_a_token_that_was_renewed_is_there(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = parse_account("pop3s://alice@mail.example.org")
    settings = Settings(title="work", oauth="google")
    provider, client = PRESETS["google"], OAuthClient("id", "scope")

    def refresh_token(home: Path) -> str:
        found = json.loads((home / "pop3cli/tokens/work.json").read_text())
        return str(found["tokens"]["refresh"])

    with mounted(image) as disk:
        monkeypatch.setenv("XDG_STATE_HOME", str(disk))
        keep("work", settings, StoredTokens(account.url, provider, client, Tokens("access", "old")))
        os.sync()
        keep("work", settings, StoredTokens(account.url, provider, client, Tokens("access", "rotated")))
        shutil.copyfile(image, tmp_path / "renewed.img")  # here, the provider takes the old one no more
    with mounted(tmp_path / "renewed.img") as disk:
        assert refresh_token(disk) == "rotated"
