"""The certificates of a configuration, each as its files were when last without a fault.

A pair of files with a fault costs that pair: the one that was read before stays, and all others are what the files are
now. A pair that was never read is left out, and who asks for its name is shown the certificate of ``[tls]``; without
any pair of ``[tls]`` itself there is nothing to serve. A certificate that has expired is served all the same: no other
would be better, and who does not look at dates gets in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pop3d.config import Certificates, Config, ConfigError
from pop3d.net.pem import (
    KeyPair,
    PemError,
    as_file,
    authority_date_faults,
    date_fault,
    read_authorities,
    read_pair,
)
from pop3d.net.tls import Pair, ServerTls, server_tls

__all__ = ["KeyPairs", "tls_of"]


@dataclass(frozen=True, slots=True)
class _Files:
    """A pair, as the configuration names it. ``rsa``: see `pop3d.net.pem.read_pair`."""

    certificate: Path
    private_key: Path
    rsa: bool | None


@dataclass(frozen=True)
class KeyPairs:
    """What was read of a configuration. ``faults``: of the last reading, one line each; ``kept``: by what they are of.

    Read again by `read`, with what there was ``before``.
    """

    config: Config
    pairs: Mapping[_Files, KeyPair]
    authorities: bytes | None
    faults: tuple[str, ...] = ()
    kept: frozenset[str] = frozenset()
    """Those of the faults in whose place something older is served."""

    @classmethod
    def read(cls, config: Config, before: KeyPairs | None = None) -> KeyPairs:
        """Read all files. Raises nothing: what is wrong is in ``faults``."""
        pairs: dict[_Files, KeyPair] = {}
        faults: dict[str, bool] = {}  # two names may share a file
        old: Mapping[_Files, KeyPair] = before.pairs if before is not None else MappingProxyType({})
        for files in _all_files(config):
            if files in pairs:
                continue
            try:
                pairs[files] = read_pair(files.certificate, files.private_key, rsa=files.rsa)
            except PemError as fault:
                faults |= dict.fromkeys(fault.faults, files in old)
                if files in old:
                    pairs[files] = old[files]
        authorities = None
        if config.tls is not None and config.tls.client_ca is not None:
            if before is not None and config.tls.client_ca == before.client_ca:
                authorities = before.authorities
            try:
                authorities = read_authorities(config.tls.client_ca)
            except PemError as fault:
                faults |= dict.fromkeys(fault.faults, authorities is not None)
        return cls(config, pairs, authorities, tuple(faults), frozenset(text for text, kept in faults.items() if kept))

    @property
    def client_ca(self) -> Path | None:
        """The file of the ``authorities``."""
        return None if self.config.tls is None else self.config.tls.client_ca

    def lacks_what_is_new(self, before: KeyPairs) -> bool:
        """Whether files with a fault are named that the configuration of ``before`` did not name."""
        if self.client_ca not in (None, before.client_ca) and self.authorities is None:
            return True
        return not set(_all_files(self.config)) <= self.pairs.keys() | set(_all_files(before.config))

    def dates(self) -> Iterator[str]:
        """A line for each certificate that is served, or asked for, though it is not valid today."""
        for files, pair in self.pairs.items():
            if fault := date_fault(files.certificate, pair):
                yield fault
        if self.authorities is not None and self.client_ca is not None:
            yield from authority_date_faults(self.client_ca, self.authorities)

    def ends(self) -> Iterator[tuple[str, str, float]]:
        """Name, file, and Unix time of the end (notAfter) of each certificate; 0 where none is served.

        The name is a host of ``[[tls.sni]]``, or the configuration's own.
        """
        for names, of_names in _tables(self.config):
            for files in of_names:
                pair = self.pairs.get(files)
                for name in names or (self.config.hostname,):
                    yield name, str(files.certificate), pair.ends.timestamp() if pair is not None else 0.0

    def left_out(self) -> Iterator[str]:
        """A line for each table none of whose pairs can be served."""
        for names, of_names in _tables(self.config):
            if names and not any(files in self.pairs for files in of_names):
                yield f"clients that ask for {', '.join(names)} are shown the certificate of [tls], and refuse it"

    def tls(self) -> ServerTls | None:
        """What serves them; None when no listener has TLS.

        Raises `ConfigError` when there is nothing to serve, and OSError (ssl.SSLError is one).
        """
        tls = self.config.tls
        if tls is None or all(listen.tls == "none" for listen in self.config.listen):
            return None
        with contextlib.ExitStack() as stack:
            made: dict[_Files, Pair] = {}
            for files, pair in self.pairs.items():
                octets = pair.certificate, pair.private_key
                first, second = (stack.enter_context(as_file(one)) for one in octets)
                made[files] = first, second
            shown = [
                (names, [made[one] for one in of_names if one in made]) for names, of_names in _tables(self.config)
            ]
            own = shown[0][1]
            if not own or (tls.client_ca is not None and self.authorities is None):
                raise ConfigError(list(self.faults))
            client_ca = stack.enter_context(as_file(self.authorities)) if self.authorities is not None else None
            make = _exporter_tls() if "scram-sha-256-plus" in self.config.auth.mechanisms else None
            return (make or server_tls)(
                *own[0],
                tls.minimum_version,
                more=own[1:],
                names={name: pairs for names, pairs in shown[1:] if pairs for name in names},
                client_ca=client_ca,
            )


def tls_of(config: Config) -> ServerTls | None:
    """TLS as configured; None when no listener has it. Raises as `KeyPairs.tls` does."""
    return KeyPairs.read(config).tls()


def _tables(config: Config) -> Iterator[tuple[tuple[str, ...], list[_Files]]]:
    """Names that clients ask for, and what they are shown; the first is for all others, and has no names."""
    if config.tls is not None:
        yield (), _files_of(config.tls)
        for sni in config.tls.sni:
            yield sni.hosts, _files_of(sni)


def _files_of(table: Certificates) -> list[_Files]:
    beside = table.certificate_rsa is not None
    return [_Files(*pair, rsa=number == 1 if beside else None) for number, pair in enumerate(table.pairs)]


def _all_files(config: Config) -> Iterator[_Files]:
    for _, of_names in _tables(config):
        yield from of_names


def _exporter_tls() -> Callable[..., ServerTls] | None:
    try:
        from pop3d.net.tls_exporter import exporter_tls
    except ModuleNotFoundError:
        return None  # then -PLUS is offered behind TLS 1.2 only
    return exporter_tls
