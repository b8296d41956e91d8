"""Any regressor of scikit-learn's form as a learner, within one process: simulations and off-policy fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.config.oracle import ESTIMATORS
from engine.features import Float32
from engine.oracles.base import Arrays, Float64, Int64, Oracle, batch
from engine.oracles.by_code import ByCode
from engine.oracles.columns import Columns
from engine.oracles.following import Following
from engine.oracles.sklearn import design


def _cannot_be_stored(kind: str) -> TypeError:
    return TypeError(f"{kind} lives in one process and cannot be stored; use one of {', '.join(ESTIMATORS)}")


class InProcessOracle:
    """Any fitted regressor with ``predict``, within one process: simulations and off-policy fits."""

    def __init__(self, estimator: Any, actions: int) -> None:
        self.kind = f"in_process:{type(estimator).__name__}"
        self._estimator = estimator
        self._actions = actions

    def predict(self, X: Float32, codes: Int64) -> Float64:
        """Return the expected reward of each row."""
        if not len(X):
            return np.zeros(0)
        return np.asarray(self._estimator.predict(design(X, codes, self._actions)), dtype=np.float64)

    def arrays(self) -> Arrays:
        """Refuse: nothing executable is ever written."""
        raise _cannot_be_stored(self.kind)


class InProcessLearner(ByCode):
    """Any regressor of scikit-learn's form as a learner, within one process; never stored, never served.

    One with ``partial_fit`` learns batch by batch; any other is fitted anew to all rows when it is asked. Rows are the
    columns and ``max_actions`` indicators of actions.

    Parameters
    ----------
    estimator
        Not fitted yet; a clone of it learns.
    columns
        The form of the rows.
    max_actions
        Indicator columns.
    """

    def __init__(self, estimator: Any, columns: Columns, *, max_actions: int = 64) -> None:
        from sklearn.base import clone
        from sklearn.utils.validation import has_fit_parameter

        super().__init__(columns, max_actions)
        self.kind = f"in_process:{type(estimator).__name__}"
        self._model = clone(estimator)
        self._rows: list[tuple[Float32, Float64, Float64]] = []
        self._online = hasattr(estimator, "partial_fit")
        self._weighted = has_fit_parameter(estimator, "sample_weight")

    def partial_fit(self, X: Float32, actions: Sequence[str], rewards: Float64, weights: Float64 | None = None) -> None:
        """Learn from a batch; see ``Learner.partial_fit``."""
        rows, targets, w = batch(X, actions, rewards, weights, self.width)
        if not len(rows):
            return
        if weights is not None and not self._weighted:
            raise TypeError(f"{self.kind} takes no weights; choose an estimator whose fit has sample_weight")
        Z = design(rows, self._words.learn(actions), self._words.limit)
        if self._online:
            self._model.partial_fit(Z, targets, **({"sample_weight": w} if self._weighted else {}))
        else:
            self._rows.append((Z, targets, w))
        self.learned += len(actions)

    def oracle(self) -> Oracle:
        """Return what has been learned, as an oracle that no longer changes."""
        from copy import deepcopy

        from sklearn.base import clone

        if not self.learned:
            raise ValueError(f"{self.kind} has learned nothing yet")
        if self._online:
            return InProcessOracle(deepcopy(self._model), self._words.limit)
        Z, targets, w = (np.concatenate(part) for part in zip(*self._rows, strict=True))
        model = clone(self._model).fit(Z, targets, **({"sample_weight": w} if self._weighted else {}))
        return InProcessOracle(model, self._words.limit)

    def live(self) -> Oracle:
        """Return an oracle that follows what is learned; see ``Learner.live``."""
        return InProcessOracle(self._model, self._words.limit) if self._online else Following(self)

    def arrays(self) -> Arrays:
        """Refuse: nothing executable is ever written."""
        raise _cannot_be_stored(self.kind)
