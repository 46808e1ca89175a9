"""A POP3 server on plain blocking sockets, a thread for each connection. For loopback.

python examples/blocking_server.py --port 8110                       any user, password "secret"
python examples/blocking_server.py --port 8110 --certificate it.pem  passwords only behind STLS
"""

import argparse
import socket
import ssl
import threading

from example_mailbox import Mailbox, Visit

from pop3core import ServerConfig, ServerConnection
from pop3core.answers import TlsEstablished
from pop3core.events import Closed, NeedData, SendData, TlsRequested

IDLE_SECONDS = 600  # RFC 1939 §3: no server is less patient


def serve(sock: socket.socket, mailbox: Mailbox, tls: ssl.SSLContext | None) -> None:
    """One connection: do what the engine says until it is closed."""
    conn = ServerConnection(ServerConfig("localhost", allow_plaintext=tls is None, stls=tls is not None))
    visit = Visit(mailbox)
    sock.settimeout(IDLE_SECONDS)
    try:
        while not isinstance(event := conn.next_event(), Closed):
            match event:
                case NeedData():
                    conn.receive_data(sock.recv(4096))
                case SendData(data):
                    sock.sendall(data)
                case TlsRequested():
                    assert tls is not None
                    sock = tls.wrap_socket(sock, server_side=True)
                    conn.answer(TlsEstablished())
                case _:
                    visit.answer(conn, event)
    except OSError as fault:  # of the network, of TLS, or too long a silence
        print("a connection broke:", fault, flush=True)
    finally:
        visit.close()
        sock.close()


def main() -> None:
    """Listen, and start a thread for each connection."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8110)
    parser.add_argument("--certificate", help="PEM file with a certificate and its key")
    options = parser.parse_args()
    tls = None
    if options.certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options.certificate)
    mailbox = Mailbox()
    with socket.create_server(("127.0.0.1", options.port)) as listener:
        print("listening on 127.0.0.1 port", listener.getsockname()[1], flush=True)
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=serve, args=(sock, mailbox, tls), daemon=True).start()


if __name__ == "__main__":
    main()
