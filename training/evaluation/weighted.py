"""The form that most estimators share: a mean over rows of a weight times a reward, or times a model's residual."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from training.evaluation.base import Float64, LoggedRows


class Weighted(ABC):
    """``mean(u r)``, or with a reward model ``mean( sum_a pi(a) q_hat(a) + u (r - q_hat(chosen)) )``.

    The weight u is made of the row's own importance weight w alone. So each term depends on its own row alone, and the
    range that it can have is known before the action is drawn: ``training.evaluation.support`` makes use of it. What
    divides by a mean over all rows is not of this form.
    """

    name: ClassVar[str]
    needs_reward_model: ClassVar[bool]

    @abstractmethod
    def weight(self, w: Float64) -> Float64:
        """Return the weight u that is used in place of each importance weight w; same shape."""

    def drawn_weight(self, rows: LoggedRows) -> Float64:
        """Return the importance weight of each row, shape (n,)."""
        return rows.weights

    def every_weight(self, rows: LoggedRows) -> Float64:
        """Return the importance weight that each row would have had with each action, shape (m,)."""
        return rows.every_weight

    def contributions(self, rows: LoggedRows) -> Float64:
        """Return the terms of the mean; see ``Estimator.contributions``."""
        weight = self.weight(self.drawn_weight(rows))
        return rows.direct + weight * rows.residual if self.needs_reward_model else weight * rows.reward
