"""What can be said about the oracle of a policy."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from engine.config.base import Milliseconds, Model, Name


class LinearOracleConfig(Model):
    """Per-action ridge regression, learned online from sufficient statistics."""

    kind: Literal["linear"] = "linear"
    ridge: float = Field(1.0, ge=1e-6, allow_inf_nan=False, description="less is lost in rounding beside many rows")
    forgetting: float = Field(
        1.0, gt=0.5, le=1.0, description="weight of an observation one update of its action later"
    )
    max_actions: int = Field(256, ge=1, description="actions with a regression of their own; others share one")


Text = Annotated[str, Field(min_length=1)]
StateActions = Annotated[tuple[Text, ...], Field(min_length=1, max_length=256)]


class UCRL2OracleConfig(Model):
    """A plan over the states that a user goes through, learned online by UCRL2 (``engine.sequential``)."""

    kind: Literal["ucrl2"]
    state: Name = Field(description="text feature of the context that names the user's state")
    unit: Name = Field(description="text feature of the context that names the user, session or order in that state")
    states: dict[Text, StateActions] = Field(
        min_length=1, max_length=256, description="every state, and the actions that it may have"
    )
    terminal: tuple[Text, ...] = Field((), description="states whose decision is the last of its unit")
    idle: Milliseconds = Field(1_800_000, gt=0, description="after so long without a decision a unit is at its end")
    patience: Milliseconds = Field(10_000, ge=0, description="by how much feedback may come out of order")
    max_units: int = Field(100_000, ge=1, description="units that are remembered between two of their decisions")
    delta: float = Field(0.05, gt=0, lt=1, description="of the confidence sets, and of a false restart of a segment")
    width_scale: float = Field(1.0, gt=0, allow_inf_nan=False, description="factor on the widths of the proof")
    restarts: bool = Field(True, description="begin anew when a detector says that the process has changed")

    @property
    def actions(self) -> tuple[str, ...]:
        """The actions of all states, each once."""
        return tuple(dict.fromkeys(action for actions in self.states.values() for action in actions))

    @model_validator(mode="after")
    def _check(self) -> UCRL2OracleConfig:
        for state, actions in self.states.items():
            if len(set(actions)) < len(actions):
                raise ValueError(f"states.{state} {list(actions)} names an action twice; list each once")
        if unknown := [state for state in self.terminal if state not in self.states]:
            raise ValueError(f"terminal names {unknown}, which states does not declare; declare them there")
        if self.unit == self.state:
            raise ValueError(f"unit and state are both {self.unit!r}; they are two features")
        return self


def _kind(value: Any) -> str:
    kind = value.get("kind", "linear") if isinstance(value, dict) else getattr(value, "kind", "linear")
    return str(kind)


OracleConfig = Annotated[
    Annotated[LinearOracleConfig, Tag("linear")] | Annotated[UCRL2OracleConfig, Tag("ucrl2")], Discriminator(_kind)
]
