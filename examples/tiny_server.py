"""A POP3 server over a list of messages, in forty lines. For loopback: it speaks without TLS.

python examples/tiny_server.py --port 8110        any user, password "secret"
"""

import argparse
import socketserver

from pop3core import Listing, ServerConfig, ServerConnection
from pop3core.answers import Committed, Content, LoginAccepted, LoginRejected
from pop3core.events import Closed, CommitRequested, ContentRequested, LoginRequested, NeedData, Password, SendData

MESSAGES = {b"1": b"Subject: hello\r\n\r\nworld\r\n", b"2": b"Subject: dots\r\n\r\n.\r\n..\r\n"}


class Session(socketserver.BaseRequestHandler):
    """One connection."""

    def handle(self) -> None:
        """Do what the engine says until it is closed."""
        conn = ServerConnection(ServerConfig("localhost", allow_plaintext=True))
        mail = dict(MESSAGES)  # as this session sees it
        uids = list(mail)
        while not isinstance(event := conn.next_event(), Closed):
            match event:
                case NeedData():
                    conn.receive_data(self.request.recv(4096))
                case SendData(data):
                    self.request.sendall(data)
                case LoginRequested(Password(_, _, b"secret")):
                    conn.answer(LoginAccepted(Listing([len(mail[uid]) for uid in uids], uids)))
                case LoginRequested():
                    conn.answer(LoginRejected(None, "the password is secret"))
                case ContentRequested(number, offset):
                    text = mail[uids[number - 1]]
                    conn.answer(Content(text[offset : offset + 65536], last=offset + 65536 >= len(text)))
                case CommitRequested(numbers):
                    for number in numbers:
                        MESSAGES.pop(uids[number - 1], None)
                    conn.answer(Committed())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8110)
    with socketserver.ThreadingTCPServer(("127.0.0.1", parser.parse_args().port), Session) as server:
        print("listening on 127.0.0.1 port", server.server_address[1], flush=True)
        server.serve_forever()
