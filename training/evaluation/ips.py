"""Inverse propensity scoring.

Horvitz and Thompson, *A Generalization of Sampling Without Replacement From a Finite Universe*, JASA 1952.
"""

from __future__ import annotations

from typing import ClassVar

from training.evaluation.base import Float64
from training.evaluation.weighted import Weighted


class IPS(Weighted):
    """Mean of ``w r``: unbiased wherever the logging policy could draw all that the target policy would.

    >>> import numpy as np
    >>> from training.evaluation.base import LoggedRows
    >>> rows = LoggedRows(starts=np.array([0, 2, 4]), chosen=np.array([0, 3]), reward=np.array([1.0, 1.0]),
    ...     logged=np.array([0.5, 0.5, 0.8, 0.2]), target=np.array([1.0, 0.0, 0.9, 0.1]))
    >>> IPS().contributions(rows).tolist()
    [2.0, 0.5]
    """

    name: ClassVar[str] = "ips"
    needs_reward_model: ClassVar[bool] = False

    def weight(self, w: Float64) -> Float64:
        """Return w."""
        return w
