"""The weight eta of a change hypothesis in R-BOCPD: what sets its false-alarm level.

With r the start of the segment, s the supposed start of the new one and t now, let n1 = s - r, n2 = t - s + 1,
n = n1 + n2, and K the number of categories. ``Budget`` chooses a weight by the false alarms that are allowed; the
others are given outright. The formulas are evaluated in ``monitoring.rbocpd.kernel``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import ClassVar, Protocol

from monitoring.state import Scalar

#: Most parameters of a weight.
PARAMETERS = 7
#: So many horizons on, a ``ShapedWeight`` has fallen by the whole of its ``fall``.
FALLEN = 8.0


def _positive(name: str, value: float) -> None:
    if not 0.0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number, got {value}")


def _probability(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name} must lie between 0 and 1, got {value}")


class Weight(Protocol):
    """A weight, as the kernel takes it: the number of its formula and up to ``PARAMETERS`` parameters."""

    formula: ClassVar[int]

    @property
    def parameters(self) -> tuple[float, ...]:
        """What the formula is computed from."""


@dataclass(frozen=True, slots=True)
class ShapedWeight:
    """eta = scale q**exponent (min(max(q, knee), ceiling) / knee)**late_exponent / fall(n), q = n1 n2 / n: calibrated.

    A Bayes factor prefers early and late splits by q**(-(K-1)/2) over the likelihood ratio; ``exponent`` (K-1)/2 takes
    that back. There are about n/q independent places at scale q for chance to strike, so that small q are where false
    alarms come from; ``late_exponent`` pays long evidence back for that, from q = ``knee`` to the ``ceiling``. With
    both exponents 0 it is the constant weight of the code that Alami et al. (2020) published, there 1/T. Quick, and
    nothing is proved.

    Parameters
    ----------
    scale
        c > 0; false alarms grow about in proportion to it.
    exponent
        g >= 0.
    knee
        q from which on the second factor counts, at least 1.
    late_exponent
        At least 0.
    ceiling
        q up to which the second factor grows, at least ``knee``.
    fall
        By what the weight is divided in the long run, at least 1.
    horizon
        Observations of a segment from which on it is divided by more than 1, at least 1.
    """

    formula: ClassVar[int] = 0

    scale: float
    exponent: float = 0.0
    knee: float = 1.0
    late_exponent: float = 0.0
    ceiling: float = 1e15
    fall: float = 1.0
    horizon: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no weight."""
        _positive("scale", self.scale)
        for name in ("exponent", "late_exponent"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number >= 0, got {getattr(self, name)}")
        if not 1.0 <= self.knee < math.inf:
            raise ValueError(f"knee must be a number >= 1, got {self.knee}")
        for name in ("fall", "horizon"):
            if not 1.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number >= 1, got {getattr(self, name)}")
        if not self.knee <= self.ceiling < math.inf:
            raise ValueError(f"ceiling must be a number >= knee, got {self.ceiling}")

    @property
    def parameters(self) -> tuple[float, ...]:
        """Log c, g, the late exponent, log knee, log ceiling, log fall over log 8, log horizon."""
        bounds = math.log(self.knee), math.log(self.ceiling)
        falling = math.log(self.fall) / math.log(FALLEN), math.log(self.horizon)
        return math.log(self.scale), self.exponent, self.late_exponent, *bounds, *falling


@dataclass(frozen=True, slots=True)
class InverseLengthWeight:
    """eta = scale / n: the choice of Alami et al. (2020, 2023), ``scale`` 1. With it every second stationary stream
    raises an alarm within 1 000 observations, so it is here for comparison.

    Parameters
    ----------
    scale
        Greater than 0.
    """

    formula: ClassVar[int] = 1

    scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no weight."""
        _positive("scale", self.scale)

    @property
    def parameters(self) -> tuple[float, ...]:
        """Log of the scale."""
        return (math.log(self.scale),)


@dataclass(frozen=True, slots=True)
class AnytimeWeight:
    """eta = delta / (n1 (n1 + 1) C(n + K - 1, K - 1)): P(any alarm, ever, on a stationary stream) <= delta, proved.

    Fix s. exp(-L(r:s-1) - L(s:t)) / P(x_r..x_t) is a martingale of mean 1 under any constant probabilities, because
    the numerator is a sequence of probabilities given the past. The true likelihood P is at most
    C(n + K - 1, K - 1) exp(-L(r:t)) with Laplace's rule, so an alarm forces the martingale above n1 (n1 + 1) / delta.
    The 1 / (n1 (n1 + 1)) sum to 1 over s, and Ville's inequality bounds the chance that their mixture ever exceeds
    1 / delta. It needs no horizon and holds for every subset of the s. It counts from the start of a segment; a
    segment that was re-seeded at an estimated change begins at a position chosen from the data, for which the
    statement is no longer exact. It pays in delay: 69 observations where a calibrated weight needs 25.

    Parameters
    ----------
    delta
        The bound, in (0, 1). For S streams together use delta / S.
    """

    formula: ClassVar[int] = 2

    delta: float

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        _probability("delta", self.delta)

    @property
    def parameters(self) -> tuple[float, ...]:
        """Log delta."""
        return (math.log(self.delta),)


@dataclass(frozen=True, slots=True)
class TheoremWeight:
    """The greatest eta that theorem 4.6 of Alami (2023) allows for P(any alarm on a stationary stream) <= delta.

    prod_{i<K} (n1+i)(n2+i)/(n+i) * e^(2b) / ((n1 n2)^((K-1)/2) (K-1)!) * (log(4a+2) delta^2 / (4n log((a+3)n)))^a
    with b = -K/12 - (K-1)/2 log 2pi + K/2 log K. A heuristic rather than a guarantee: the last step of the printed
    proof does not follow. It raised no alarm in stationary streams of K <= 10 and is useless from K = 20 on, where it
    exceeds 1 for short segments, and is refused here.

    Parameters
    ----------
    delta
        In (0, 1).
    alpha
        a > 1.
    """

    formula: ClassVar[int] = 3

    delta: float
    alpha: float = 1.01

    def __post_init__(self) -> None:
        """Refuse what the theorem does not cover."""
        _probability("delta", self.delta)
        if not 1.0 < self.alpha < math.inf:
            raise ValueError(f"alpha must be a number > 1, got {self.alpha}")

    @property
    def parameters(self) -> tuple[float, ...]:
        """Delta and alpha."""
        return self.delta, self.alpha


WEIGHTS: dict[str, type[ShapedWeight | InverseLengthWeight | AnytimeWeight | TheoremWeight]] = {
    kind.__name__: kind for kind in (ShapedWeight, InverseLengthWeight, AnytimeWeight, TheoremWeight)
}
AnyWeight = ShapedWeight | InverseLengthWeight | AnytimeWeight | TheoremWeight


def saved_weight(weight: AnyWeight) -> dict[str, Scalar]:
    """Return the weight as fields of a saved state."""
    return {"weight": type(weight).__name__, **{f"weight_{key}": value for key, value in asdict(weight).items()}}


def loaded_weight(saved: dict[str, Scalar]) -> AnyWeight:
    """Return the weight that ``saved_weight`` wrote."""
    kind = WEIGHTS[str(saved["weight"])]
    given = {field.name: saved[f"weight_{field.name}"] for field in fields(kind)}
    return kind(**{name: float(value) for name, value in given.items() if value is not None})
