"""``[[listen]]`` and ``[tls]``: where connections come in, and what certificates they see."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from pop3d.config.base import ANY, Host, Model, Network, is_loopback

__all__ = ["Certificates", "Listen", "Sni", "Tls"]

_LMTP_PORT: Final = 24  # of any private mail system (IANA), as LMTP has with others; never 25 (RFC 2033 §5)
_SERVER_NAME: Final = re.compile(r"(\*\.)?[a-zA-Z0-9_-]{1,63}(\.[a-zA-Z0-9_-]{1,63})*")


class Listen(Model):
    """``[[listen]]``: where to accept connections. ``mode`` and ``group``: of the Unix socket at ``path``."""

    protocol: Literal["pop3", "lmtp"] = "pop3"
    host: Host = ANY  # a mail server is there for others
    port: Annotated[int, Field(ge=0, le=65_535)] = 995  # RFC 8314 §7.1
    tls: Literal["implicit", "starttls", "none"] = "implicit"  # RFC 8314 §1.1, §4: preferred
    insecure: bool = False
    proxy_protocol: bool = False
    trusted_proxies: tuple[Network, ...] = ()
    reuse_port: bool = False
    path: Path | None = None
    mode: Annotated[str, Field(pattern=r"^0?[0-7]{3}$")] = "0660"
    group: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_for_lmtp(cls, found: Any) -> Any:
        """LMTP has another place, and no TLS: it stays within one machine (RFC 2033 §5)."""
        if not isinstance(found, dict):
            return found
        if found.get("protocol") != "lmtp":
            if of_socket := sorted({"path", "mode", "group"} & found.keys()):
                raise ValueError(f'`{of_socket[0]}` is of a Unix socket, for protocol = "lmtp"; remove it, or say so')
            return found
        of_tcp = {"host", "port", "reuse_port"} & found.keys()
        if "path" in found and of_tcp:
            raise ValueError(f"`path` is a Unix socket, and `{min(of_tcp)}` is of TCP; give one of the two")
        if "path" not in found and (of_socket := sorted({"mode", "group"} & found.keys())):
            raise ValueError(f"`{of_socket[0]}` is of a Unix socket; say its `path`, or remove it")
        return {"tls": "none", "host": "127.0.0.1", "port": _LMTP_PORT, **found}

    @model_validator(mode="after")
    def _lmtp_stays_at_home(self) -> Listen:
        if self.protocol != "lmtp":
            return self
        if self.tls != "none" or self.insecure or self.proxy_protocol or self.trusted_proxies:
            raise ValueError(
                'protocol = "lmtp" stays within one machine; remove `tls`, `insecure`, `proxy_protocol` and '
                "`trusted_proxies`"
            )
        if self.path is None and not is_loopback(self.host):
            raise ValueError(
                'protocol = "lmtp" is for this machine: whoever reaches it writes into every mailbox; '
                'say host = "127.0.0.1", or the `path` of a Unix socket'
            )
        return self

    @model_validator(mode="after")
    def _clear_text_stays_at_home(self) -> Listen:
        # RFC 2595 §2.3, RFC 8314 §4
        if self.tls == "none" and not self.insecure and not is_loopback(self.host):
            raise ValueError(
                'tls = "none" off loopback would send passwords in clear text; '
                'use "implicit" or "starttls", or say insecure = true'
            )
        return self

    @field_validator("reuse_port")
    @classmethod
    def _system_has_it(cls, reuse_port: bool) -> bool:
        if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
            raise ValueError("this system lets one process only listen on a port; remove it")
        return reuse_port

    @model_validator(mode="after")
    def _proxies_are_named(self) -> Listen:
        if self.proxy_protocol and not self.trusted_proxies:
            raise ValueError(
                "`proxy_protocol` lets a peer say whose connection it is; "
                'name the proxies that may: trusted_proxies = ["192.0.2.1/32"]'
            )
        return self


class Certificates(Model):
    """A certificate and its key, and perhaps RSA ones beside them."""

    certificate: Path
    private_key: Path
    certificate_rsa: Path | None = None
    private_key_rsa: Path | None = None

    @model_validator(mode="after")
    def _rsa_is_whole(self) -> Self:
        if (self.certificate_rsa is None) is not (self.private_key_rsa is None):
            raise ValueError("`certificate_rsa` and `private_key_rsa` go together; give both, or none")
        return self

    @property
    def pairs(self) -> list[tuple[Path, Path]]:
        """Certificate and key; and the RSA ones."""
        pairs = [(self.certificate, self.private_key)]
        if self.certificate_rsa is not None and self.private_key_rsa is not None:
            pairs.append((self.certificate_rsa, self.private_key_rsa))
        return pairs


class Sni(Certificates):
    """``[[tls.sni]]``: what is shown to clients that ask for one of these names."""

    hosts: Annotated[tuple[str, ...], Field(min_length=1)]

    @field_validator("hosts")
    @classmethod
    def _names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not _SERVER_NAME.fullmatch(host) or len(host) > 255:
                raise ValueError(
                    'a name is like "mail.example.org" or "*.example.org", in ASCII (an international one as xn--...)'
                )
        return tuple(host.lower() for host in hosts)


class Tls(Certificates):
    """``[tls]``: what the listeners with TLS show."""

    minimum_version: Literal["1.2", "1.3"] = "1.2"
    client_ca: Path | None = None
    client_name: Literal["email", "cn", "dns"] = "email"
    sni: tuple[Sni, ...] = ()

    @property
    def files(self) -> list[Path]:
        """All that is read for it."""
        paths = [path for certificates in (self, *self.sni) for pair in certificates.pairs for path in pair]
        return paths if self.client_ca is None else [*paths, self.client_ca]

    @field_validator("sni")
    @classmethod
    def _each_name_once(cls, sni: tuple[Sni, ...]) -> tuple[Sni, ...]:
        seen: set[str] = set()
        for host in (host for one in sni for host in one.hosts):
            if host in seen:
                raise ValueError(f"the name {host} stands there twice; leave one")
            seen.add(host)
        return sni
