"""The Python client: plain values in, plain values out, retries that change nothing; see docs/client.md."""

from __future__ import annotations

from engine.client.asynchronous import AsyncClient
from engine.client.blocking import LeewayClient
from engine.client.fallback import Fallback
from engine.client.messages import (
    Candidate,
    Choice,
    Decided,
    Plain,
    Recommended,
    RecommendedItem,
    Refused,
    decide_request,
    recommend_request,
    report_request,
    value_of,
)
from engine.client.outbox import OutboxFull
from engine.client.reporter import AsyncReporter, Reporter

__all__ = [
    "AsyncClient",
    "AsyncReporter",
    "Candidate",
    "Choice",
    "Decided",
    "Fallback",
    "LeewayClient",
    "OutboxFull",
    "Plain",
    "Recommended",
    "RecommendedItem",
    "Refused",
    "Reporter",
    "decide_request",
    "recommend_request",
    "report_request",
    "value_of",
]
