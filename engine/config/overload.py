"""What can be said about a server of which more is asked than it can answer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from engine.config.base import Model


class RateConfig(Model):
    """How much each client may ask for: a bucket of tokens that fills evenly; a request takes one."""

    per_second: float = Field(gt=0.0, le=1e9, description="requests; those of a batch or stream count one by one")
    burst: int = Field(ge=1, description="requests at once, after a pause")
    clients: int = Field(10_000, ge=1, description="that are told apart; those beyond share one bucket")


class OverloadConfig(Model):
    """The ladder: what is left out as the places for calls that wait fill up. Shares of those places."""

    first: Literal["report", "decide", "none"] = Field(
        "report", description="whose calls go first while calls wait; none: as they come"
    )
    shadow_until: float = Field(0.25, ge=0.0, le=1.0, description="beyond it a policy that looks on is not asked")
    score_until: float = Field(
        0.75, ge=0.0, le=1.0, description="beyond it decisions come from the fallback; 1: never for that"
    )
    rate: RateConfig | None = Field(None, description="of each client; none: no limit")
