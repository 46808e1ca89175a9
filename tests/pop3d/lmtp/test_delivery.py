"""Deliveries that fail, and deliveries into PostgreSQL: a server in this process, and a client in a thread."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pop3d.assembly import assemble
from pop3d.auth import Account
from pop3d.auth.users_file import add_user
from pop3d.config import Config, load
from pop3d.lmtp import delivery
from pop3d.observe.metrics import Metrics
from tests.lmtp import LmtpClient

MESSAGE = b"Subject: hello\r\nMessage-ID: <1@example.net>\r\n\r\none\r\n"
LISTEN = "[[listen]]\nprotocol = 'lmtp'\npath = 'lmtp.sock'\n"


def counted(metrics: Metrics) -> dict[str, float]:
    """Recipients by outcome, those there were."""
    (family,) = [one for one in metrics.registry.collect() if one.name == "pop3d_deliveries"]
    return {sample.labels["outcome"]: sample.value for sample in family.samples if sample.value}


def served(folder: Path, text: str, says: Callable[[LmtpClient], None]) -> Metrics:
    """What ``says`` does with a client of a server by that configuration."""
    (folder / "pop3d.toml").write_text(text)
    config = load(folder / "pop3d.toml")
    config.state.mkdir(exist_ok=True)
    metrics = Metrics()

    def talk() -> None:
        with LmtpClient(folder / "lmtp.sock") as client:
            says(client)

    async def run() -> None:
        server = assemble(config, metrics)
        await server.start()
        try:
            await asyncio.to_thread(talk)
        finally:
            await server.drain(5)

    asyncio.run(run())
    return metrics


def test_users_and_mail_in_postgresql(database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("insert into pop3_users (name, password) values ('alice', '{PLAIN}x')")

        def says(client: LmtpClient) -> None:
            assert client.handed_over(MESSAGE, "alice+lists", "bob") == ["250 2.0.0", "550 5.1.1"]
            assert client.handed_over(MESSAGE + b"x" * 5000 + b"\r\n", "alice") == ["452 4.2.2"]
            owner.execute("drop table pop3_messages cascade")
            assert client.handed_over(MESSAGE, "alice") == ["451 4.3.0"]
            owner.execute("drop table pop3_users cascade")
            assert client.handed_over(MESSAGE, "alice") == ["451 4.3.0"]

        tables = f"backend = 'postgres'\n[{{0}}.postgres]\nconninfo = '{database}'\n"
        text = f"{LISTEN}[auth]\n{tables.format('auth')}[store]\nquota_octets = 4000\n{tables.format('store')}"
        (tmp_path / "seen").mkdir()
        with caplog.at_level(logging.INFO, "pop3d"):
            metrics = served(tmp_path, text, says)
    assert counted(metrics) == {"delivered": 1, "unknown_user": 1, "over_quota": 1, "unavailable": 2}
    assert 'reply="451 4.3.0"' in caplog.text
    assert "message_id=<1@example.net>" in caplog.text


def test_what_is_stored_in_postgresql(database: str, tmp_path: Path) -> None:
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("insert into pop3_users (name, password) values ('alice', '{PLAIN}x')")
        tables = f"backend = 'postgres'\n[{{0}}.postgres]\nconninfo = '{database}'\n"
        text = f"{LISTEN}[auth]\n{tables.format('auth')}[store]\n{tables.format('store')}"
        served(tmp_path, text, lambda client: client.handed_over(MESSAGE + b"\r\r\n", "alice") and None)
        row = owner.execute("select mailbox, content, octets from pop3_messages").fetchone()
    assert row is not None
    assert row[0] == "alice"
    assert row[1].startswith(b"Return-Path: <bob@example.net>\r\nDelivered-To: alice\r\nReceived: from")
    assert row[1].endswith(MESSAGE + b"\r\r\n")
    assert row[2] == len(row[1])


@pytest.fixture
def maildirs(tmp_path: Path) -> str:
    add_user(tmp_path / "users", "alice", "secret", scheme="PLAIN")
    add_user(tmp_path / "users", "bob", "secret", scheme="PLAIN")
    return LISTEN


def test_a_fault_of_ours_is_an_answer_too(
    maildirs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = delivery.recipient_of

    def faulty(config: Config, account: Account, **options: Any) -> object:
        if account.name == "alice":
            raise ZeroDivisionError("planted")
        return real(config, account, **options)

    monkeypatch.setattr(delivery, "recipient_of", faulty)

    def says(client: LmtpClient) -> None:
        assert client.handed_over(MESSAGE, "alice", "bob") == ["451 4.3.0", "250 2.0.0"]
        assert client.handed_over(MESSAGE, "bob") == ["250 2.0.0"]

    metrics = served(tmp_path, maildirs, says)
    assert counted(metrics) == {"delivered": 2, "unavailable": 1}
    assert "ZeroDivisionError: planted" in caplog.text


def test_a_message_that_cannot_be_kept_on_its_way_comes_again(maildirs: str, tmp_path: Path) -> None:
    large = MESSAGE + (b"y" * 98 + b"\r\n") * 10_000

    def says(client: LmtpClient) -> None:
        (tmp_path / "state").rename(tmp_path / "gone")
        assert client.handed_over(large, "alice", "bob") == ["452 4.3.1", "452 4.3.1"]
        assert client.handed_over(MESSAGE, "bob") == ["250 2.0.0"]  # small ones need no file
        (tmp_path / "gone").rename(tmp_path / "state")
        assert client.handed_over(large, "bob") == ["250 2.0.0"]

    assert counted(served(tmp_path, maildirs, says)) == {"over_quota": 2, "delivered": 2}
    assert [path.name for path in (tmp_path / "state").iterdir() if path.is_file()] == []


def test_a_users_file_without_users_is_for_later(maildirs: str, tmp_path: Path) -> None:
    (tmp_path / "users").write_text("")

    def says(client: LmtpClient) -> None:
        assert client.handed_over(MESSAGE, "alice") == ["451 4.3.0"]

    served(tmp_path, maildirs, says)
