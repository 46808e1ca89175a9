"""Requests to the servers of others end in time, whatever comes back."""

import asyncio
import socketserver
import threading
import time

import pytest

from pop3d.auth import AuthUnavailable
from pop3d.auth.http_client import HttpClient


class Dripping(socketserver.ThreadingTCPServer):
    """Answers with one octet after the other, and never comes to an end. ``gone``: clients that gave up."""

    daemon_threads = True

    def __init__(self, beginning: bytes) -> None:
        outer, self.gone = self, 0

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                try:
                    self.request.recv(4096)
                    self.request.sendall(beginning)
                    while not time.sleep(0.01):
                        self.request.sendall(b"x")
                except OSError:
                    outer.gone += 1

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.01,)).start()


@pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n{"])
async def test_an_answer_without_an_end_holds_nothing_up(beginning: bytes) -> None:
    server = Dripping(beginning)
    # long enough for all eight to have come to the server, on a busy machine too: else some are never gone
    asker = HttpClient(f"http://127.0.0.1:{server.server_address[1]}/", seconds_max=2)
    try:
        asked = await asyncio.gather(*(asker.ask() for _ in range(8)), return_exceptions=True)
        assert all(isinstance(one, AuthUnavailable) for one in asked), asked
        async with asyncio.timeout(30):
            while server.gone < 8:  # all threads are free again
                await asyncio.sleep(0.01)
    finally:
        server.shutdown()
        server.server_close()
        asker.close()
