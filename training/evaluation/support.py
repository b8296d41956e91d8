"""Between which bounds can one term of an estimate lie? Bounded intervals and confidence sequences must know.

Weights have no bound of their own, but the logged vectors say what a row's weight would have been with any action that
could have been drawn, and the reward has a declared range. So the range of each term is known before its action is
drawn, and the range over all rows is the widest of these. It is exact given the contexts of the rows; contexts that
are still to come might have a wider one. Where the logging policy promises each action at least ``floor``, no weight is
greater than ``1 / floor``: hand that over as ``max_weight``, and the range holds for every context.
"""

from __future__ import annotations

import numpy as np

from training.evaluation.base import Estimator, Float64, LoggedRows
from training.evaluation.weighted import Weighted

#: Of a mean of which nothing is known.
UNBOUNDED = (-np.inf, np.inf)
Range = tuple[float, float]


def support(estimator: Estimator, rows: LoggedRows, reward_range: Range, max_weight: float | None = None) -> Range:
    """Return the range of one contribution of an estimator.

    Parameters
    ----------
    estimator
        The estimator. One that is normalised by its own weights has no independent terms, and no range.
    rows
        The rows.
    reward_range
        Of the decision point.
    max_weight
        Greatest importance weight of any context, if it is known beforehand.

    Returns
    -------
    tuple of float
        Lower and upper end; infinite where there is none.

    Examples
    --------
    >>> from training.evaluation.ips import IPS
    >>> rows = LoggedRows(starts=np.array([0, 2]), chosen=np.array([0]), reward=np.array([1.0]),
    ...     logged=np.array([0.8, 0.2]), target=np.array([0.1, 0.9]))
    >>> support(IPS(), rows, (0.0, 1.0)), support(IPS(), rows, (0.0, 1.0), max_weight=20.0)
    ((0.0, 4.5), (0.0, 20.0))
    """
    if not isinstance(estimator, Weighted):
        return UNBOUNDED
    weight = estimator.weight(estimator.every_weight(rows))
    direct = rows.direct if estimator.needs_reward_model else np.zeros(len(rows))
    model = rows.model if estimator.needs_reward_model else np.zeros(len(weight))
    low, high = _extremes(rows, direct, weight, model, reward_range)
    if max_weight is None:
        return low, high
    # Weights rise to at most this, but clipped ones are used as what they are clipped to, and shrunk ones are greatest
    # somewhere between.
    greatest = float(estimator.weight(np.linspace(0.0, max_weight, 1_001)).max())
    return (
        min(low, float(direct.min()) + greatest * min(reward_range[0] - float(model.max()), 0.0)),
        max(high, float(direct.max()) + greatest * max(reward_range[1] - float(model.min()), 0.0)),
    )


def difference_support(estimator: Estimator, candidate: LoggedRows, champion: LoggedRows, reward_range: Range) -> Range:
    """Return the range of the difference of two policies' contributions on the same row."""
    if not isinstance(estimator, Weighted):
        return UNBOUNDED
    weight = estimator.weight(estimator.every_weight(candidate)) - estimator.weight(estimator.every_weight(champion))
    if not estimator.needs_reward_model:
        return _extremes(candidate, np.zeros(len(candidate)), weight, np.zeros(len(weight)), reward_range)
    return _extremes(candidate, candidate.direct - champion.direct, weight, candidate.model, reward_range)


def _extremes(rows: LoggedRows, direct: Float64, weight: Float64, model: Float64, reward_range: Range) -> Range:
    """Return the least and the greatest term over rows, actions that could have been drawn, and rewards."""
    possible = rows.logged > 0.0
    shift = np.repeat(direct, np.diff(rows.starts))[possible]
    ends = [shift + weight[possible] * (end - model[possible]) for end in reward_range]
    return float(min(end.min() for end in ends)), float(max(end.max() for end in ends))
