"""What the real Dovecot compresses or encrypts in a Maildir: pop3d serves the same, octet for octet, or refuses it."""

import poplib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from pop3d.store_contract import ALICE, content
from pop3d.stores import StoreError
from pop3d.stores.maildir.compressed import HEAD, form_of
from pop3d.stores.maildir.store import MaildirOptions, MaildirStore
from tests.interop import dovecot

PLUGIN = Path("/usr/lib/dovecot/modules/lib20_zlib_plugin.so")
CRYPT = Path("/usr/lib/dovecot/modules/lib10_mail_crypt_plugin.so")
FORMS = {"gz": "gzip", "bz2": "bzip2", "zstd": "zstd", "lz4": "LZ4"}
"""By Dovecot's names and by ours; the xz of Debian's Dovecot only reads."""

pytestmark = [
    pytest.mark.skipif(dovecot.missing() is not None, reason=str(dovecot.missing())),
    pytest.mark.skipif(not PLUGIN.exists(), reason="Dovecot has no zlib plug-in"),
]

Seen = list[tuple[bytes, int, bytes]]
"""Unique-id, size and content of each message, by the unique-id."""


def mails() -> list[bytes]:
    random = Random(4)
    words = [bytes(random.choices(b"abcdefghij", k=random.randint(2, 9))) for _ in range(500)]
    text = b"\n".join(b" ".join(random.choices(words, k=12)) for _ in range(8_000))
    noise = random.randbytes(300_000).hex().encode()
    return [
        b"Subject: small\n\nbody\n",
        b"Subject: text\n\n" + text + b"\n",
        b"Subject: base64\n\n" + b"\n".join(noise[at : at + 76] for at in range(0, len(noise), 76)) + b"\n",
        b"Subject: zeros\n\n" + b"\n".join([b"A" * 76] * 20_000) + b"\n",
        b"Subject: CRLF\r\n\r\n.\r\n..dots\r\n",
        b"Subject: 8 bits\n\n" + (bytes(range(128, 256)) + b"\n") * 40,
    ]


def deliver(configuration: Path, mail: bytes) -> None:
    """By Dovecot itself, which is running."""
    done = subprocess.run(
        ["doveadm", "-c", configuration, "save", "-u", "alice"], input=mail, capture_output=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, b"")


def by_dovecot(port: int) -> Seen:
    client = poplib.POP3("127.0.0.1", port, timeout=20)
    client.user("alice")
    client.pass_("secret")
    sizes = [int(line.split()[1]) for line in client.list()[1]]
    uids = [line.split()[1] for line in client.uidl()[1]]
    texts = [b"".join(line + b"\r\n" for line in client.retr(number)[1]) for number in range(1, len(uids) + 1)]
    client.quit()
    return sorted(zip(uids, sizes, texts, strict=True))


async def by_pop3d(mail: Path, options: MaildirOptions) -> Seen:
    drop = await MaildirStore(str(mail / "{user}"), None, options).open(ALICE, utf8=False)
    try:
        texts = [await content(drop, number) for number in range(1, len(drop.messages) + 1)]
        return sorted(zip(drop.messages.uids, drop.messages.sizes, texts, strict=True))
    finally:
        await drop.close()


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that Dovecot's user reaches; another run of pytest closes the folders above `tmp_path`."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "mail").mkdir()
        shutil.chown(Path(folder) / "mail", "nobody", "nogroup")
        yield Path(folder)


@pytest.mark.parametrize("algorithm", FORMS)
async def test_dovecot_and_pop3d_serve_the_same_compressed_mailbox(algorithm: str, place: Path) -> None:
    mail = place / "mail"
    extra = f"mail_plugins = zlib\nplugin {{\n  zlib_save = {algorithm}\n}}\n"
    with dovecot.serving(place / "dovecot", f"{mail}/%u", extra=extra) as port:
        for text in mails():
            deliver(place / "dovecot" / "dovecot.conf", text)
        expected = by_dovecot(port)
    files = [path for folder in ("new", "cur") for path in (mail / "alice" / folder).iterdir()]
    assert {getattr(form_of(path.read_bytes()[:HEAD]), "name", None) for path in files} == {FORMS[algorithm]}
    assert len(expected) == len(mails())
    assert await by_pop3d(mail, MaildirOptions(uidl="dovecot")) == expected
    assert await by_pop3d(mail, MaildirOptions(uidl="dovecot", sizes_in_names=True)) == expected
    assert await by_pop3d(mail, MaildirOptions(uidl="dovecot", utf8_downgrade=True)) == expected


@pytest.mark.skipif(not CRYPT.exists(), reason="Dovecot has no mail_crypt plug-in")
async def test_what_dovecot_encrypts_is_refused(place: Path) -> None:
    mail, private, public = place / "mail", place / "private.pem", place / "public.pem"
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", private], check=True
    )
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    for key in (private, public):
        key.chmod(0o644)
    extra = f"""mail_plugins = zlib mail_crypt
plugin {{
  mail_crypt_global_private_key = <{private}
  mail_crypt_global_public_key = <{public}
  mail_crypt_save_version = 2
  zlib_save = gz
}}
"""
    with dovecot.serving(place / "dovecot", f"{mail}/%u", extra=extra) as port:
        deliver(place / "dovecot" / "dovecot.conf", mails()[0])
        expected = by_dovecot(port)
        ((uid, size, text),) = expected
        # as docs/running.md has it
        options = ["-o", "plugin/mail_crypt_save_version=0"]
        command = ["doveadm", "-c", place / "dovecot" / "dovecot.conf", *options]
        subprocess.run([*command, "backup", "-u", "alice", f"maildir:{mail}/unencrypted"], check=True, timeout=30)
    assert text == b"Subject: small\r\n\r\nbody\r\n"
    assert size == len(text)
    drop = await MaildirStore(str(mail / "{user}"), None, MaildirOptions(uidl="dovecot")).open(ALICE, utf8=False)
    assert list(drop.messages.uids) == [uid]
    with pytest.raises(StoreError, match="cannot read") as caught:
        await content(drop, 1)
    assert caught.value.code == "SYS/PERM"
    assert "mail_crypt" in caught.value.detail
    await drop.close()
    (mail / "alice").rename(mail / "encrypted")
    (mail / "unencrypted").rename(mail / "alice")
    assert await by_pop3d(mail, MaildirOptions(uidl="dovecot")) == expected
