"""Two engines joined without a network: a whole POP3 session between them, printed as a dialogue.

Neither engine does any I/O, so "the network" is passing octets from one to the other. Run it:

    python examples/two_engines.py
"""

from pop3core import ClientConnection, Listing, ServerConnection
from pop3core.answers import Committed, Content, LoginAccepted, TlsEstablished
from pop3core.commands import Dele, Pass, Quit, Retr, Stat, User
from pop3core.events import (
    Closed,
    CommitRequested,
    ContentRequested,
    Disconnected,
    LoginRequested,
    NeedData,
    SendData,
)

MESSAGES = [b"Subject: hello\r\n\r\nFrom engine to engine.\r\n.\r\n", b"Subject: second\r\n\r\nGoes away.\r\n"]


def serve(server: ServerConnection, said: bytes) -> bytes:
    """Give the server what the client said; what it answers."""
    if said:
        server.receive_data(said)
    answer = b""
    while True:
        match server.next_event():
            case SendData(data):
                answer += data
            case LoginRequested():
                server.answer(LoginAccepted(Listing([len(text) for text in MESSAGES], [b"first", b"second"])))
            case ContentRequested(number, offset):
                server.answer(Content(MESSAGES[number - 1][offset:], last=True))
            case CommitRequested(numbers):
                print(f"   (the server removes {numbers})")
                server.answer(Committed())
            case NeedData() | Closed():
                return answer


def main() -> None:
    """One session."""
    server, client = ServerConnection(), ClientConnection()
    for side in (server, client):
        side.answer(TlsEstablished())  # nobody listens in: passwords may be said
    for command in (User("alice"), Pass(b"secret"), Stat(), Retr(1), Dele(2), Quit()):
        client.send(command)  # all at once: each waits for its turn

    arriving = serve(server, b"")
    while True:
        match client.next_event():
            case NeedData():
                for line in arriving.decode().splitlines():
                    print(f"S: {line}")
                client.receive_data(arriving)
                arriving = b""
            case SendData(data):
                print(f"C: {data.decode().strip()}")
                arriving += serve(server, data)
            case Disconnected():
                return
            case event:
                print(f"   {event}")


if __name__ == "__main__":
    main()
