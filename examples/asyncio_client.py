"""A POP3 client on asyncio streams: writes all messages of a server on this host to stdout.

python examples/asyncio_client.py --port 8110
python examples/asyncio_client.py --port 8110 --cafile it.pem        POP3S: TLS from the first octet
"""

import argparse
import asyncio
import ssl
import sys

from example_fetch import Fetch, arguments

from pop3core import ClientConfig, ClientConnection
from pop3core.answers import TlsEstablished
from pop3core.events import Disconnected, NeedData, SendData


async def run(options: argparse.Namespace) -> list[str]:
    """One session; what the server refused."""
    tls = ssl.create_default_context(cafile=options.cafile) if options.cafile else None
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", options.port, ssl=tls, server_hostname="localhost" if tls else None
    )
    conn = ClientConnection(ClientConfig(allow_plaintext=tls is None))
    if tls:
        conn.answer(TlsEstablished())
    fetch = Fetch(conn, options)
    try:
        while not isinstance(event := conn.next_event(), Disconnected):
            match event:
                case NeedData():
                    async with asyncio.timeout(60):
                        conn.receive_data(await reader.read(65536))
                case SendData(data):
                    writer.write(data)
                    await writer.drain()
                case _:
                    fetch.heard(event)
    finally:
        writer.close()
    return fetch.refused if event.expected else [*fetch.refused, "the server went away"]


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--cafile", help="PEM file with the certificate to trust")
    sys.exit("\n".join(asyncio.run(run(parser.parse_args()))) or 0)
