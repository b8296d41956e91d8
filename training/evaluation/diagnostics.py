"""Whether a log can say anything about a policy: support, overlap, and a self-test of the logged propensities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.evaluation.base import LoggedRows

#: Weights above this are cut for the self-test alone, so that its mean is close to normal on a few hundred rows.
CLIP = 10.0


def unsupported_mass(rows: LoggedRows) -> float:
    """Return the mean probability that the target policy gives to actions that could not have been drawn.

    About these the log knows nothing: every estimate by weights counts their reward as 0.
    """
    return float(np.where(rows.logged == 0.0, rows.target, 0.0).sum() / len(rows))


@dataclass(frozen=True)
class Divergence:
    """How far the target policy is from the one that logged.

    Attributes
    ----------
    total_variation : float
        Mean over rows of ``sum_a |pi(a) - p(a)| / 2``, in [0, 1]: the share of decisions that would have been others.
    kl : float
        Mean over rows of ``sum_a pi(a) ln(pi(a) / p(a))``, in nats; infinite where support is missing.
    """

    total_variation: float
    kl: float


def divergence(rows: LoggedRows) -> Divergence:
    """Return the mean divergence of the target policy from the logging policy.

    >>> rows = LoggedRows(starts=np.array([0, 2]), chosen=np.array([0]), reward=np.array([1.0]),
    ...     logged=np.array([0.5, 0.5]), target=np.array([0.9, 0.1]))
    >>> found = divergence(rows)
    >>> round(found.total_variation, 3), round(found.kl, 3)
    (0.4, 0.368)
    """
    used = rows.target > 0.0
    target, logged = rows.target[used], rows.logged[used]
    with np.errstate(divide="ignore"):  # an action that could not have been drawn: infinitely far
        kl = float((target * np.log(target / logged)).sum()) / len(rows)
    return Divergence(float(np.abs(rows.target - rows.logged).sum()) / (2.0 * len(rows)), max(kl, 0.0))


@dataclass(frozen=True)
class WeightTest:
    """The mean importance weight against what it must be if the logged propensities are true.

    Attributes
    ----------
    mean : float
        Mean found, of weights clipped at ``CLIP``.
    expected : float
        Mean under the logged vectors: 1 less the unsupported mass and less what is clipped.
    standard_error : float
        Of the mean, under the logged vectors.
    """

    mean: float
    expected: float
    standard_error: float

    @property
    def z(self) -> float:
        """Deviation in standard errors; 0 where weights cannot vary and are right."""
        # Weights of a policy compared with itself are all 1: rounding alone must not look like a deviation.
        return (self.mean - self.expected) / max(self.standard_error, 1e-9)


def weight_test(rows: LoggedRows) -> WeightTest:
    """Test the propensities: were the actions drawn from the vectors that were logged?

    If action a of a row is drawn with its logged probability p(a), any function g(a) of it has mean
    ``sum p(a) g(a)`` and variance ``sum p(a) g(a)^2 - mean^2``, both known exactly from the logged vectors. Here
    g is the importance weight pi(a)/p(a), clipped: without the clip (where the mean is the familiar 1) a single
    rare draw of a heavy tail looks like wrong propensities, and nothing estimated from the sample would show it.

    Examples
    --------
    >>> rows = LoggedRows(starts=np.array([0, 2]), chosen=np.array([0]), reward=np.array([1.0]),
    ...     logged=np.array([0.5, 0.5]), target=np.array([0.9, 0.1]))
    >>> test = weight_test(rows)
    >>> test.mean, test.expected, round(test.standard_error, 3)
    (1.8, 1.0, 0.8)
    """
    weights = np.divide(rows.target, rows.logged, out=np.zeros_like(rows.target), where=rows.logged > 0.0).clip(
        max=CLIP
    )
    means = rows.row_sums(rows.logged * weights)
    variance = np.maximum(rows.row_sums(rows.logged * weights**2) - means**2, 0.0)
    return WeightTest(
        float(weights[rows.chosen].mean()), float(means.mean()), float(np.sqrt(variance.sum())) / len(rows)
    )
