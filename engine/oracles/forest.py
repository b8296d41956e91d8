"""Boosted trees as LightGBM writes them, walked by compiled code: sooner than by LightGBM itself for few rows.

``python -m benchmarks.forest`` has both.

A walk down a tree waits for memory at each step, so four trees are walked side by side. The numbers are LightGBM's to
the bit: a row is compared as there (``tree.h``: ``NumericalDecision``, ``CategoricalDecision``), and the leaves of a
row are added tree by tree, in double. A threshold is a double and a feature a float32: ``x <= t`` holds for the same x
when t is rounded down to a float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

from engine.compiled import compiled, read
from engine.features import Float32
from engine.oracles.base import Float64, Int64

Int32 = NDArray[np.int32]
N = TypeVar("N", int, float)

#: What LightGBM takes for zero.
_ZERO = np.float32(1e-35)
#: From so many rows on other threads may run meanwhile: to get the interpreter back costs more than fewer rows take.
_MANY = 256
#: Objectives whose raw score is the prediction.
_PLAIN = frozenset({"", "regression", "regression_l1", "huber", "fair", "quantile", "mape"})
_CATEGORICAL, _MISSING_ZERO, _MISSING = 1, 4, 12  # of ``decision_type``


@compiled(
    numba.boolean(numba.float32, numba.float32, read(numba.int64, 1), read(numba.uint32, 1)),
)
def _outside(value: float, number: float, begin: Int64, words: NDArray[np.uint32]) -> bool:
    """Say whether a category is none of a set."""
    category = int(value)
    word = begin[int(number)] + (category >> 5)
    return category < 0 or word >= begin[int(number) + 1] or not (words[word] >> (category & 31)) & 1


_SIGNATURE = numba.float64[::1](
    read(numba.float32, 2),
    read(numba.int64, 1),
    read(numba.int32, 1),
    read(numba.int32, 1),
    read(numba.float32, 1),
    read(numba.int32, 1),
    read(numba.float64, 1),
    read(numba.int64, 1),
    read(numba.uint32, 1),
    numba.float64,
)


@compiled(_SIGNATURE)
def _walk(
    X: Float32,
    codes: Int64,
    root: Int32,
    feature: Int32,
    threshold: Float32,
    child: Int32,
    leaf: Float64,
    begin: Int64,
    words: NDArray[np.uint32],
    steepness: float,
) -> Float64:
    """Return the sum of each row's leaves; where there is a steepness, the logistic function of so much of it."""
    count, width = X.shape
    trees = len(root)
    row = np.empty(width + 1, np.float32)
    found = np.empty(count)
    for place in range(count):
        for column in range(width):
            value = X[place, column]
            row[column] = value if abs(value) > _ZERO else np.float32(0.0)
        row[width] = codes[place]
        total = 0.0
        for tree in range(0, trees - 3, 4):
            a, b, c, d = root[tree], root[tree + 1], root[tree + 2], root[tree + 3]
            # Written out four times: neither a loop nor a function is as fast.
            while a >= 0 or b >= 0 or c >= 0 or d >= 0:
                if a >= 0:
                    its = feature[a]
                    if its >= 0:
                        a = child[2 * a + (row[its] > threshold[a])]
                    else:
                        a = child[2 * a + _outside(row[~its], threshold[a], begin, words)]
                if b >= 0:
                    its = feature[b]
                    if its >= 0:
                        b = child[2 * b + (row[its] > threshold[b])]
                    else:
                        b = child[2 * b + _outside(row[~its], threshold[b], begin, words)]
                if c >= 0:
                    its = feature[c]
                    if its >= 0:
                        c = child[2 * c + (row[its] > threshold[c])]
                    else:
                        c = child[2 * c + _outside(row[~its], threshold[c], begin, words)]
                if d >= 0:
                    its = feature[d]
                    if its >= 0:
                        d = child[2 * d + (row[its] > threshold[d])]
                    else:
                        d = child[2 * d + _outside(row[~its], threshold[d], begin, words)]
            total += leaf[~a]
            total += leaf[~b]
            total += leaf[~c]
            total += leaf[~d]
        for tree in range(trees - trees % 4, trees):
            a = root[tree]
            while a >= 0:
                its = feature[a]
                if its >= 0:
                    a = child[2 * a + (row[its] > threshold[a])]
                else:
                    a = child[2 * a + _outside(row[~its], threshold[a], begin, words)]
            total += leaf[~a]
        found[place] = 1.0 / (1.0 + math.exp(-steepness * total)) if steepness else total
    return found


@compiled(_SIGNATURE, nogil=True)
def _walk_many(
    X: Float32,
    codes: Int64,
    root: Int32,
    feature: Int32,
    threshold: Float32,
    child: Int32,
    leaf: Float64,
    begin: Int64,
    words: NDArray[np.uint32],
    steepness: float,
) -> Float64:
    """Do what ``_walk`` does, while other threads run. A function of its own: Numba's cache tells no settings apart."""
    return _walk(X, codes, root, feature, threshold, child, leaf, begin, words, steepness)


class Forest:
    """The trees of a model.

    Parameters
    ----------
    width
        Features, the code among them.
    trees
        What the model's text says of each.
    steepness
        Of the logistic function that makes a score a probability; 0: the score is the prediction.

    Raises
    ------
    ValueError
        A tree is damaged.
    """

    def __init__(self, width: int, trees: Sequence[Mapping[str, str]], steepness: float = 0.0) -> None:
        self.width = width
        root, feature, threshold, child, leaf = [], [], [], [], []
        begin: list[int] = [0]
        words: list[int] = []
        nodes = leaves = 0
        for number, tree in enumerate(trees):
            its = _Tree(tree, width, number)
            root.append(nodes if len(its.feature) else ~leaves)
            feature.append(np.where(its.categorical, ~its.feature, its.feature))
            # Sets of categories are numbered through all trees.
            threshold.append(np.where(its.categorical, its.threshold + (len(begin) - 1), its.threshold))
            child.append(np.where(its.child >= 0, its.child + nodes, its.child - leaves))
            leaf.append(its.leaf)
            begin += [end + len(words) for end in its.boundaries[1:]]
            words += its.words
            nodes += len(its.feature)
            leaves += len(its.leaf)
        exact = np.concatenate(threshold) if threshold else np.empty(0)
        with np.errstate(over="ignore"):
            rounded = exact.astype(np.float32)
            below = np.nextafter(rounded, np.float32(-np.inf))
        self._arrays = (
            np.array(root, np.int32),
            np.concatenate([*feature, np.empty(0, np.int64)]).astype(np.int32),
            np.where(rounded > exact, below, rounded),
            np.concatenate([*child, np.empty(0, np.int64)]).astype(np.int32),
            np.concatenate([*leaf, np.empty(0)]),
            np.array(begin, np.int64),
            np.array(words, np.uint32),
            steepness,
        )

    @classmethod
    def read(cls, text: str) -> Forest | None:
        """Read a model's text; ``None`` where it has what only LightGBM itself can compute.

        Parameters
        ----------
        text
            As ``Booster.model_to_string`` gives it.

        Raises
        ------
        ValueError
            It is none, or is damaged.
        """
        head, *blocks = text.split("\nTree=")
        said = _fields(head)
        if not head.startswith("tree\n") or "max_feature_idx" not in said:
            raise ValueError("no readable LightGBM model: it does not begin as one")
        trees = [_fields(block) for block in blocks]
        steepness = _steepness(said.get("objective", ""))
        if (
            said.get("num_tree_per_iteration") != "1"
            or "average_output" in head.split("\n")
            or steepness is None
            or any(tree.get("is_linear", "0") != "0" for tree in trees)
            or any(kind & _MISSING == _MISSING_ZERO for tree in trees for kind in _integers(tree, "decision_type"))
        ):
            return None
        sizes = said.get("tree_sizes", "").split()
        if len(sizes) != len(trees) or "\nend of trees" not in text:
            raise ValueError(f"no readable LightGBM model: it has {len(trees)} of {len(sizes)} trees")
        last = _integers(said, "max_feature_idx")
        if len(last) != 1 or not 0 <= last[0] < 2**31:
            raise ValueError(f"no readable LightGBM model: max_feature_idx is {said['max_feature_idx']!r}")
        return cls(last[0] + 1, trees, steepness)

    def predict(self, X: Float32, codes: Int64) -> Float64:
        """Return the prediction of each row, with the code as its last feature."""
        walk = _walk if len(X) < _MANY else _walk_many
        found: Float64 = walk(np.ascontiguousarray(X), np.ascontiguousarray(codes), *self._arrays)
        return found


class _Tree:
    """One tree, checked: whoever walks it comes to a leaf, and stays within its arrays."""

    def __init__(self, said: Mapping[str, str], width: int, number: int) -> None:
        self.feature = np.array(_integers(said, "split_feature"), np.int64)
        self.threshold = np.array(_numbers(said, "threshold"), np.float64)
        self.leaf = np.array(_numbers(said, "leaf_value"), np.float64)
        kinds = np.array(_integers(said, "decision_type"), np.int64)
        self.categorical = (kinds & _CATEGORICAL).astype(np.bool_)
        left, right = (np.array(_integers(said, name), np.int64) for name in ("left_child", "right_child"))
        nodes = len(self.feature)
        sides = (left, right, self.threshold, kinds)
        if any(len(values) != nodes for values in sides) or len(self.leaf) != nodes + 1:
            raise ValueError(f"no readable LightGBM model: the parts of tree {number} do not fit each other")
        self.child = np.column_stack([left, right]).ravel()
        parents = np.repeat(np.arange(nodes), 2)
        inside = (self.child < nodes) & (self.child >= ~nodes) & ((self.child < 0) | (self.child > parents))
        if not inside.all() or not ((self.feature >= 0) & (self.feature < width)).all():
            raise ValueError(f"no readable LightGBM model: tree {number} leads to what it has not")
        self.boundaries = _integers(said, "cat_boundaries") or [0]
        self.words = _integers(said, "cat_threshold")
        sets = self.threshold[self.categorical]
        if (
            self.boundaries[0] != 0
            or self.boundaries[-1] != len(self.words)
            or sorted(self.boundaries) != self.boundaries
            or not all(0 <= word < 2**32 for word in self.words)
            or not ((sets >= 0) & (sets < len(self.boundaries) - 1) & (sets == np.floor(sets))).all()
        ):
            raise ValueError(f"no readable LightGBM model: the categories of tree {number} are damaged")
        if not (np.isfinite(self.leaf).all() and not np.isnan(self.threshold).any()):
            raise ValueError(f"no readable LightGBM model: tree {number} has numbers that are not finite")


def _steepness(objective: str) -> float | None:
    """Return that of the logistic function, 0 where there is none to be taken; ``None``: it is another function.

    >>> _steepness("regression"), _steepness("binary sigmoid:1"), _steepness("poisson")
    (0.0, 1.0, None)
    """
    kind, _, options = objective.partition(" ")
    if kind == "binary":
        [steepness] = _numbers({"sigmoid": options.removeprefix("sigmoid:")}, "sigmoid") or [math.nan]
        return steepness if 0.0 < steepness < math.inf else None
    return 0.0 if objective in _PLAIN else None


def _fields(block: str) -> dict[str, str]:
    return {name: value for name, is_, value in (line.partition("=") for line in _lines(block)) if is_}


def _lines(block: str) -> Iterator[str]:
    for line in block.split("\n"):
        if line == "end of trees":
            return
        yield line


def _integers(said: Mapping[str, str], name: str) -> list[int]:
    found = _read(said, name, int)
    if any(abs(value) >= 2**32 for value in found):
        raise ValueError(f"no readable LightGBM model: {name} has a number of more than 32 bits")
    return found


def _numbers(said: Mapping[str, str], name: str) -> list[float]:
    return _read(said, name, float)


def _read(said: Mapping[str, str], name: str, kind: Callable[[str], N]) -> list[N]:
    try:
        return [kind(word) for word in said.get(name, "").split()]
    except ValueError as error:
        raise ValueError(f"no readable LightGBM model: {name}: {error}") from None
