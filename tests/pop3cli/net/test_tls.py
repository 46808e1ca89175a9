"""Whom a connection trusts: what a context demands, and pins in all their forms."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path

import pytest

from pop3cli.errors import (
    SettingFault,
)
from pop3cli.net.tls import client_context, parse_pin


def test_all_forms_of_a_pin_are_one() -> None:
    octets = bytes(range(32))
    spaced = ":".join(f"{octet:02X}" for octet in octets)
    base = base64.b64encode(octets).decode()
    forms = [
        octets.hex(),
        octets.hex().upper(),
        spaced,
        base,
        base.rstrip("="),
        f"sha256:{octets.hex()}",
        f"SHA256:{base}",
    ]
    for form in [*forms, f"sha256//{base}"]:
        assert parse_pin(form) == octets


@pytest.mark.parametrize("text", ["", "abc", "ab" * 31, "ab" * 33, "zz" * 32, "sha1:" + "ab" * 20, "ab:" * 32])
def test_pins_that_are_none(text: str) -> None:
    with pytest.raises(SettingFault, match="not a SHA-256 in hexadecimal or base64"):
        parse_pin(text)


@pytest.mark.parametrize("content", [b"", b"no certificate", None])
def test_an_unusable_cacert(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "roots.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingFault, match="`cacert`") as caught:
        client_context(file)
    assert caught.value.status == 78


def test_what_a_context_demands() -> None:
    context = client_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert not context.hostname_checks_common_name
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
