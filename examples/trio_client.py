"""A POP3 client on trio (pip install trio): writes all messages of a server on this host to stdout.

python examples/trio_client.py --port 8110
"""

import argparse
import sys

from example_fetch import Fetch, arguments

from pop3core import ClientConfig, ClientConnection
from pop3core.events import Disconnected, NeedData, SendData

try:
    import trio
except ImportError:
    sys.exit("this example needs trio: pip install trio")


async def run(options: argparse.Namespace) -> list[str]:
    """One session; what the server refused."""
    conn = ClientConnection(ClientConfig(allow_plaintext=True))
    fetch = Fetch(conn, options)
    async with await trio.open_tcp_stream("127.0.0.1", options.port) as stream:
        while not isinstance(event := conn.next_event(), Disconnected):
            match event:
                case NeedData():
                    with trio.fail_after(60):
                        conn.receive_data(await stream.receive_some(65536))
                case SendData(data):
                    await stream.send_all(data)
                case _:
                    fetch.heard(event)
    return fetch.refused if event.expected else [*fetch.refused, "the server went away"]


if __name__ == "__main__":
    sys.exit("\n".join(trio.run(run, arguments(__doc__).parse_args())) or 0)
