"""Regressors of scikit-learn as oracles: fitted by it, served as plain arrays by our own code.

A file of scikit-learn's own would be a pickle, which can run anything when it is read; so what is served and stored is
the fitted parameters. That is possible for the estimators of ``engine.config.oracle.ESTIMATORS``: linear models, the
multi-layer perceptron, and single, averaged or boosted trees. Any other regressor can be used within one process
(``InProcessLearner``), and is never written anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from engine.config.oracle import ESTIMATORS
from engine.features import Float32
from engine.oracles.base import Arrays, Float64, Int64
from engine.oracles.nested import integers, read_text, text

FORMS = ("linear", "mlp", "forest", "boosted")
#: Pairs of a row and a tree that are walked through at once.
_WALKS = 65_536
_FINITE = (float(np.finfo(np.float64).min), float(np.finfo(np.float64).max))
_ACTIVATIONS = ("identity", "relu", "tanh", "logistic")


def design(X: Float32, codes: Int64, actions: int) -> Float32:
    """Return the columns and an indicator column for each code, shape (n_rows, width + actions)."""
    Z = np.zeros((len(X), X.shape[1] + actions), np.float32)
    Z[:, : X.shape[1]] = X
    own = np.flatnonzero((codes > 0) & (codes <= actions))
    Z[own, X.shape[1] + codes[own] - 1] = 1.0
    return Z


class SklearnOracle:
    """A fitted regressor of scikit-learn, as arrays.

    Parameters
    ----------
    form : str
        ``linear``: coefficients; ``mlp``: layers; ``forest``: the nodes of trees, whose leaves are averaged;
        ``boosted``: the same, whose leaves are added.
    parameters
        ``linear``: ``coef``, ``intercept``. ``mlp``: ``W0``, ``b0``, ..., ``activation``. ``forest``: ``roots``,
        ``left``, ``right`` (-1 at leaves), ``feature``, ``threshold``, ``value``. ``boosted``: also ``baseline``.
    width, actions : int
        Columns of X, and indicator columns of actions after them.
    """

    kind: ClassVar[str] = "sklearn"

    def __init__(self, form: str, parameters: Arrays, width: int, actions: int) -> None:
        self.form = form
        self.parameters: dict[str, NDArray[Any]] = {key: np.array(array) for key, array in parameters.items()}
        self.width = width
        self.actions = actions
        self._check()
        for array in self.parameters.values():
            array.flags.writeable = False

    @classmethod
    def of(cls, estimator: Any, width: int, actions: int) -> SklearnOracle:
        """Return the arrays of a fitted estimator; raises ``TypeError`` where it has none."""
        name = type(estimator).__name__
        if name not in ESTIMATORS:
            raise TypeError(f"{name} cannot be stored as arrays; use one of {', '.join(ESTIMATORS)}")
        if hasattr(estimator, "coef_"):
            coef = np.asarray(estimator.coef_, np.float64).reshape(-1)
            return cls("linear", {"coef": coef, "intercept": np.reshape(estimator.intercept_, 1)}, width, actions)
        if hasattr(estimator, "coefs_"):
            layers = zip(estimator.coefs_, estimator.intercepts_, strict=True)
            arrays: dict[str, NDArray[np.generic]] = {"activation": np.array(_ACTIVATIONS.index(estimator.activation))}
            for i, (W, b) in enumerate(layers):
                arrays |= {f"W{i}": np.asarray(W, np.float64), f"b{i}": np.asarray(b, np.float64)}
            return cls("mlp", arrays, width, actions)
        if hasattr(estimator, "_predictors"):
            nodes = [predictor[0].nodes for predictor in estimator._predictors]
            baseline = np.asarray(estimator._baseline_prediction, np.float64).reshape(1)
            return cls("boosted", {**_forest([_boosted(tree) for tree in nodes]), "baseline": baseline}, width, actions)
        grown = [tree.tree_ for tree in getattr(estimator, "estimators_", [estimator])]
        trees = [
            (tree.children_left, tree.children_right, tree.feature, tree.threshold, tree.value[:, 0, 0])
            for tree in grown
        ]
        return cls("forest", _forest(trees), width, actions)

    def in_units(self, low: float, unit: float) -> SklearnOracle:
        """Return the model of ``low + unit * y``, where this is a linear model or a perceptron of y."""
        p = self.parameters
        last = sum(key.startswith("W") for key in p) - 1
        slope, intercept = ("coef", "intercept") if self.form == "linear" else (f"W{last}", f"b{last}")
        moved = {slope: unit * p[slope], intercept: low + unit * p[intercept]}
        return SklearnOracle(self.form, {**p, **moved}, self.width, self.actions)

    def _check(self) -> None:
        """Raise ``ValueError`` where the arrays do not fit each other."""
        p, size = self.parameters, self.width + self.actions
        if self.form not in FORMS or not all(a.dtype.kind in "if" and np.isfinite(a).all() for a in p.values()):
            raise ValueError(f"form {self.form!r} must be one of {', '.join(FORMS)}, its parameters finite numbers")
        if self.form == "linear":
            good = p["coef"].shape == (size,) and p["intercept"].shape == (1,)
        elif self.form == "mlp":
            fan_in = size
            count = sum(key.startswith("W") for key in p)
            good = p["activation"].shape == () and int(p["activation"]) in range(len(_ACTIVATIONS)) and count > 0
            for i in range(count):
                W, b = p[f"W{i}"], p[f"b{i}"]
                good = good and W.ndim == 2 and len(W) == fan_in and b.shape == W.shape[1:]
                fan_in = W.shape[-1] if W.ndim else 0
            good = good and fan_in == 1
        else:
            nodes = np.arange(p["left"].size)
            leaf = p["left"] < 0
            good = all(p[key].shape == nodes.shape for key in ("left", "right", "feature", "threshold", "value"))
            good = good and p["roots"].ndim == 1 and len(p["roots"]) > 0 and len(nodes) > 0
            good = good and p["roots"].min() >= 0 and p["roots"].max() < len(nodes) and p["feature"].min() >= 0
            # Children stand after their parents: no walk is endless.
            good = good and int(p["feature"].max()) < max(size, 1)
            good = good and all(((p[key] > nodes) & (p[key] < len(nodes)) | leaf).all() for key in ("left", "right"))
            good = good and (self.form == "forest" or p["baseline"].shape == (1,))
        if not good:
            shapes = {key: array.shape for key, array in p.items()}
            raise ValueError(f"parameters {shapes} are no {self.form} model of {size} columns")

    def predict(self, X: Float32, codes: Int64) -> Float64:
        """Return the expected reward of each row; see ``Oracle.predict``."""
        if X.shape[1] != self.width:
            raise ValueError(f"rows have {X.shape[1]} columns, and the oracle {self.width}")
        Z = design(X, codes, self.actions)
        p = self.parameters
        if self.form == "forest":
            return self._leaves(Z) / len(p["roots"])
        if self.form == "boosted":
            return p["baseline"] + self._leaves(Z)
        hidden: Float64 = Z.astype(np.float64)
        if self.form == "linear":
            hidden = _product(hidden, p["coef"][:, None]) + p["intercept"]
            return hidden[:, 0]
        last = sum(key.startswith("W") for key in p) - 1
        for i in range(last + 1):
            hidden = _product(hidden, p[f"W{i}"]) + p[f"b{i}"]
            if i < last:
                hidden = _activate(hidden, int(p["activation"]))
        return hidden[:, 0]

    def _leaves(self, Z: Float32) -> Float64:
        """Return the sum over the trees of the leaf that each row falls into."""
        p = self.parameters
        total = np.empty(len(Z))
        block = max(1, _WALKS // len(p["roots"]))
        for start in range(0, len(Z), block):
            rows = Z[start : start + block]
            node = np.tile(p["roots"], (len(rows), 1))
            row = np.arange(len(rows))[:, None]
            inner = p["left"][node] >= 0
            while inner.any():
                below = rows[row, p["feature"][node]].astype(np.float64) <= p["threshold"][node]
                node = np.where(inner, np.where(below, p["left"][node], p["right"][node]), node)
                inner = p["left"][node] >= 0
            # One after the other: the sum of a row does not depend on how many there are.
            total[start : start + block] = np.cumsum(p["value"][node], axis=1)[:, -1]
        return total

    def arrays(self) -> Arrays:
        """Return form, widths and parameters."""
        mine = {f"p.{key}": array for key, array in self.parameters.items()}
        return {"form": text(self.form), "widths": np.array([self.width, self.actions]), **mine}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> SklearnOracle:
        """Build it from its arrays; raises ``ValueError`` where they are damaged."""
        width, actions = integers(arrays["widths"], 2)
        mine = {key.removeprefix("p."): array for key, array in arrays.items() if key.startswith("p.")}
        return cls(read_text(arrays["form"]), mine, width, actions)


Tree = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]


def _boosted(nodes: NDArray[Any]) -> Tree:
    """Return left and right child (-1 at leaves), feature, threshold and value of the nodes of a boosted tree."""
    if nodes["is_categorical"].any():
        raise TypeError("a boosted tree that splits by categories cannot be stored; leave out categorical_features")
    leaf = nodes["is_leaf"].astype(bool)
    left, right = (np.where(leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
    # The threshold of a leaf, and of a split between what is there and what is missing, may be no finite number.
    threshold = np.clip(np.where(leaf, 0.0, nodes["num_threshold"]), *_FINITE)
    return left, right, nodes["feature_idx"], threshold, nodes["value"]


def _forest(trees: Sequence[Tree]) -> dict[str, NDArray[np.generic]]:
    """Return trees as one: children of each stand after those of the trees before it."""
    starts = np.cumsum([0, *(len(tree[0]) for tree in trees)])
    left, right = (
        np.concatenate(
            [np.where(tree[0] < 0, -1, tree[side] + start) for tree, start in zip(trees, starts[:-1], strict=True)]
        )
        for side in (0, 1)
    )
    return {
        "roots": starts[:-1].astype(np.int64),
        "left": left.astype(np.int64),
        "right": right.astype(np.int64),
        "feature": np.concatenate([np.maximum(tree[2], 0) for tree in trees]).astype(np.int64),
        "threshold": np.concatenate([tree[3] for tree in trees]).astype(np.float64),
        "value": np.concatenate([tree[4] for tree in trees]).astype(np.float64),
    }


def _product(Z: Float64, W: NDArray[Any]) -> Float64:
    """Return Z W, each row summed in the order of the columns whatever the number of rows: replay is exact."""
    out = np.zeros((len(Z), W.shape[1]))
    for j in range(Z.shape[1]):
        out += Z[:, j : j + 1] * W[j]
    return out


def _activate(hidden: Float64, activation: int) -> Float64:
    match _ACTIVATIONS[activation]:
        case "relu":
            return np.maximum(hidden, 0.0)
        case "tanh":
            return np.tanh(hidden)
        case "logistic":
            with np.errstate(over="ignore"):
                return np.asarray(1.0 / (1.0 + np.exp(-hidden)), dtype=np.float64)
    return hidden
