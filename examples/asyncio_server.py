"""A POP3 server on asyncio streams. For loopback.

python examples/asyncio_server.py --port 8110                        any user, password "secret"
python examples/asyncio_server.py --port 8110 --certificate it.pem   POP3S: TLS from the first octet
"""

import argparse
import asyncio
import ssl

from example_mailbox import Mailbox, Visit

from pop3core import Limits, ServerConfig, ServerConnection
from pop3core.answers import TlsEstablished
from pop3core.events import Closed, MoreWork, NeedData, SendData

IDLE_SECONDS = 600  # RFC 1939 §3: no server is less patient
LIMITS = Limits(turn_commands=16)  # before other connections have their turn


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mailbox: Mailbox) -> None:
    """One connection: do what the engine says until it is closed."""
    tls = writer.get_extra_info("ssl_object") is not None
    conn = ServerConnection(ServerConfig("localhost", allow_plaintext=not tls, limits=LIMITS))
    if tls:
        conn.answer(TlsEstablished())
    writer.transport.set_write_buffer_limits(0)  # drain() then waits until all has left
    visit, clock, deadline = Visit(mailbox), asyncio.get_running_loop().time, 0.0
    try:
        while not isinstance(event := conn.next_event(), Closed):
            match event:
                case NeedData(resumed):
                    if not resumed:  # a whole command came: the client has its time again
                        deadline = clock() + IDLE_SECONDS
                    async with asyncio.timeout_at(deadline):
                        conn.receive_data(await reader.read(4096))
                case SendData(data):
                    writer.write(data)
                    async with asyncio.timeout(IDLE_SECONDS):
                        await writer.drain()
                case MoreWork():
                    await asyncio.sleep(0)  # the other connections have their turn
                case _:
                    visit.answer(conn, event)
    except OSError as fault:  # of the network; TimeoutError is one too
        print("a connection broke:", fault, flush=True)
    finally:
        visit.close()
        writer.close()


async def main() -> None:
    """Listen until interrupted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8110)
    parser.add_argument("--certificate", help="PEM file with a certificate and its key")
    options = parser.parse_args()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if options.certificate else None
    if tls:
        tls.load_cert_chain(options.certificate)
    mailbox = Mailbox()
    async with await asyncio.start_server(
        lambda reader, writer: serve(reader, writer, mailbox), "127.0.0.1", options.port, ssl=tls
    ) as server:
        print("listening on 127.0.0.1 port", server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
