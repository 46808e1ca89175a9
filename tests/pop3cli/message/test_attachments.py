"""Attachments: names that are safe, and files written for a person who asked for them."""

from __future__ import annotations

import json
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pop3cli.message.attachments import ATTACHMENTS_MAX, safe_name
from tests.pop3cli.conftest import Cli, Mailbox, Serve


def with_attachments(*names: str | None) -> bytes:
    message = EmailMessage()
    message["Subject"] = "files"
    message.set_content("see there\n")
    for number, name in enumerate(names):
        message.add_attachment(b"%d" % number, maintype="application", subtype="octet-stream", filename=name)
    return message.as_bytes().replace(b"\n", b"\r\n")


@pytest.mark.parametrize(
    ("wish", "name"),
    [
        ("a.pdf", "a.pdf"),
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("C:\\Windows\\a.exe", "a.exe"),
        (".bashrc", "bashrc"),
        ("...", ""),
        ("", ""),
        ("a\x1b[2J\n.txt", "a_[2J_.txt"),
        ("exe.\u202egpj", "exe.gpj"),
        ("x" * 300 + ".pdf", "x" * 116 + ".pdf"),
        ("é" * 300, "é" * 60),
        ("a." + "b" * 200, "a." + "b" * 118),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("a?b*.txt", "a_b_.txt"),
        ("a.txt/", ""),
    ],
)
def test_safe_names(wish: str, name: str) -> None:
    assert safe_name(wish) == name


@given(st.text())
def test_every_name_is_safe(wish: str) -> None:
    name = safe_name(wish)
    assert len(name.encode()) <= 121
    assert not name.startswith((".", " "))
    assert not set(name) & set("/\\\0\n\r\x1b")


def test_attachments_are_saved(pop3cli: Cli, serve: Serve, tmp_path: Path) -> None:
    names = ("a.pdf", "a.pdf", "../b.txt", None)
    server = serve(Mailbox([with_attachments(*names)]))
    folder = tmp_path / "new"
    common = (server.account(), 1, "--cacert", server.certificate, "--save-attachments", folder)
    ran = pop3cli("show", *common)
    assert ran.status == 0
    expected = {"a.pdf": b"0", "a-2.pdf": b"1", "b.txt": b"2", "attachment-4.bin": b"3"}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected
    assert f"Attached: a.pdf application/octet-stream, 1 B saved as {folder}/a.pdf" in ran.out.decode()
    again = json.loads(pop3cli("show", *common, "--json").out)
    assert again["attachments"][0]["file"] == f"{folder}/a-3.pdf"
    assert (folder / "a.pdf").read_bytes() == b"0"


def test_a_link_is_not_followed(pop3cli: Cli, serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").symlink_to(tmp_path / "elsewhere")
    server = serve(Mailbox([with_attachments("a.pdf")]))
    arguments = ("show", server.account(), 1, "--cacert", server.certificate, "--save-attachments", tmp_path)
    assert pop3cli(*arguments).status == 0
    assert not (tmp_path / "elsewhere").exists()
    assert (tmp_path / "a-2.pdf").read_bytes() == b"0"


def test_attachments_without_end(pop3cli: Cli, serve: Serve, tmp_path: Path) -> None:
    server = serve(Mailbox([with_attachments(*["x"] * (ATTACHMENTS_MAX + 1))]))
    common = (server.account(), 1, "--cacert", server.certificate, "--save-attachments", tmp_path / "x")
    ran = pop3cli("show", *common)
    assert (ran.status, ran.err) == (1, "the first 100 of 101 attachments were saved, and no more\n")
    assert len(list((tmp_path / "x").iterdir())) == ATTACHMENTS_MAX


def test_attachments_that_cannot_be_saved(pop3cli: Cli, serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    server = serve(Mailbox([with_attachments("x")]))
    common = (server.account(), 1, "--cacert", server.certificate)
    ran = pop3cli("show", *common, "--save-attachments", tmp_path / "file")
    assert (ran.status, "cannot write: Not a directory" in ran.err) == (74, True)
    assert pop3cli("show", *common, "--save-attachments", tmp_path, "--raw").status == 2
