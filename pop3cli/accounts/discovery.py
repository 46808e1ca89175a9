"""Which server a mail address has its mailbox on, as its domain says.

Asked are, in this order, and the first that knows ends it: the domain's SRV records (RFC 6186, RFC 8314 §5, §5.1), by
dnspython (extra ``discover``); its own configuration for mail programs over https, in Mozilla's format; and Mozilla's
collection of such, which learns the domain, but not who asks for.

DNS is signed by nobody, as a rule. So a server that is named only there, and is not of the address's own domain, is a
stranger until a person has confirmed it (RFC 6186 §6): a good certificate proves the name of the server, not that it is
the right one. All that is found is TLS; what is offered in clear text is passed over. Nothing is read beyond a bound,
and no entity of an XML document is ever resolved, for a document that declares some is not read at all.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urljoin, urlsplit
from xml.etree import ElementTree

from pop3cli.accounts.url import Account, parse_account
from pop3cli.errors import MailError, MissingExtra, ServerDown, TimedOut, UsageFault
from pop3cli.net.https import NoAnswer, check_url, request
from pop3cli.net.tls import Dial

__all__ = ["DiscoveredServer", "discover"]

_SECONDS: Final = 60.0
"""For all of it."""

_DNS_SECONDS: Final = 5.0
_NAME_MAX: Final = 254
_RECORDS_MAX: Final = 10
_SERVERS_MAX: Final = 10
_REDIRECTS_MAX: Final = 3
_HOST: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]{0,62}\.)*[a-z0-9-]{1,63}", re.I)
_COLLECTION: Final = "https://autoconfig.thunderbird.net/v1.1/"


@dataclass(frozen=True, slots=True)
class DiscoveredServer:
    """A server. ``source``: who named it; ``confirmed``: that is proved to be the address's own domain, or the server
    is of that domain; ``oauth``: it wants tokens and no passwords.
    """

    account: Account
    source: str
    confirmed: bool
    oauth: bool = False


async def discover(address: str, *, dial: Dial | None = None) -> list[DiscoveredServer]:
    """Where the mailbox of a mail address is, the best first; never empty.

    ``dial``: for https; DNS, which does not go that way, is then not asked. Raises `UsageFault` for what is no address,
    `MissingExtra`, `ServerDown` when nobody knows, `TimedOut`.
    """
    local, domain = _parts(address)
    try:
        async with asyncio.timeout(_SECONDS):
            found = [] if dial is not None else await _by_dns(address, domain)
            return found or await _by_https(address, local, domain, dial)
    except TimeoutError:
        raise TimedOut(f"looking for the server of {domain}", f"nobody answered within {_SECONDS:g} s") from None


def _parts(address: str) -> tuple[str, str]:
    local, _, domain = address.rpartition("@")
    try:
        name = domain[:_NAME_MAX].encode("idna").decode("ascii").lower()
    except UnicodeError:
        name = ""
    if not local or " " in local or not local.isprintable() or "." not in name or not _HOST.fullmatch(name):
        raise UsageFault(f"address {address[:200]!r}", "not a mail address", "give it as alice@example.org")
    return local, name


def _of_the_domain(host: str, domain: str) -> bool:
    return host.lower() == domain or host.lower().endswith(f".{domain}")


def _account(user: str, host: str, port: int, *, stls: bool) -> Account | None:
    """The account, or None for what cannot be one."""
    if _HOST.fullmatch(host) is None:
        return None
    try:
        return parse_account(f"{'pop3' if stls else 'pop3s'}://{quote(user, safe='')}@{host}:{port}")
    except UsageFault:
        return None


# --- DNS ---


async def _by_dns(address: str, domain: str) -> list[DiscoveredServer]:
    # RFC 8314 §5.1: TLS from the first octet is better than STLS
    implicit, stls = await asyncio.gather(_srv(f"_pop3s._tcp.{domain}"), _srv(f"_pop3._tcp.{domain}"))
    found: list[DiscoveredServer] = []
    for service, records in ((False, implicit), (True, stls)):
        for host, port in records:
            account = _account(address, host, port, stls=service)  # RFC 6186 §4: the whole address comes first
            if account is not None:
                source = f"DNS, _pop3{'' if service else 's'}._tcp.{domain}"
                found.append(DiscoveredServer(account, source, _of_the_domain(host, domain)))
    return found


async def _srv(name: str) -> list[tuple[str, int]]:
    """Hosts and ports of a service, the first to be tried first; none when there is none, or DNS does not answer."""
    try:
        import dns.asyncresolver
        import dns.exception
    except ImportError:
        raise MissingExtra("looking for a server", "discover") from None
    try:
        resolver = dns.asyncresolver.get_default_resolver()
        answer: Any = await resolver.resolve(f"{name}.", "SRV", lifetime=_DNS_SECONDS)
    except (dns.exception.DNSException, OSError):
        return []
    # RFC 2782: the lowest priority; the weight is for sharing load, which one client does not have
    records = sorted(answer, key=lambda record: (record.priority, -record.weight))[:_RECORDS_MAX]
    hosts = [(str(record.target).rstrip("."), int(record.port)) for record in records]
    return [(host, port) for host, port in hosts if host]  # RFC 6186 §3.4: "." is "there is no such service"


# --- https ---


async def _by_https(address: str, local: str, domain: str, dial: Dial | None) -> list[DiscoveredServer]:
    query = f"?emailaddress={quote(address, safe='')}"
    asked = (
        (f"https://autoconfig.{domain}/mail/config-v1.1.xml{query}", True),
        (f"https://{domain}/.well-known/autoconfig/mail/config-v1.1.xml{query}", True),
        (f"{_COLLECTION}{domain}", False),
    )
    for url, own in asked:
        try:
            document = await _fetched(url, dial)
        except NoAnswer:
            continue
        source = f"https, {urlsplit(url).hostname}"
        found = [
            DiscoveredServer(account, source, own or _of_the_domain(account.host, domain), oauth)
            for account, oauth in _servers(document, address, local, domain)
        ]
        if found:
            return found
    raise _nobody(domain)


async def _fetched(url: str, dial: Dial | None) -> bytes:
    """What is at ``url``; empty when there is nothing. Raises what `pop3cli.net.https.request` raises."""
    for _ in range(1 + _REDIRECTS_MAX):
        answer = await request(url, dial=dial)
        if answer.status == 200:
            return answer.body
        if answer.status not in (301, 302, 303, 307, 308) or answer.location is None:
            break
        url = urljoin(url, answer.location)
        try:
            secure = check_url(url).scheme == "https"
        except ValueError:
            break
        if not secure:
            break
    return b""


def _servers(document: bytes, address: str, local: str, domain: str) -> Iterator[tuple[Account, bool]]:
    """POP3 servers with TLS of a configuration in Mozilla's format, the best first."""
    try:
        text = document.decode("utf-8")
        if "<!" in text.replace("<!--", ""):  # a document type, and with it entities
            return
        root = ElementTree.fromstring(text)  # noqa: S314 - no entities, and bounded
    except (UnicodeDecodeError, ElementTree.ParseError, ValueError):
        return
    meant = {"%EMAILADDRESS%": address, "%EMAILLOCALPART%": local, "%EMAILDOMAIN%": domain}
    servers = [server for server in root.iter("incomingServer") if server.get("type") == "pop3"][:_SERVERS_MAX]
    for kind in ("SSL", "STARTTLS"):
        for server in servers:
            said = {child.tag: (child.text or "").strip() for child in server}
            port = said.get("port", "")
            if said.get("socketType", "").upper() != kind or re.fullmatch(r"[0-9]{1,5}", port) is None:
                continue
            user, host = said.get("username", "") or address, said.get("hostname", "")
            for word, value in meant.items():
                user, host = user.replace(word, value), host.replace(word, value)
            account = _account(user, host, int(port), stls=kind == "STARTTLS")
            if account is not None:
                ways = {(child.text or "").strip().lower() for child in server if child.tag == "authentication"}
                yield account, ways == {"oauth2"}


def _nobody(domain: str) -> MailError:
    remedy = "ask its provider for host and port, and give pop3s://user@host:port"
    return ServerDown(f"the server of {domain}", "nobody says which it is", remedy)
