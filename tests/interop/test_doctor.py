"""The doctor at Dovecot: what it finds there is known, and stands here."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pop3d.net.certificates import create_self_signed
from tests.interop import dovecot

MAIL = (b"Subject: a\n\n.\n..\nend\n", b"Subject: b\n\n1\n2\n3\n4\n", b"Subject: c\n\n")

missing = dovecot.missing()


@pytest.mark.skipif(missing is not None, reason=missing or "")
@pytest.mark.parametrize("locked", [False, True], ids=["stock", "locking"])
def test_what_the_doctor_finds_at_dovecot(tmp_path: Path, locked: bool) -> None:
    maildir = tmp_path / "mail" / "alice"
    for folder in ("tmp", "cur", "new"):
        (maildir / folder).mkdir(parents=True)
    for number, content in enumerate(MAIL):
        (maildir / "new" / f"{number}.test").write_bytes(content)
    for path in (maildir.parent, *maildir.parent.rglob("*")):
        shutil.chown(path, "nobody", "nogroup")
    certificate, key = create_self_signed(["localhost", "127.0.0.1"], tmp_path)
    extra = "pop3_lock_session = yes" if locked else ""
    with dovecot.serving(
        tmp_path / "dovecot", str(tmp_path / "mail/%u"), certificate=certificate, key=key, extra=extra
    ) as port:
        found = asyncio.run(examined(port, certificate))
    wrong = {name: verdict for name, (verdict, _) in found.items() if verdict in ("warn", "fail")}
    # two sessions at once are Dovecot's default; arguments too many are never refused there
    assert wrong == {"arguments": "warn"} | ({} if locked else {"lock": "warn"}), found
    assert found["arguments"][1].startswith("STAT 1, NOOP 1, "), found["arguments"]


async def examined(port: int, certificate: Path) -> dict[str, tuple[str, str]]:
    program = [sys.executable, "-m", "pop3cli", "doctor", f"pop3s://alice@127.0.0.1:{port}", "--json", "--destructive"]
    environment = {**os.environ, "POP3CLI_PASSWORD": "secret"}
    process = await asyncio.create_subprocess_exec(
        *program, "--yes", "--cacert", str(certificate), env=environment, stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    return {one["id"]: (one["verdict"], one["seen"]) for one in json.loads(out)["examinations"]}
