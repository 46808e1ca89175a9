"""A POP3 server on trio (pip install trio). For loopback: it speaks without TLS.

python examples/trio_server.py --port 8110        any user, password "secret"
"""

import argparse
import sys
from functools import partial

from example_mailbox import Mailbox, Visit

from pop3core import Limits, ServerConfig, ServerConnection
from pop3core.events import Closed, MoreWork, NeedData, SendData

try:
    import trio
except ImportError:
    sys.exit("this example needs trio: pip install trio")

IDLE_SECONDS = 600  # RFC 1939 §3: no server is less patient
LIMITS = Limits(turn_commands=16)  # before other connections have their turn


async def serve(stream: trio.SocketStream, *, mailbox: Mailbox) -> None:
    """One connection: do what the engine says until it is closed."""
    conn = ServerConnection(ServerConfig("localhost", allow_plaintext=True, limits=LIMITS))
    visit, deadline = Visit(mailbox), 0.0
    try:
        while not isinstance(event := conn.next_event(), Closed):
            match event:
                case NeedData(resumed):
                    if not resumed:  # a whole command came: the client has its time again
                        deadline = trio.current_time() + IDLE_SECONDS
                    with trio.fail_at(deadline):
                        conn.receive_data(await stream.receive_some(4096))
                case SendData(data):
                    with trio.fail_after(IDLE_SECONDS):
                        await stream.send_all(data)
                case MoreWork():
                    await trio.lowlevel.checkpoint()  # the other connections have their turn
                case _:
                    visit.answer(conn, event)
    except (trio.BrokenResourceError, trio.TooSlowError) as fault:
        print("a connection broke:", fault, flush=True)
    finally:
        visit.close()  # serve_listeners closes the stream


async def main() -> None:
    """Listen until interrupted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8110)
    listeners = await trio.open_tcp_listeners(parser.parse_args().port, host="127.0.0.1")
    print("listening on 127.0.0.1 port", listeners[0].socket.getsockname()[1], flush=True)
    await trio.serve_listeners(partial(serve, mailbox=Mailbox()), listeners)


if __name__ == "__main__":
    trio.run(main)
