"""What a store says of a policy that is tried beside the current one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from engine.config.base import Model


class Challenger(Model):
    """A policy on trial.

    ``canary``: it acts on a share of the units. ``shadow``: it acts on none, and every decision notes the vector that
    it would have drawn from.
    """

    version: str
    mode: Literal["canary", "shadow"]
    share: float = Field(0.1, gt=0.0, lt=1.0, description="of the units that a canary acts on")
    unit: str = Field(
        "", description="text feature of the context whose value is the unit; empty: each decision is one"
    )
    started_ms: int = Field(0, ge=0, description="decisions from this time on count in the comparison")
    registry_version: str = Field("", description="its version in the registry")
