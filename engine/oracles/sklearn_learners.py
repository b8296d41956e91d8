"""Learners of scikit-learn's regressors: online where there is ``partial_fit``, else fitted anew now and then."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from engine.config.oracle import SklearnConfig
from engine.features import Float32
from engine.oracles.base import Arrays, Float64, Int64, Learner, Oracle, batch
from engine.oracles.by_code import ByCode
from engine.oracles.columns import Columns
from engine.oracles.following import Following
from engine.oracles.linear import LinearOracle
from engine.oracles.nested import integers, read_text, text
from engine.oracles.refitted import RefittedLearner
from engine.oracles.sklearn import SklearnOracle, design
from engine.oracles.vocabulary import Vocabulary
from engine.oracles.window import LatestRows


def estimator_of(config: SklearnConfig) -> Any:
    """Return a new estimator of the configuration; raises ``ValueError`` where it knows no such parameter."""
    from sklearn import ensemble, linear_model, neural_network, tree

    places = (ensemble, linear_model, neural_network, tree)
    kind = next(getattr(place, config.estimator) for place in places if hasattr(place, config.estimator))
    known = kind().get_params()
    unknown = sorted(set(config.parameters) - set(known))
    if unknown:
        raise ValueError(f"{config.estimator} has no parameter {', '.join(unknown)}; known: {', '.join(known)}")
    seeded = {"random_state": config.seed} if "random_state" in known else {}
    return kind(**{**seeded, **config.parameters})


class SklearnLearner(RefittedLearner):
    """Learns a ``SklearnOracle``: fits the estimator anew from the latest feedback, with the configuration's seed."""

    kind: ClassVar[str] = "sklearn"

    def __init__(self, columns: Columns, config: SklearnConfig) -> None:
        super().__init__(columns, memory=config.memory, every=config.steps, max_actions=config.max_actions)
        self.config = config

    @classmethod
    def from_config(cls, config: SklearnConfig, columns: Columns) -> Learner:
        """Build it from ``policy.oracle``, or what learns online where the estimator can; raises ``ValueError``.

        It does where the estimator knows no such parameter, or takes no such value.
        """
        if config.online:
            return OnlineSklearnLearner(columns, config)
        estimator_of(config)
        return cls(columns, config)

    def fit(self, X: Float32, codes: Int64, rewards: Float64, weights: Float64, before: Oracle) -> SklearnOracle:
        """Fit the estimator to rows; see ``RefittedLearner.fit``."""
        from sklearn.exceptions import ConvergenceWarning
        from threadpoolctl import threadpool_limits

        actions = int(codes.max(initial=0))
        model = estimator_of(self.config)
        seen = weights > 0.0
        # Said once for each fit it would fill the log; where it stops, it serves. For good, since a filter that is
        # taken back is not for threads.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # One core, as LightGBM takes: those who decide need the others. OpenMP has a limit for each thread.
        with threadpool_limits(1, user_api="openmp"):
            model.fit(design(X, codes, actions)[seen].astype(np.float64), rewards[seen], sample_weight=weights[seen])
        return SklearnOracle.of(model, self.width, actions)

    def arrays(self) -> Arrays:
        """Return the state, from which ``from_arrays`` goes on as if nothing had happened."""
        return {**super().arrays(), "config": text(self.config.model_dump_json())}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> SklearnLearner:
        """Build it again from ``arrays``; raises ``ValueError`` where they do not fit each other."""
        config = SklearnConfig.model_validate_json(read_text(arrays["config"]))
        learner = cls(Columns.from_array(arrays["columns"]), config)
        learner._restore(arrays)
        return learner


#: What an estimator has learned, and what its optimiser remembers; each has some of these.
_STATE = (
    "coef_", "intercept_", "t_", "_standard_coef", "_standard_intercept", "_average_coef", "_average_intercept",
    "coefs_", "intercepts_", "best_loss_", "_no_improvement_count",
)  # fmt: skip
_OPTIMIZER = ("t", "ms", "vs", "velocities", "learning_rate")


class OnlineSklearnLearner(ByCode):
    """Learns a ``SklearnOracle`` by ``partial_fit``, ``every`` feedbacks at a time.

    An estimator takes a step for so many rows together, and what that is depends on how many they are: rows wait until
    there are enough, so that any split into batches gives the same bits. Until the first step it expects the low end of
    the range. Rewards are learned in units of their range. The columns should be of order 1 (``scale``): gradient
    descent needs it.

    Parameters
    ----------
    columns
        The form of the rows.
    config
        ``policy.oracle``.

    Raises
    ------
    ValueError
        The estimator knows no such parameter, or takes no such value.
    """

    kind: ClassVar[str] = "sklearn_online"

    def __init__(self, columns: Columns, config: SklearnConfig) -> None:
        super().__init__(columns, config.max_actions)
        self.config = config
        self._waiting = LatestRows(columns.width)
        self._model = estimator_of(config)
        self._begun = False
        self._begin(estimator_of(config))  # refuses values that the estimator does not take

    def _begin(self, model: Any) -> Any:
        """Let a model make what it learns in, by a row of nothing."""
        return model.partial_fit(np.zeros((1, self.width + self._words.limit)), np.zeros(1))

    def partial_fit(self, X: Float32, actions: Sequence[str], rewards: Float64, weights: Float64 | None = None) -> None:
        """Learn from a batch, in its order; see ``Learner.partial_fit``."""
        rows, targets, w = batch(X, actions, rewards, weights, self.width)
        self._words.learn(actions)
        at = 0
        while at < len(actions):
            part = slice(at, at + self.config.steps - len(self._waiting))
            self._waiting.add(rows[part], actions[part], targets[part], w[part])
            at = part.stop
            if len(self._waiting) == self.config.steps:
                self._step(self._waiting)
                self._waiting = LatestRows(self.width)
        self.learned += len(actions)

    def _step(self, rows: LatestRows) -> None:
        seen = rows.weights > 0.0
        if not seen.any():
            return
        c = self.columns
        Z = design(rows.X, self._words.learn(rows.actions()), self._words.limit)[seen].astype(np.float64)
        targets = (rows.rewards[seen] - c.low) / (c.high - c.low)
        self._model.partial_fit(Z, targets, sample_weight=rows.weights[seen])
        self._begun = True
        if hasattr(self._model, "loss_curve_"):
            self._model.loss_curve_.clear()  # it would grow for ever

    def oracle(self) -> Oracle:
        """Return what has been learned, as an oracle that no longer changes."""
        c = self.columns
        if not self._begun:
            return LinearOracle.constant(c.low, self.width)
        return SklearnOracle.of(self._model, self.width, self._words.limit).in_units(c.low, c.high - c.low)

    def live(self) -> Oracle:
        """Return an oracle that follows what is learned; see ``Learner.live``."""
        return Following(self)

    def arrays(self) -> Arrays:
        """Return the state, from which ``from_arrays`` goes on as if nothing had happened."""
        c = self.columns
        state = {}
        for owner, name in _parts(self._model) if self._begun else ():
            value = getattr(owner, name)
            for i, array in enumerate(value if isinstance(value, list) else [value]):
                state[f"state.{name}.{i}"] = np.array(array)
        return {
            **state,
            **self._waiting.arrays(),
            "vocabulary": self._words.array(),
            "counts": np.array([self.learned, int(self._begun)]),
            "columns": np.array([c.context, c.action, c.low, c.high]),
            "config": text(self.config.model_dump_json()),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> OnlineSklearnLearner:
        """Build it again from ``arrays``; raises ``ValueError`` where they do not fit each other."""
        config = SklearnConfig.model_validate_json(read_text(arrays["config"]))
        learner = cls(Columns.from_array(arrays["columns"]), config)
        learner._words = Vocabulary.from_array(config.max_actions, arrays["vocabulary"])
        learner._waiting = LatestRows.from_arrays(arrays, learner.width)
        learner.learned, begun = integers(arrays["counts"], 2)
        if len(learner._waiting) >= config.steps or begun > 1:
            raise ValueError(f"counts {arrays['counts']} and {len(learner._waiting)} waiting rows do not fit")
        if begun:
            learner._begun = True
            for owner, name in _parts(learner._begin(learner._model)):
                there = getattr(owner, name)
                if isinstance(there, list):
                    setattr(owner, name, [_like(old, arrays[f"state.{name}.{i}"]) for i, old in enumerate(there)])
                else:
                    setattr(owner, name, _like(there, arrays[f"state.{name}.0"]))
        return learner


def _parts(model: Any) -> Iterator[tuple[Any, str]]:
    """Yield where the state of an estimator is: an object, and the name of its attribute."""
    for owner, names in ((model, _STATE), (getattr(model, "_optimizer", None), _OPTIMIZER)):
        yield from ((owner, name) for name in names if hasattr(owner, name))


def _like(there: Any, array: NDArray[np.generic]) -> Any:
    """Return what an array holds, in the form of what is there; raises ``ValueError`` where it does not fit."""
    found = np.array(array)
    if found.shape != np.shape(there) or found.dtype != np.asarray(there).dtype or not np.isfinite(found).all():
        raise ValueError(f"state {found.dtype} of shape {found.shape} is not that of the estimator")
    return found if isinstance(there, np.ndarray) else type(there)(found[()])
