"""An OAuth 2 issuer for tests: real keys, real tokens, and a real HTTP server on loopback for its keys and its word."""

import base64
import json
import ssl
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from joserfc.jwk import ECKey, Key, KeySet, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

KEYS: dict[str, Key] = {
    "RS256": RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"}),
    "PS256": RSAKey.generate_key(2048, {"kid": "pss", "alg": "PS256"}),
    "ES256": ECKey.generate_key("P-256", {"kid": "ec"}),
    "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "ed"}),
}
NAME = "https://issuer.example.org/realm"
AUDIENCE = "pop3"
CLIENT, SECRET = "pop3d", "s e:c%ret"


def key_set(*keys: Key) -> dict[str, Any]:
    return dict(KeySet(list(keys or KEYS.values())).as_dict(private=False))


def claims(**others: Any) -> dict[str, Any]:
    """Good ones, for alice; ``None`` takes one away."""
    now = int(time.time())
    all_of_them = {
        "iss": NAME, "aud": ["account", AUDIENCE], "exp": now + 300, "nbf": now - 5, "iat": now - 5,
        "sub": "1f0c", "email": "alice", "email_verified": True, "scope": "openid mail", **others,
    }  # fmt: skip
    return {name: value for name, value in all_of_them.items() if value is not None}


def token(alg: str = "ES256", *, key: Key | None = None, header: dict[str, Any] | None = None, **others: Any) -> str:
    """Signed by the issuer's key for ``alg``, or by another."""
    signed_with = key or KEYS[alg]
    return signed({"alg": alg, "typ": "JWT", "kid": signed_with.kid, **(header or {})}, claims(**others), signed_with)


def signed(header: dict[str, Any], body: object, key: Key) -> str:
    """Whatever is in it."""
    text = f"{part(header)}.{part(body)}"
    return f"{text}.{base64url(JWSRegistry.algorithms[header['alg']].sign(text.encode(), key))}"


def part(value: object) -> str:
    return base64url(json.dumps(value).encode())


def base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).decode().rstrip("=")


class Issuer:
    """``/keys`` and ``/introspect`` at ``url``; what they answer, and how often they were asked, are attributes."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.keys: object = key_set()
        self.known: dict[str, dict[str, Any]] = {}
        self.status = 200
        self.asked: Counter[str] = Counter()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(outer.keys if isinstance(outer.keys, bytes) else json.dumps(outer.keys).encode())

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                pair = base64.b64encode(b"pop3d:s+e%3Ac%25ret").decode()  # RFC 6749 §2.3.1
                if self.headers["Authorization"] != f"Basic {pair}":
                    self.send_error(401)
                    return
                said = outer.known.get(form["token"][0])
                self.answer(json.dumps({"active": said is not None, **(said or {})}).encode())

            def answer(self, octets: bytes) -> None:
                outer.asked[self.path] += 1
                self.send_response(outer.status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(octets)))
                self.end_headers()
                self.wfile.write(octets)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        scheme = "http"
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
