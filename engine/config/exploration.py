"""What can be said about the exploration of a policy.

``needs`` of a configuration is what its exploration needs of a prediction beside the mean.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from engine.config.base import Model
from engine.prediction import Part

_NOTHING: frozenset[Part] = frozenset()
_STD: frozenset[Part] = frozenset({"std"})
_MEMBERS: frozenset[Part] = frozenset({"members"})
_ROWS: frozenset[Part] = frozenset({"rows"})


class _Plain(Model):
    @property
    def needs(self) -> frozenset[Part]:
        return _NOTHING


class _Scheduled(_Plain):
    """Greediness that grows with what was learned: gamma = scale * learned ** exponent."""

    gamma_scale: float = Field(10.0, ge=0, allow_inf_nan=False)
    gamma_exponent: float = Field(0.5, ge=0, le=1)


class UniformConfig(_Plain):
    """Every available action with the same probability."""

    kind: Literal["uniform"] = "uniform"


class FirstConfig(_Plain):
    """Uniform for the first feedbacks, then the best action alone."""

    kind: Literal["first"] = "first"
    feedbacks: int = Field(1_000, ge=0, description="learned from uniform exploration")


class EpsilonGreedyConfig(_Plain):
    """The best action, and all alike with a share of epsilon."""

    kind: Literal["epsilon_greedy"] = "epsilon_greedy"
    epsilon: float = Field(0.05, ge=0, le=1)
    decay_after: int | None = Field(
        None, ge=1, description="feedbacks t0 for epsilon * (t0 / (learned + t0)) ** (1/3); none: epsilon stays"
    )


class SoftmaxConfig(_Plain):
    """Probabilities proportional to exp(lambda * score), lambda = scale * learned ** exponent."""

    kind: Literal["softmax"] = "softmax"
    lambda_scale: float = Field(10.0, ge=0, allow_inf_nan=False)
    lambda_exponent: float = Field(0.0, ge=0, le=1)


class SquareCBConfig(_Scheduled):
    """Inverse gap weighting with gamma = scale * learned ** exponent."""

    kind: Literal["squarecb"] = "squarecb"
    form: Literal["remainder", "normalised"] = Field(
        "remainder", description="the best action takes what the others leave, or all are weighed by one rule"
    )
    eliminate: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="standard deviations beyond which one is out; none: all are in",
    )

    @property
    def needs(self) -> frozenset[Part]:
        """Standard deviations, to eliminate."""
        return _NOTHING if self.eliminate is None else _STD


class FastCBConfig(_Scheduled):
    """Inverse gap weighting that explores less where little can be lost."""

    kind: Literal["fastcb"] = "fastcb"
    least_loss: float = Field(1e-6, ge=0, le=1, description="the least loss counts as no less than this")


class FalconConfig(_Plain):
    """Inverse gap weighting in epochs, each longer than the one before by a factor."""

    kind: Literal["falcon"] = "falcon"
    constant: float = Field(0.5, ge=0, allow_inf_nan=False, description="1/2: FALCON+; 1/30: FALCON")
    complexity: float = Field(10.0, gt=0, allow_inf_nan=False, description="of the oracle: about its coefficients")
    growth: float = Field(2.0, ge=1.01, le=16, description="of the epochs' ends: 2 doubles what was learned in each")


class RegCBConfig(_Plain):
    """Actions that may be the best one, by confidence bounds."""

    kind: Literal["regcb"] = "regcb"
    mode: Literal["elimination", "optimistic"] = "elimination"
    beta: float = Field(1.0, ge=0, allow_inf_nan=False, description="standard deviations, times sqrt(log(e + K n))")
    width: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="half the bounds' distance in units of the range; none: by beta"
    )

    @property
    def needs(self) -> frozenset[Part]:
        """Standard deviations, unless the width is said."""
        return _STD if self.width is None else _NOTHING


class LinUCBConfig(Model):
    """The action with the highest upper bound, alone."""

    kind: Literal["linucb"] = "linucb"
    alpha: float = Field(1.0, ge=0, allow_inf_nan=False, description="standard deviations above the mean")

    @property
    def needs(self) -> frozenset[Part]:
        """Standard deviations."""
        return _STD


class LinTSConfig(Model):
    """The probability of being the best when each action's value is normal and independent of the others'."""

    kind: Literal["lints"] = "lints"
    scale: float = Field(1.0, ge=0, allow_inf_nan=False, description="factor on every standard deviation")

    @property
    def needs(self) -> frozenset[Part]:
        """Standard deviations."""
        return _STD


class BagConfig(Model):
    """The share of an ensemble's members for which an action is the best."""

    kind: Literal["bag"] = "bag"

    @property
    def needs(self) -> frozenset[Part]:
        """Members."""
        return _MEMBERS


class CoverConfig(Model):
    """The votes of a cover's members, with a least probability that falls as more is learned."""

    kind: Literal["cover"] = "cover"
    epsilon: float | None = Field(
        None, ge=0, le=1, description="least probability is epsilon / K; none: min(1 / K, 1 / sqrt(K learned))"
    )
    uniform: bool = Field(True, description="actions without a vote get the least probability too")

    @property
    def needs(self) -> frozenset[Part]:
        """Members."""
        return _MEMBERS


class TopConfig(_Plain):
    """Only the actions with the best scores are considered, and those that tie with the last of them."""

    kind: Literal["top"] = "top"
    count: int = Field(100, ge=1)


class SpannerCandidatesConfig(Model):
    """The actions with the best scores are considered, and a spanner of all."""

    kind: Literal["spanner"] = "spanner"
    count: int = Field(100, ge=1)

    @property
    def needs(self) -> frozenset[Part]:
        """Rows."""
        return _ROWS


CandidatesConfig = Annotated[TopConfig | SpannerCandidatesConfig, Field(discriminator="kind")]


class _OverCandidates(_Scheduled):
    candidates: CandidatesConfig | None = Field(None, description="actions that are considered; none: all")

    @property
    def needs(self) -> frozenset[Part]:
        """What the choice of candidates needs."""
        return _NOTHING if self.candidates is None else self.candidates.needs


class SmoothIGWConfig(_OverCandidates):
    """Inverse gap weighting for very many actions, held against the best share 1 / tau of them."""

    kind: Literal["smooth_igw"] = "smooth_igw"
    tau: float = Field(10.0, ge=1, allow_inf_nan=False)


class CappedIGWConfig(_OverCandidates):
    """Inverse gap weighting for very many actions, none of which gets more than tau / K."""

    kind: Literal["capped_igw"] = "capped_igw"
    tau: float = Field(10.0, ge=1, allow_inf_nan=False)


class SpannerIGWConfig(_OverCandidates):
    """Inverse gap weighting over few actions that span all."""

    kind: Literal["spanner_igw"] = "spanner_igw"

    @property
    def needs(self) -> frozenset[Part]:
        """Rows."""
        return _ROWS


class FloorConfig(Model):
    """A least probability around another exploration."""

    kind: Literal["floor"] = "floor"
    epsilon: float = Field(0.05, ge=0, le=1, description="no action gets less than epsilon / K")
    method: Literal["mix", "project"] = "mix"
    inner: ExplorationConfig = SquareCBConfig()

    @property
    def needs(self) -> frozenset[Part]:
        """What the inner one needs."""
        return self.inner.needs


class CapConfig(Model):
    """A greatest probability around another exploration."""

    kind: Literal["cap"] = "cap"
    most: float = Field(0.9, gt=0, le=1, description="no action gets more, but 1 / K")
    inner: ExplorationConfig = SquareCBConfig()

    @property
    def needs(self) -> frozenset[Part]:
        """What the inner one needs."""
        return self.inner.needs


ExplorationConfig = Annotated[
    UniformConfig
    | FirstConfig
    | EpsilonGreedyConfig
    | SoftmaxConfig
    | SquareCBConfig
    | FastCBConfig
    | FalconConfig
    | RegCBConfig
    | LinUCBConfig
    | LinTSConfig
    | BagConfig
    | CoverConfig
    | SmoothIGWConfig
    | CappedIGWConfig
    | SpannerIGWConfig
    | FloorConfig
    | CapConfig,
    Field(discriminator="kind"),
]
FloorConfig.model_rebuild()
CapConfig.model_rebuild()
