"""pop3d with every mechanism a users file can serve, and STLS; pop3cli's session and poplib as clients."""

import asyncio
import base64
import contextlib
import hashlib
import os
import poplib
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pop3cli.errors import LoginRefused
from pop3cli.net.session import Session
from pop3cli.net.tls import client_context
from pop3core.sasl import login, plain, scram
from pop3d.assembly import assemble
from pop3d.auth.passwords import hashed
from pop3d.config import Config
from pop3d.net.certificates import create_self_signed
from pop3d.stores.maildir.store import MaildirStore
from tests.maildirs import make_maildir

MECHANISMS = ["plain", "login", "apop", "scram-sha-256", "scram-sha-256-plus"]


@contextlib.asynccontextmanager
async def serving(folder: Path, tls: str) -> AsyncIterator[int]:
    certificate, key = create_self_signed(["127.0.0.1"], folder)
    (folder / "users").write_text(f"alice:{{PLAIN}}s e c\nbob:{hashed('s e c', 'SCRAM-SHA-256')}\n")
    for user in ("alice", "bob"):
        make_maildir(folder / "mail" / user, {"new/1.host": b"Subject: x\n\nhello\n"})
    server = assemble(
        Config.model_validate(
            {
                "hostname": "localhost",
                "state": folder / "state",
                "listen": [{"host": "127.0.0.1", "port": 0, "tls": tls}],
                "tls": {"certificate": certificate, "private_key": key},
                "auth": {"users": folder / "users", "mechanisms": MECHANISMS},
                "store": {"path": str(folder / "mail" / "{user}")},
                "limits": {"connections": 100, "auth_penalty": 0},
            }
        )
    )
    assert isinstance(server.store, MaildirStore)
    await server.start()
    try:
        yield server.addresses[0][1]
    finally:
        await server.drain(1)


def end_point(certificate: Path) -> bytes:
    own = x509.load_pem_x509_certificate(certificate.read_bytes())
    return hashlib.sha256(own.public_bytes(Encoding.DER)).digest()


@pytest.mark.parametrize("user", ["alice", "bob"])
@pytest.mark.parametrize("tls", ["implicit", "starttls"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"])
async def test_each_mechanism_takes_the_right_password_alone(
    tmp_path: Path, tls: str, mechanism: str, user: str
) -> None:
    async with serving(tmp_path, tls) as port:
        for password in (b"wrong", b"s e c"):
            binding = end_point(tmp_path / "cert.pem") if mechanism.endswith("PLUS") else None
            steps = {
                "PLAIN": lambda password=password: plain.client(user, password),
                "LOGIN": lambda password=password: login.client(user, password),
            }.get(mechanism, lambda: scram.client(user, password, "nonce", channel_binding=binding))()  # noqa: B023
            async with Session() as session, asyncio.timeout(30):
                context = client_context(tmp_path / "cert.pem")
                await session.connect("127.0.0.1", port, tls=context, implicit=tls == "implicit", timeout=10)
                if tls == "starttls":
                    assert "STLS" in await session.capa()
                    assert "USER" not in session.capabilities
                    await session.starttls()
                assert mechanism in (await session.capa())["SASL"]
                if password == b"wrong":
                    with pytest.raises(LoginRefused):
                        await session.authenticate(mechanism, steps)
                    continue
                await session.authenticate(mechanism, steps)
                assert (await session.stat()).messages == 1
                await session.quit()


async def test_apop_and_stls_by_poplib(tmp_path: Path) -> None:
    def visit(port: int) -> None:
        context = ssl.create_default_context(cafile=tmp_path / "cert.pem")
        for name, good in (("alice", True), ("bob", False), ("nobody", False)):
            client = poplib.POP3("127.0.0.1", port, timeout=20)
            with pytest.raises(poplib.error_proto, match="STLS"):
                client.user("alice")
            client.stls(context)
            with contextlib.nullcontext() if good else pytest.raises(poplib.error_proto, match="AUTH"):
                client.apop(name, "s e c")
                assert client.stat()[0] == 1
            client.quit()

    async with serving(tmp_path, "starttls") as port:
        await asyncio.to_thread(visit, port)


async def test_an_unknown_user_gets_a_challenge_like_a_known_one(tmp_path: Path) -> None:
    async def challenge(port: int, name: str) -> dict[str, str]:
        context = ssl.create_default_context(cafile=tmp_path / "cert.pem")
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        await reader.readline()
        writer.write(b"AUTH SCRAM-SHA-256 " + base64.b64encode(b"n,,n=%b,r=abc" % name.encode()) + b"\r\n")
        line = (await reader.readline()).removeprefix(b"+ ")
        writer.close()
        await writer.wait_closed()
        return dict(part.split("=", 1) for part in base64.b64decode(line).decode().split(","))

    async with serving(tmp_path, "implicit") as port, asyncio.timeout(30):
        known, unknown, again = [await challenge(port, name) for name in ("alice", "nobody", "nobody")]
    assert unknown["s"] == again["s"]
    assert unknown["r"] != again["r"]
    assert known["i"] == unknown["i"]
    assert len(known["s"]) == len(unknown["s"])
    assert len(known["r"]) == len(unknown["r"])


async def test_pop3cli_by_stls_and_at_a_server_without_stls(tmp_path: Path) -> None:
    async def stat(folder: Path, port: int) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pop3cli", "stat", f"pop3://alice@127.0.0.1:{port}"),
            *("--cacert", str(folder / "cert.pem"), "--timeout", "20"),
            env={**os.environ, "POP3CLI_PASSWORD": "s e c"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        return process.returncode, said.decode()

    folders = tmp_path / "with", tmp_path / "without"
    for folder in folders:
        folder.mkdir()
    async with serving(folders[0], "starttls") as port:
        code, said = await stat(folders[0], port)
        assert (code, "1 message" in said) == (0, True), said
    async with serving(folders[1], "none") as port:
        code, said = await stat(folders[1], port)
    assert code == 77
    assert said.startswith(f"pop3cli: 127.0.0.1 port {port}: no TLS by STLS (STLS refused by")
    assert said.count("\n") == 1
