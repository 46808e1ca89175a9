"""The extra fields of a Dovecot passwd-file, and what each of them means here: the table `FIELDS`.

They stand in the eighth field of a line and all behind it, for a ``:`` in a value is a part of it; blanks separate
them: ``nologin allow_nets=192.0.2.0/24 userdb_mail=maildir:~/Maildir``. ``name:default`` (``name:protected`` before
Dovecot 2.4) sets a field that is not set yet, ``name:remove`` removes one that is.

Sources: Dovecot 2.3 and 2.4, "passdb extra fields", ``auth-request.c``, ``passdb-passwd-file.c`` and
``client-common-auth.c``.

What pop3d understands it obeys. A field that forbids the login, or changes who logs in or where, refuses its user. The
rest has no effect; `pop3d check` and the log name it.
"""

from __future__ import annotations

import enum
import ipaddress
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pop3d.auth import Network
from pop3d.auth.user_limits import NO_LIMITS, UserLimits, read_user_limits
from pop3d.system.ip_addresses import IpNetwork, unmapped_network

__all__ = ["FIELDS", "ExtraFields", "FieldMeaning", "FieldRow", "allowed_networks", "meaning_of", "read_extra_fields"]


class FieldMeaning(enum.Enum):
    """What a field does to a user of pop3d."""

    OBEYED = "obeyed"
    """It does what it does with Dovecot; some are ours."""
    FORBIDS = "forbids"
    """Its user is refused: nobody may log in, or not here, or not so."""
    UNUSED = "has no effect"
    """It changes nothing here."""


@dataclass(frozen=True, slots=True)
class FieldRow:
    """``name``: of the field; one that ends with ``*`` stands for all that begin so. ``why``: in a few words."""

    name: str
    meaning: FieldMeaning
    why: str


_O, _F, _U = FieldMeaning.OBEYED, FieldMeaning.FORBIDS, FieldMeaning.UNUSED

FIELDS: Final = (
    # --- who may log in, and from where ---
    FieldRow("nologin", _O, "the user may not log in, whatever the value"),
    FieldRow("allow_nets", _O, "the networks that the user may log in from"),
    FieldRow("allow_real_nets", _F, "networks of proxies are not checked for a user; use allow_nets"),
    FieldRow("delay_until", _O, "no login before that time"),
    FieldRow("fail", _F, "every login fails"),
    FieldRow("noauthenticate", _F, "this entry authenticates nobody"),
    FieldRow("nopassword", _F, "any password would do"),
    FieldRow("check_client_fp", _F, "fingerprints of client certificates are not checked"),
    FieldRow("check_client_cert_fp", _F, "fingerprints of client certificates are not checked"),
    FieldRow("check_client_pubkey_fp", _F, "fingerprints of client certificates are not checked"),
    FieldRow("expired", _F, "the password has expired"),
    # --- limits ---
    FieldRow("quota_octets", _O, "octets that the mailbox may hold; ours"),
    FieldRow("quota_messages", _O, "messages that the mailbox may hold; ours"),
    FieldRow("userdb_quota_rule", _O, "the same, as Dovecot 2.3 says it"),
    FieldRow("userdb_quota_storage_size", _O, "the same, as Dovecot 2.4 says it"),
    FieldRow("userdb_quota_message_count", _O, "the same, as Dovecot 2.4 says it"),
    FieldRow("login_delay", _O, "seconds between two logins; ours"),
    FieldRow("expire", _O, "days that messages are kept at least, or never; ours"),
    FieldRow("require_tls", _O, "no login in clear text, whatever the value; ours"),
    # --- another user, or another server ---
    FieldRow("user", _F, "the login would be another user's"),
    FieldRow("username", _F, "the login would be another user's"),
    FieldRow("domain", _F, "the login would be another user's"),
    FieldRow("login_user", _F, "the login would be another user's"),
    FieldRow("passdb_import", _F, "it may hold any other field"),
    FieldRow("proxy", _F, "the mailbox is on another server"),
    FieldRow("proxy_maybe", _F, "the mailbox may be on another server"),
    FieldRow("host", _F, "the mailbox is on another server"),
    FieldRow("password", _U, "the password is the line's second field"),
    FieldRow("password_noscheme", _U, "the password is the line's second field"),
    # --- details of what is refused above, and of other mechanisms ---
    FieldRow("reason", _U, "the client sees the text of a wrong password"),
    FieldRow("code", _U, "the client sees the text of a wrong password"),
    FieldRow("nodelay", _U, "penalties are those of [limits]"),
    FieldRow("k5principals", _U, "there is no GSSAPI"),
    FieldRow("hostip", _U, "of `host`"),
    FieldRow("port", _U, "of `host`"),
    FieldRow("destuser", _U, "of `host`"),
    FieldRow("pass", _U, "of `host`"),
    FieldRow("master", _U, "of `host`"),
    FieldRow("ssl", _U, "of `host`"),
    FieldRow("starttls", _U, "of `host`"),
    FieldRow("source_ip", _U, "of `host`"),
    FieldRow("proxy_*", _U, "of `proxy`"),
    FieldRow("forward_*", _U, "of `proxy`"),
    FieldRow("event_*", _U, "for Dovecot's log"),
    FieldRow("user_*", _U, "for Dovecot's log"),
    FieldRow("postlogin_socket", _U, "no program runs after a login"),
    # --- of Dovecot's user database ---
    FieldRow("userdb_mail*", _U, "[store] says where the mailbox is"),
    FieldRow("userdb_home", _U, "the home is the line's sixth field"),
    FieldRow("userdb_uid", _U, "all mail belongs to the configured `user`"),
    FieldRow("userdb_gid", _U, "all mail belongs to the configured `group`"),
    FieldRow("userdb_*", _U, "of Dovecot's user database"),
)
"""All that are known; an exact name counts before a beginning, a longer beginning before a shorter one."""

_UNLESS_SET: Final = (":default", ":protected")
_UNKNOWN: Final = "no such field is known"
_ROWS: Final[Mapping[str, FieldRow]] = {row.name: row for row in FIELDS if not row.name.endswith("*")}
_BEGINNINGS: Final = sorted((row for row in FIELDS if row.name.endswith("*")), key=lambda row: -len(row.name))


def meaning_of(name: str) -> FieldRow:
    """The row of a field; for one that is not in the table, a row that says so."""
    if (row := _ROWS.get(name)) is not None:
        return row
    for row in _BEGINNINGS:
        if name.startswith(row.name[:-1]):
            return row
    return FieldRow(name, FieldMeaning.UNUSED, _UNKNOWN)


@dataclass(frozen=True, slots=True)
class ExtraFields:
    """What the fields of a user say.

    ``forbidden``: why the user may not log in; empty when nothing forbids it. ``networks``: where the user may log in
    from; empty for everywhere. ``values``: by name, of those that are obeyed. ``unused``: names of those that are not.
    ``faults``: what cannot be read in those that are obeyed, each in a few words. ``limits``: of the user's own.
    """

    forbidden: str = ""
    networks: tuple[Network, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    limits: UserLimits = NO_LIMITS


def read_extra_fields(text: str, name: str, now: float | None = None) -> ExtraFields:
    """Read the fields of the user ``name``. ``now``: seconds of `time.time`, for ``delay_until``."""
    found = _fields(text)
    forbidden = ""
    unused: list[str] = []
    faults: list[str] = []
    values: dict[str, str] = {}
    networks: tuple[Network, ...] = ()
    for key, value in found:
        row = meaning_of(key)
        if row.meaning is FieldMeaning.UNUSED:
            unused.append(key)
        elif row.meaning is FieldMeaning.OBEYED:
            values[key] = value
        elif (key, value) != ("user", name):
            forbidden = forbidden or f"{key}: {row.why}"
        if key == "allow_nets":
            allowed, wrong = allowed_networks(value)
            faults += (f"allow_nets: {one[:64]!r} is no network" for one in wrong)
            networks = allowed if not networks else _common(networks, allowed)
            if not networks:
                forbidden = forbidden or f"{key}: no network is left to log in from"
        elif key == "delay_until":
            forbidden = forbidden or _not_before(value, time.time() if now is None else now)
    if "nologin" in values:
        forbidden = "nologin"
    limits, wrong_limits = read_user_limits(values) if values else (NO_LIMITS, [])
    faults += wrong_limits
    return ExtraFields(forbidden, networks, values, tuple(dict.fromkeys(unused)), tuple(faults), limits)


def _fields(text: str) -> list[tuple[str, str]]:
    """Names and values in order; what stands behind a ``:`` is done."""
    found: list[tuple[str, str]] = []
    for one in text.split():
        name, _, value = one.partition("=")
        if name.endswith(":remove"):
            name = name.removesuffix(":remove")
            found = [field for field in found if field[0] != name]
        elif name.endswith(_UNLESS_SET):
            name = name.rpartition(":")[0]
            if name and all(field[0] != name for field in found):
                found.append((name, value))
        elif name:
            found.append((name, value))
    return found


def allowed_networks(text: str) -> tuple[tuple[Network, ...], list[str]]:
    """The networks of ``allow_nets``, and what in it is none.

    Commas or blanks separate them. ``local`` is a client without an address: POP3 has no such. A network of
    IPv4-mapped addresses is one of IPv4.
    """
    networks: list[Network] = []
    wrong: list[str] = []
    for one in text.replace(",", " ").split():
        if one == "local":
            continue
        try:
            network: IpNetwork = ipaddress.ip_network(one, strict=False)
        except ValueError:
            wrong.append(one)
            continue
        networks.append(unmapped_network(network))
    return tuple(networks), wrong


def _common(some: tuple[Network, ...], others: tuple[Network, ...]) -> tuple[Network, ...]:
    """What is in both: of two networks that overlap, one is in the other."""
    return tuple(
        max(one, other, key=lambda network: network.prefixlen)
        for one in some
        for other in others
        if one.version == other.version and one.overlaps(other)
    )


def _not_before(value: str, now: float) -> str:
    """``delay_until=SECONDS[+SPREAD]``: why there is no login yet; empty when there is."""
    until = value.partition("+")[0]
    if not (until.isascii() and until.isdigit() and len(until) < 20):
        return "delay_until: not a time in seconds since 1970"
    return "" if int(until) <= now else f"delay_until: not before {until}"
