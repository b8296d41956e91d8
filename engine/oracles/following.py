"""A live view of learners whose oracle has to be solved for: solved again when there is something new."""

from __future__ import annotations

from collections.abc import Callable

from engine.features import Float32
from engine.oracles.base import Arrays, EnsembleOracle, Float64, Int64, Learner, Oracle, UncertainOracle


class Following:
    """An oracle that is always what its learner's ``oracle()`` would be; see ``Learner.live``.

    Parameters
    ----------
    learner
        What it follows.
    solve
        What makes the oracle anew; ``learner.oracle`` by default.
    """

    def __init__(self, learner: Learner, solve: Callable[[], Oracle] | None = None) -> None:
        self.kind = learner.kind
        self._learner = learner
        self._solve = solve or learner.oracle
        self._oracle: Oracle | None = None
        self._learned = -1

    def _now(self) -> Oracle:
        if self._oracle is None or self._learner.learned != self._learned:
            self._oracle = self._solve()
            self._learned = self._learner.learned
        return self._oracle

    def predict(self, X: Float32, codes: Int64) -> Float64:
        """Return the expected reward of each row."""
        return self._now().predict(X, codes)

    def predict_std(self, X: Float32, codes: Int64) -> tuple[Float64, Float64]:
        """Return mean and standard deviation, where the oracle has them; raises ``TypeError``."""
        oracle = self._now()
        if not isinstance(oracle, UncertainOracle):
            raise TypeError(f"oracle {self.kind!r} has no uncertainty; choose an exploration that needs none")
        return oracle.predict_std(X, codes)

    def predict_members(self, X: Float32, codes: Int64) -> tuple[Float64, Float64]:
        """Return mean and members, where the oracle has them; raises ``TypeError``."""
        oracle = self._now()
        if not isinstance(oracle, EnsembleOracle):
            raise TypeError(f"oracle {self.kind!r} has no members; choose an exploration that needs none")
        return oracle.predict_members(X, codes)

    def arrays(self) -> Arrays:
        """Return those of the oracle at this moment."""
        return self._now().arrays()
