"""Addresses and parameters of MAIL and RCPT (RFC 5321 §4.1.2, RFC 6531 §3.3)."""

from __future__ import annotations

import re
from typing import Final

from pop3core.value import value
from pop3d.lmtp.replies import BAD_SYNTAX, NEEDS_SMTPUTF8, LmtpReply

__all__ = ["NOBODY", "LmtpRefused", "MailPath", "mail_arguments", "mail_path"]

_PATH_OCTETS_MAX: Final = 1024  # RFC 5321 §4.5.3.1.3 asks for 256; real senders have longer ones (VERP, in UTF-8)

# More than RFC 5321 §4.1.2 allows: dots anywhere, as some providers have them. Nothing that could end a line or a path.
_ATOM = r'[^\x00-\x20\x7f-\x9f"<>@\\]+'
_QUOTED = r'"(?:[^\x00-\x1f\x7f-\x9f"\\]|\\[^\x00-\x1f\x7f-\x9f])*"'
# A bracket begins a literal and nothing else: with two ways to read it, each in a route doubles the time to refuse it.
_DOMAIN = r'(?!\[)[^\x00-\x20\x7f-\x9f"<>@\\:,]+|\[[^\x00-\x20\x7f-\x9f"<>@\\\[\]]+\]'
_PATH = re.compile(
    rf"(?P<route>@(?:{_DOMAIN})(?:,@(?:{_DOMAIN}))*:)?(?P<local>{_ATOM}|{_QUOTED})(?:@(?P<domain>{_DOMAIN}))?"
)
_ARGUMENTS = re.compile(r'(?P<word>[A-Za-z]+):[ ]?<(?P<path>(?:"(?:[^"\\]|\\.)*"|[^">])*)>(?P<rest>(?: .*)?)')
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~]+))?")  # RFC 5321 §4.1.2 esmtp-param


class LmtpRefused(Exception):
    """What was said is answered with ``reply``."""

    def __init__(self, reply: LmtpReply) -> None:
        super().__init__(reply.text)
        self.reply = reply


@value
class MailPath:
    """An address. ``text``: as it was said, without source route (RFC 5321 §4.1.1.3: ignored); empty for ``<>``.

    ``local``: without quotes (RFC 5321 §4.1.2: ``"a"@b`` is ``a@b``); ``domain``: empty where none was said.
    """

    text: str
    local: str
    domain: str

    @property
    def address(self) -> str:
        """Without quotes."""
        return f"{self.local}@{self.domain}" if self.domain else self.local


NOBODY: Final = MailPath("", "", "")
"""The null reverse-path, of bounces (RFC 5321 §4.5.5)."""


def mail_arguments(word: str, argument: str) -> tuple[str, dict[str, str]]:
    """What stands behind ``MAIL`` or ``RCPT``: the path, without its brackets, and the parameters, names in capitals.

    ``word``: FROM or TO. A parameter's value may be empty. Raises `LmtpRefused`.
    """
    found = _ARGUMENTS.fullmatch(argument)
    if found is None or found["word"].upper() != word:
        raise LmtpRefused(BAD_SYNTAX)
    said: dict[str, str] = {}
    for one in found["rest"].split():
        parameter = _PARAMETER.fullmatch(one)
        if parameter is None or parameter[1].upper() in said:
            raise LmtpRefused(BAD_SYNTAX)
        said[parameter[1].upper()] = parameter[2] or ""
    return found["path"], said


def mail_path(path: str, bad: LmtpReply, *, utf8: bool) -> MailPath:
    """An address as a path says it. ``bad``: the reply to one that is none; ``utf8``: it may be of UTF-8.

    Raises `LmtpRefused`.
    """
    if not path.isascii() and not utf8:
        raise LmtpRefused(NEEDS_SMTPUTF8)
    parts = _PATH.fullmatch(path)
    if parts is None or len(path.encode()) > _PATH_OCTETS_MAX:
        raise LmtpRefused(bad)
    local = parts["local"]
    if local.startswith('"'):
        local = re.sub(r"\\(.)", r"\1", local[1:-1])
    return MailPath(path[len(parts["route"] or "") :], local, parts["domain"] or "")
