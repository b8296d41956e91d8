"""What can be said about the servers."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from engine.config.access import LimitsConfig, TLSConfig
from engine.config.base import Milliseconds, Model
from engine.config.overload import OverloadConfig
from engine.loopback import is_loopback


class HttpConfig(Model):
    """The HTTP/JSON server beside gRPC."""

    host: str = "127.0.0.1"
    port: int = Field(8190, ge=0, le=65_535, description="0: any free port")
    max_requests: int = Field(1_000, ge=1, description="under way at once; beyond it 503, with a time to come again")


class ServingConfig(Model):
    """The gRPC server, and the HTTP server beside it."""

    host: str = "127.0.0.1"
    port: int = Field(8180, ge=0, le=65_535, description="0: any free port")
    processes: int = Field(1, ge=1, le=256, description="that serve on one port; more than 1: see docs/processes.md")
    workers: int = Field(
        8,
        ge=1,
        le=256,
        description="threads of each process that answer requests; but for front threads, those that wait",
    )
    max_concurrent: int = Field(
        1_000, ge=1, description="calls in hand at once, those that wait for a thread among them; one more is refused"
    )
    front: Literal["grpcio", "threads", "lean"] = Field(
        "grpcio",
        description="what speaks gRPC on port; threads: grpcio with its own threads, for policies that think long; "
        "lean: Leeway's own, cheaper, without TLS",
    )
    overload: OverloadConfig = OverloadConfig()
    streams: int = Field(
        32, ge=1, le=1_024, description="streams of decisions at one time, each with threads of its own"
    )
    reflection: bool = True
    default_deadline: Milliseconds = Field(2_000, gt=0, description="for callers that set none")
    scoring_reserve: Milliseconds = Field(2, ge=0, description="less than this left: answer from the fallback")
    durability: Literal["memory", "disk", "broker"] = Field(
        "disk", description="what has a record when its call is answered: this process, its disk, or all of Kafka"
    )
    broker_patience: Milliseconds = Field(
        100, ge=1, description="with durability broker: so long for Kafka, then the disk has to do"
    )
    idempotency_cache: int = Field(100_000, ge=0, description="how many recent decisions are known by id")
    max_message_bytes: int = Field(4_194_304, ge=1_024)
    swap_interval: Milliseconds = Field(200, ge=10, description="how often a new policy is looked for")
    keepalive: Milliseconds = Field(
        30_000,
        ge=1_000,
        description="a client with calls under way that is silent for so long is asked whether it is there; if it does "
        "not answer for as long, its calls end",
    )
    drain: Milliseconds = Field(1_000, ge=0, description="time between not-ready and no new requests")
    drain_grace: Milliseconds = Field(10_000, ge=0, description="time for requests under way to end")
    tls: TLSConfig | None = Field(None, description="none: plain text")
    access_file: Path | None = Field(None, description="tokens and certificates, and what each may do; none: anybody")
    admin_host: str | None = Field(None, description="of the admin service; none: host")
    admin_port: int | None = Field(None, ge=0, le=65_535, description="of the admin service; none: it is on port")
    health_port: int | None = Field(None, ge=0, le=65_535, description="health once more, alone and in plain text")
    audit_log: Path | None = Field(None, description="a JSON line for each admin call; none: the process's log")
    limits: LimitsConfig = LimitsConfig()
    http: HttpConfig | None = Field(None, description="HTTP/JSON beside gRPC; off unless it is given")

    @model_validator(mode="after")
    def _check_ports(self) -> ServingConfig:
        if self.admin_host is not None and self.admin_port is None:
            raise ValueError("admin_host is of the admin service's own port; set admin_port, or leave admin_host out")
        used = [port for port in (self.port, self.admin_port, self.health_port) if port]
        if len(set(used)) < len(used):
            raise ValueError("port, admin_port and health_port must differ")
        return self

    @field_validator("processes")
    @classmethod
    def _can_share(cls, processes: int) -> int:
        if processes > 1 and not hasattr(socket, "SO_REUSEPORT"):
            raise ValueError("several processes share a port by SO_REUSEPORT, which this system does not have; set 1")
        return processes

    @model_validator(mode="after")
    def _check_front(self) -> ServingConfig:
        if self.front == "lean" and self.tls is not None:
            raise ValueError(
                "front lean has no TLS: let front be grpcio, or leave tls out and let a proxy before it on this "
                "machine end TLS"
            )
        return self

    @property
    def decides_at_once(self) -> bool:
        """Whether no call waits for anything: the thread that reads answers all of them."""
        return self.front != "threads" and self.durability == "memory"

    @property
    def turns(self) -> int:
        """How many calls are answered at one time."""
        return self.workers if self.front == "threads" else 1

    @model_validator(mode="after")
    def _check_http(self) -> ServingConfig:
        if self.tls is not None and self.http is not None and not is_loopback(self.http.host):
            raise ValueError(
                f"http.host {self.http.host} is reached from elsewhere, and HTTP is in plain text: let it be 127.0.0.1,"
                " with a proxy before it that ends TLS"
            )
        return self

    def beside(self, directory: Path) -> ServingConfig:
        """Return it with paths that were relative to a directory."""
        changes: dict[str, object] = {"tls": None if self.tls is None else self.tls.beside(directory)}
        for name in ("access_file", "audit_log"):
            path: Path | None = getattr(self, name)
            changes[name] = None if path is None else directory / path
        return self.model_copy(update=changes)
