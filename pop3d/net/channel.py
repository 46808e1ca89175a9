"""A connection, in clear text as the engine sees it: a `Transport`, with a TLS `Layer` above it or not.

Nothing here knows time. Whoever sweeps deadlines wakes a waiting `read` with `feed_eof`, or ends it all with `abort`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable

from pop3d.net.certificates import ClientName, identity_of
from pop3d.net.proxy_protocol import ProxyError, ProxyHeader, ProxyParser
from pop3d.net.tls import Bindings, Layer, ServerTls
from pop3d.net.transport import ConnectionGone, Transport

__all__ = ["Channel", "ConnectionGone", "HandshakeFailed", "ProxyError"]

_FAIR = 128 * 1024  # octets written after which other connections get their turn: some 0.5 ms of work
_LINGER_OCTETS_MAX = 1024 * 1024  # octets read away behind our last reply: what may be on its way already, no flood


class HandshakeFailed(Exception):
    """The peer and we did not come to terms about TLS; the text is OpenSSL's reason."""


class Channel:
    """``peer``: the client's address, as text: the connection's own, or what a proxy told of it.

    ``tls``: spoken from the first octet, behind a PROXY header; None for later, or never.
    """

    def __init__(self, transport: Transport, tls: ServerTls | None) -> None:
        self._transport = transport
        self._tls: Layer | None = None
        if tls is not None:
            self.begin_tls(tls)
        self._hear: Callable[[bytes], bool] | None = None  # of a `listen` that goes on
        self._proxied: ProxyHeader | None = None
        self._in_turn = 0  # octets written since others had theirs
        self.peer = transport.peer

    @property
    def tls_version(self) -> str:
        """Such as ``TLSv1.3``, ours or that between client and proxy; empty without TLS."""
        if self._tls is not None:
            return self._tls.version
        return self._proxied.tls.version if self._proxied is not None and self._proxied.tls is not None else ""

    @property
    def bindings(self) -> Bindings:
        """What SCRAM-PLUS may bind to; none without TLS."""
        return self._tls.bindings if self._tls is not None else Bindings()

    def identity(self, field: ClientName) -> str | None:
        """ProcessIdentity that field of the client's verified certificate says it is; None without."""
        certificate = self._tls.peer_certificate if self._tls is not None else None
        return identity_of(certificate, field) if certificate is not None else None

    @property
    def cipher(self) -> str:
        """Such as ``TLS_AES_256_GCM_SHA384``; empty without TLS."""
        return self._tls.cipher if self._tls is not None else ""

    @property
    def secure(self) -> bool:
        """True behind a completed handshake."""
        return self._tls is not None and self._tls.established

    @property
    def secure_by_proxy(self) -> bool:
        """True when a proxy said that the client spoke TLS to it."""
        return self._proxied is not None and self._proxied.tls is not None

    async def read_proxy_header(self) -> ProxyHeader:
        """Read a PROXY header; before anything else. Raises `ProxyError` and `ConnectionGone`."""
        parser = ProxyParser()
        while (header := parser.receive(data := await self._transport.read())) is None:
            if not data:
                raise ConnectionGone
        self._proxied = header
        self._transport.put_back(parser.rest)
        if header.address is not None:
            self.peer = header.address
        return header

    @property
    def vanished(self) -> bool:
        """True when the peer answered no more, and the system gave it up."""
        return self._transport.vanished

    @property
    def reading(self) -> bool:
        """True while a `read`, a `listen` or a `handshake` waits for the peer."""
        return self._transport.reading

    def begin_tls(self, tls: ServerTls) -> None:
        """From now on all that is read and written is TLS; a `handshake` comes first."""
        self._tls = tls.layer()

    async def handshake(self) -> None:
        """Do the TLS handshake, when there is TLS. Raises `HandshakeFailed` and `ConnectionGone`."""
        tls = self._tls
        while tls is not None and not tls.established:
            data = await self._transport.read()
            if not data:
                raise ConnectionGone
            tls.receive(data)
            try:
                tls.handshake()
            except ssl.SSLError as fault:
                with contextlib.suppress(ConnectionGone):
                    await self._transmit(tls.take_output())  # the alert says why
                raise HandshakeFailed(fault.reason or "no reason known") from None
            # Behind a handshake that is complete, what is left to say (a ticket, of TLS 1.2 the Finished) goes with the
            # greeting, or with the next read.
            if not tls.established:
                await self._transmit(tls.take_output())

    async def read(self) -> bytes:
        """What the peer said next; ``b""`` at the end. Raises `ConnectionGone`.

        The end of TLS is the end, whatever may follow it in clear text (RFC 2595 §2.2).
        """
        if self._tls is None:
            return await self._transport.read()
        while True:
            data = b""
            # what came with the last octets of the handshake is read first
            if self._tls.has_input or self._tls.ended:
                try:
                    data = self._tls.read()
                except ssl.SSLError:
                    raise ConnectionGone from None
            # such as an alert, or of TLS 1.2 the end of the handshake, which the peer waits for
            if output := self._tls.take_output():
                await self._transmit(output)
            if data or self._tls.ended:
                return data
            received = await self._transport.read()
            if not received:
                return b""
            self._tls.receive(received)

    async def listen(self, hear: Callable[[bytes], bool]) -> None:
        """Tell ``hear`` what the peer says, as soon as it comes, until it returns False; ``b""`` is the end.

        Raises `ConnectionGone`, and what ``hear`` raises.
        """
        self._hear = hear
        try:
            while self._hear is not None:
                tls = self._tls
                if tls is not None and (tls.has_input or tls.has_output or tls.ended):
                    self._tell(await self.read())
                else:
                    await self._transport.listen(self._arrived)
        finally:
            self._hear = None

    def _arrived(self, received: bytes) -> bool:
        """Tell what came; False when the listener has heard enough, or what is left is for `read` to see to."""
        self._in_turn = 0
        tls = self._tls
        if tls is None or not received:
            self._tell(received)
            return self._hear is not None
        tls.receive(received)
        try:
            data = tls.read()
        except ssl.SSLError:
            raise ConnectionGone from None
        if data:
            self._tell(data)
        return self._hear is not None and not tls.has_output and not tls.ended

    def _tell(self, data: bytes) -> None:
        if self._hear is not None and not self._hear(data):
            self._hear = None

    def write(self, data: bytes, *, last: bool = False) -> bool:
        """Send; False when `drain` has to be waited for before anything else is sent. Raises `ConnectionGone`.

        ``last``: nothing more will be sent, and the peer is told with the same octets.
        """
        if self._tls is not None:
            try:
                self._tls.write(data)
            except ssl.SSLError:
                raise ConnectionGone from None
            if last:
                self._tls.shut_down()
            data = self._tls.take_output()
        self._in_turn += len(data)
        return self._transport.write(data) and self._in_turn < _FAIR

    async def drain(self) -> None:
        """Wait until all has left for the system's buffers, and others had their turn. Raises `ConnectionGone`."""
        self._in_turn = 0
        await self._transport.drain()
        await asyncio.sleep(0)

    async def _transmit(self, data: bytes) -> None:
        if data and not self._transport.write(data):
            await self._transport.drain()

    async def wait_eof(self) -> None:
        """Wait until the peer sends nothing more; for one who does not read meanwhile."""
        await self._transport.wait_eof()

    def feed_eof(self) -> None:
        """Make a `read` under way, and all later ones, see the end of the stream."""
        self._transport.feed_eof()

    def abort(self) -> None:
        """Close at once; what was not sent is lost."""
        self._transport.abort()

    async def close(self, *, linger: bool = False) -> None:
        """Say goodbye and close; returns when all has left.

        ``linger``: the peer may still be sending. To close on octets that nobody read makes the system reset the
        connection, and the peer may never see our last reply; so what it sends is read away until it closes too, within
        bounds.
        """
        with contextlib.suppress(ConnectionGone):
            if self._tls is not None:
                self._tls.shut_down()
                if output := self._tls.take_output():
                    self._transport.write(output)
            if linger:
                await self._transport.write_eof()
                patience = _LINGER_OCTETS_MAX
                while patience > 0 and (data := await self._transport.read()):
                    patience -= len(data)
        await self._transport.close()
