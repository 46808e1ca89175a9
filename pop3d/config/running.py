"""``[limits]``, ``[log]`` and ``[metrics]``: what a daemon bears, and what it tells."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pop3d.config.base import Model, host_of
from pop3d.extras import install_line

__all__ = ["Limits", "Log", "Metrics"]

Seconds = Annotated[float, Field(ge=1, le=86_400)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class Limits(Model):
    """``[limits]``: what clients may cost. Times in seconds."""

    connections: Count = 10_000
    connections_per_ip: Count = 100
    unauthenticated: Count = 1_000
    unauthenticated_per_ip: Count = 50
    handshake_timeout: Seconds = 10
    login_timeout: Seconds = 45
    write_timeout: Seconds = 60
    lmtp_connections: Count = 100
    lost_after: Annotated[float, Field(ge=3, le=86_400)] = 90  # three probes, a second apart, are the least
    idle_timeout: Seconds = 600  # RFC 1939 §3: at least ten minutes
    bad_commands: Count = 20
    max_auth_failures: Count = 3
    auth_penalty: Annotated[float, Field(ge=0, le=60)] = 2.0
    auth_penalty_max: Annotated[float, Field(ge=0, le=60)] = 15.0
    auth_failures_per_account: Count = 30
    auth_failures_total: Count = 600
    login_delay: Annotated[int, Field(ge=0, le=86_400)] = 0

    @model_validator(mode="after")
    def _penalties_grow(self) -> Limits:
        if self.auth_penalty_max < self.auth_penalty:
            raise ValueError("`auth_penalty_max` is less than `auth_penalty`, where penalties begin")
        return self


class Log(Model):
    """``[log]``: what is told, and how."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"
    file: Path | None = None
    """None: standard error."""

    @field_validator("file", mode="before")
    @classmethod
    def _none_is_none(cls, file: object) -> object:
        return file or None


class Metrics(Model):
    """``[metrics]``: where Prometheus may ask."""

    listen: str = "127.0.0.1:9195"

    @field_validator("listen")
    @classmethod
    def _host_and_port(cls, listen: str) -> str:
        host, _, port = listen.rpartition(":")
        if not host or (":" in host) != (host[0] == "[" and host[-1] == "]"):
            raise ValueError('say host and port, such as "127.0.0.1:9195", "[::1]:9195" or "*:9195"')
        host_of(host)
        if not port.isascii() or not port.isdecimal() or int(port) > 65_535:
            raise ValueError("a port is a number up to 65535")
        return listen

    @model_validator(mode="after")
    def _extra_is_installed(self) -> Metrics:
        if importlib.util.find_spec("prometheus_client") is None:
            raise ValueError(f"prometheus-client is missing: {install_line('metrics')}")
        return self

    @property
    def host(self) -> str:
        """Where to listen: see `pop3d.config.base.host_of`."""
        return host_of(self.listen.rpartition(":")[0])

    @property
    def port(self) -> int:
        """0: any that is free."""
        return int(self.listen.rpartition(":")[2])
