"""``[lmtp]``: mail that an MTA hands over by LMTP."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, field_validator

from pop3d.config.base import Model

__all__ = ["Lmtp"]

_MESSAGE_OCTETS: Final = 50 * 1024 * 1024
"""Octets of a message, where nothing is configured: more than any MTA sends by default (Postfix: 10 MB)."""


class Lmtp(Model):
    """``[lmtp]``: which users get mail to an address, and how much of it."""

    recipient_delimiter: Annotated[str, Field(pattern=r"^[!#$%&'*+/=?^_`{|}~.-]*$", max_length=8)] = "+"
    local_domains: tuple[Annotated[str, Field(pattern=r"^[^\s@/:\x00-\x1f\x7f]+$", max_length=253)], ...] = ()
    over_quota: Literal["later", "refuse"] = "later"
    message_octets: Annotated[int, Field(ge=64 * 1024, le=4 * 1024**3)] = _MESSAGE_OCTETS  # RFC 5321 §4.5.3.1.7

    @field_validator("local_domains")
    @classmethod
    def _without_case(cls, domains: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(domain.lower() for domain in domains)
