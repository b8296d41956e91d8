"""What can be said about the oracle of a policy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from engine.config.base import Model


class LinearOracleConfig(Model):
    """Per-action ridge regression, learned online from sufficient statistics."""

    kind: Literal["linear"] = "linear"
    ridge: float = Field(1.0, ge=1e-6, allow_inf_nan=False, description="less is lost in rounding beside many rows")
    forgetting: float = Field(
        1.0, gt=0.5, le=1.0, description="weight of an observation one update of its action later"
    )
    max_actions: int = Field(256, ge=1, description="actions with a regression of their own; others share one")
