"""What can be said about the gRPC server."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from engine.config.base import Milliseconds, Model


class ServingConfig(Model):
    """The gRPC server."""

    host: str = "127.0.0.1"
    port: int = Field(8180, ge=0, le=65_535, description="0: any free port")
    workers: int = Field(8, ge=1, le=256, description="threads that answer requests")
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
    drain: Milliseconds = Field(1_000, ge=0, description="time between not-ready and no new requests")
    drain_grace: Milliseconds = Field(10_000, ge=0, description="time for requests under way to end")
