"""A POP3 client on a plain blocking socket: writes all messages of a server on this host to stdout.

python examples/blocking_client.py --port 8110
python examples/blocking_client.py --port 8110 --cafile it.pem       STLS first
"""

import argparse
import socket
import ssl
import sys

from example_fetch import Fetch, arguments

from pop3core import ClientConfig, ClientConnection
from pop3core.answers import TlsEstablished
from pop3core.commands import Stls
from pop3core.events import Disconnected, NeedData, SendData, TlsReady


def run(sock: socket.socket, options: argparse.Namespace) -> list[str]:
    """One session; what the server refused."""
    conn = ClientConnection(ClientConfig(allow_plaintext=not options.cafile))
    if options.cafile:
        conn.send(Stls())  # all that is queued behind it waits for TLS
    fetch = Fetch(conn, options)
    try:
        while not isinstance(event := conn.next_event(), Disconnected):
            match event:
                case NeedData():
                    conn.receive_data(sock.recv(65536))
                case SendData(data):
                    sock.sendall(data)
                case TlsReady():
                    tls = ssl.create_default_context(cafile=options.cafile)
                    sock = tls.wrap_socket(sock, server_hostname="localhost")
                    conn.answer(TlsEstablished())
                case _:
                    fetch.heard(event)
    finally:
        sock.close()
    return fetch.refused if event.expected else [*fetch.refused, "the server went away"]


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--cafile", help="PEM file with the certificate to trust")
    given = parser.parse_args()
    sys.exit("\n".join(run(socket.create_connection(("127.0.0.1", given.port), timeout=60), given)) or 0)
