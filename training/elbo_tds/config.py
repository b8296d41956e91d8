"""What can be set of ELBO_TDS; the defaults are those of the authors' released code where it has one."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from engine.config import Model


class AugmentationConfig(Model):
    """How the copies of a row differ from it: one law for each kind of field."""

    statistical: Literal["jitter", "none"] = Field("jitter", description="move to a near bucket")
    categorical: Literal["element", "field", "none"] = Field(
        "element", description="element: drop coordinates of a field that was hit; field: blank the whole field"
    )
    sequential: Literal["mask", "none"] = Field("mask", description="leave entries out (the released code does not)")
    p: float = Field(0.2, ge=0.0, lt=1.0, description="probability of a perturbation, each field, row and copy alone")
    jitter: int = Field(2, ge=1, le=100, description="most buckets that the jitter moves by")
    fields: tuple[str, ...] | None = Field(
        None, description="only these fields, such as those that an analysis found to shift; null: all, as released"
    )


class PenaltyConfig(Model):
    """Invariant learning over environments, which are days: the baselines IRM and V-REx."""

    kind: Literal["irm", "vrex"]
    weight: float = Field(1.0, gt=0.0, allow_inf_nan=False)
    days: int = Field(3, ge=1, le=30, description="earlier days of which sessions are kept as environments")
    sessions: int = Field(512, ge=1, description="the first so many sessions of each day are kept")


class ElboTdsConfig(Model):
    """Model, objective and optimiser; ``alpha`` 0 is the control with the same bottleneck, without it it is ERM."""

    embedding: int = Field(16, ge=1, le=1_024, description="size of a field's embedding")
    latent: int = Field(256, ge=1, le=8_192, description="d_z, size of a latent")
    hidden: tuple[Annotated[int, Field(ge=1, le=8_192)], ...] = Field(
        (128, 64, 32), min_length=1, description="widths of the tower network; the last is the size of a task's vector"
    )
    bottleneck: bool = Field(True, description="the linear encoder; without it the network stands on x itself")
    alpha: float = Field(0.01, ge=0.0, allow_inf_nan=False, description="weight of the self-supervised terms")
    copies: int = Field(4, ge=2, le=64, description="M, augmented copies of a row")
    augmentation: AugmentationConfig = AugmentationConfig()
    reconstruction: bool = Field(True, description="the term that keeps latents from collapsing")
    prior: bool = Field(True, description="the term that draws a row's latents together")
    target: Literal["augmented", "clean"] = Field("augmented", description="what is reconstructed")
    variance: Literal["fixed", "learned"] = Field(
        "fixed", description="of the posterior: 1, or a linear head; then the entropy term stands in the loss"
    )
    noise: Literal["sampled", "expected"] = Field(
        "sampled", description="draw z, or take the terms' exact expectation over it"
    )
    user_draws: Literal["row", "session"] = Field(
        "row", description="copies of the user for each row, or once a session; the expected loss is the same"
    )
    predict: Literal["clean", "copies"] = Field("clean", description="rows that the labels are learned on")
    penalty: PenaltyConfig | None = None
    learning_rate: float = Field(3e-4, gt=0.0, le=1.0)
    batch_sessions: int = Field(32, ge=1, le=65_536)
    passes: int = Field(1, ge=1, le=1_000, description="over each day")
    embedding_deviation: float = Field(0.1, gt=0.0, allow_inf_nan=False, description="of an embedding's first values")
    min_count: int = Field(2, ge=1, description="a category that comes less often in a day stays unseen")
    seed: int = Field(42, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.alpha > 0.0 and not self.bottleneck:
            raise ValueError(
                f"alpha is {self.alpha} but bottleneck is off: the self-supervised terms are of the encoder's latents; "
                "set alpha to 0 (ERM) or leave bottleneck on"
            )
        if self.alpha > 0.0 and not (self.reconstruction or self.prior):
            raise ValueError(
                f"alpha is {self.alpha} but reconstruction and prior are both off; set alpha to 0 or one of them on"
            )
        if self.variance == "learned" and not self.self_supervised:
            raise ValueError("variance: learned, but alpha is 0, so that nothing would train it; use fixed")
        if self.penalty is not None and self.predict == "copies":
            raise ValueError("penalty: the risks of environments are those of clean rows; use predict: clean")
        return self

    @property
    def self_supervised(self) -> bool:
        """Whether the loss has reconstruction, entropy or prior."""
        return self.alpha > 0.0
