"""Asking another server for JSON, from threads of our own, within limits of time and size.

No redirection is followed and no proxy of the environment is used: who is asked is who the configuration names.
Certificates are verified against the system's authorities (``SSL_CERT_FILE`` names others).
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import ssl
import time
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote_plus, urlencode

from pop3d.auth import AuthUnavailable

__all__ = ["Asker"]

_SECONDS_MAX: Final = 10.0  # for one answer; a login waits for it
_OCTETS_MAX: Final = 256 * 1024  # a set of some hundred keys
_TOGETHER: Final = 8  # questions under way; others wait, within their time
_PIECE: Final = 16 * 1024


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None  # and so it is an error, with its status


class Asker:
    """Asks one URL."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._headers = {"Accept": "application/json"}
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=ssl.create_default_context()),
            _NoRedirection,
        )
        self._pool = ThreadPoolExecutor(_TOGETHER, thread_name_prefix="pop3d-https")

    def identify(self, client: str, secret: str) -> None:
        """From now on with our name and secret (RFC 6749 §2.3.1)."""
        pair = f"{quote_plus(client)}:{quote_plus(secret)}".encode()
        self._headers = {**self._headers, "Authorization": "Basic " + base64.b64encode(pair).decode()}

    async def ask(self, form: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The JSON object that is answered to GET, or to POST of a ``form``. Raises `AuthUnavailable`."""
        asked = asyncio.get_running_loop().run_in_executor(self._pool, self._ask, form)
        try:
            return await asyncio.wait_for(asked, _SECONDS_MAX)
        except TimeoutError:
            raise AuthUnavailable(f"{self._url} did not answer in {_SECONDS_MAX:g} s") from None

    def _ask(self, form: Mapping[str, str] | None) -> dict[str, Any]:
        deadline = time.monotonic() + _SECONDS_MAX
        data = urlencode(form).encode() if form is not None else None
        request = urllib.request.Request(self._url, data, self._headers)  # noqa: S310  # the configuration allows https
        try:
            with self._opener.open(request, timeout=_SECONDS_MAX) as response:
                found = json.loads(self._read(response, deadline))
        except HTTPError as fault:
            fault.close()
            raise AuthUnavailable(f"{self._url} answers with status {fault.code}") from None
        except URLError as fault:
            raise AuthUnavailable(f"{self._url} cannot be asked: {fault.reason}") from None
        except (OSError, http.client.HTTPException) as fault:
            raise AuthUnavailable(f"{self._url} cannot be asked: {fault or type(fault).__name__}") from None
        except (ValueError, RecursionError):
            raise AuthUnavailable(f"{self._url} answers with what is no JSON") from None
        if not isinstance(found, dict):
            raise AuthUnavailable(f"{self._url} answers with what is no JSON object")
        return found

    def _read(self, response: http.client.HTTPResponse, deadline: float) -> bytes:
        octets = b""
        while piece := response.read1(_PIECE):
            octets += piece
            if len(octets) > _OCTETS_MAX:
                raise AuthUnavailable(f"{self._url} answers with more than {_OCTETS_MAX} octets")
            if time.monotonic() > deadline:
                raise AuthUnavailable(f"{self._url} did not answer in {_SECONDS_MAX:g} s")
        return octets

    def close(self) -> None:
        """Ask no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
