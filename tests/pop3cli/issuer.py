"""A small issuer of OAuth 2 tokens on loopback: real HTTP, real forms, and a person who is told what to do."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pop3cli.auth.oauth import OAuthClient, Provider

CLIENT = OAuthClient("our-id", "mail offline_access")


class Issuer:
    """``answers``: what the next requests to the token endpoint get, then ``answer``, each a status and an object."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, Any]]] = []
        self.answer: tuple[int, dict[str, Any]] = (200, self.tokens("access-1", "refresh-1"))
        self.device: dict[str, Any] = {}
        self.description: dict[str, Any] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append((self.path, {}))
                found = issuer.described() if self.path.startswith("/.well-known/") else None
                self.say(404 if found is None else 200, found or {})

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"])).decode()
                form = {key: values[0] for key, values in parse_qs(content).items()}
                issuer.asked.append((self.path, form))
                if self.path == "/device":
                    self.say(200, issuer.described_device())
                else:
                    self.say(*(issuer.answers.pop(0) if issuer.answers else issuer.answer))

            def say(self, status: int, found: dict[str, Any]) -> None:
                body = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @staticmethod
    def tokens(access: str, refresh: str = "", expires_in: float | None = 3600) -> dict[str, Any]:
        return {"access_token": access, "refresh_token": refresh, "expires_in": expires_in, "token_type": "Bearer"}

    def described(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "token_endpoint": f"{self.url}/token",
            "device_authorization_endpoint": f"{self.url}/device",
            "authorization_endpoint": f"{self.url}/authorize",
            **self.description,
        }

    def described_device(self) -> dict[str, Any]:
        return {
            "device_code": "a device's code",
            "user_code": "ABCD-EFGH",
            "verification_uri": f"{self.url}/activate",
            "expires_in": 900,
            "interval": 1,
            **self.device,
        }

    def forms(self, path: str = "/token") -> list[dict[str, str]]:
        return [form for asked, form in self.asked if urlsplit(asked).path == path]


@contextmanager
def issuing() -> Iterator[Issuer]:
    issuer = Issuer()
    thread = threading.Thread(target=issuer.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield issuer
    finally:
        issuer.server.shutdown()
        issuer.server.server_close()
        thread.join(10)


def provider_at(issuer: Issuer) -> Provider:
    return Provider(issuer.url, f"{issuer.url}/token")
