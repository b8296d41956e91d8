"""From values to the few categories that a stream is watched in; the bins are frozen once, on a reference window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from monitoring.detector import FloatArray, IntArray
from monitoring.observations import quantile_edges

#: Numbers, or texts with None for a missing one.
Values = NDArray[Any]

MISSING, OTHER, OUTSIDE = "missing", "other", "outside"


class Bins(Protocol):
    """Frozen bins."""

    kind: ClassVar[str]

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each category."""

    def encode(self, values: Values) -> IntArray:
        """Return the category of each value."""


@dataclass(frozen=True, slots=True)
class NumberBins:
    """Bins with equally many reference values, one for what lies outside of them all, and one for what is no number.

    Parameters
    ----------
    edges
        Inner edges in ascending order.
    low, high
        Least and greatest value of the reference; beyond is ``outside``.

    Examples
    --------
    >>> bins = NumberBins.frozen(np.arange(100.0), 4)
    >>> bins.encode(np.array([0.0, 99.0, 1e6, np.nan])).tolist(), len(bins.names)
    ([0, 3, 4, 5], 6)
    """

    kind: ClassVar[str] = "number"

    edges: tuple[float, ...]
    low: float
    high: float

    @classmethod
    def frozen(cls, values: FloatArray, bins: int) -> NumberBins:
        """Return the bins of a reference; one bin where it holds fewer numbers than that."""
        known = values[np.isfinite(values)]
        if not len(known):
            return cls((), 0.0, 0.0)
        edges = quantile_edges(known, bins) if len(known) >= bins else np.array([])
        # An edge at the least value has nothing below it.
        inner = tuple(float(edge) for edge in edges if edge > known.min())
        return cls(inner, float(known.min()), float(known.max()))

    @property
    def names(self) -> tuple[str, ...]:
        """The intervals."""
        ends = [self.low, *self.edges, self.high]
        between = [f"[{low:.4g}, {high:.4g})" for low, high in pairwise(ends)]
        return (*between, OUTSIDE, MISSING)

    def encode(self, values: Values) -> IntArray:
        """Return the category of each value."""
        x = np.asarray(values, np.float64)
        found = np.searchsorted(np.asarray(self.edges), x, side="right").astype(np.int64)
        found[(x < self.low) | (x > self.high)] = len(self.edges) + 1
        found[np.isnan(x)] = len(self.edges) + 2
        return found


@dataclass(frozen=True, slots=True)
class NameBins:
    """The frequent texts of the reference, one category for all others, and one for a missing text.

    >>> bins = NameBins.frozen(np.array(["a", "b", "a", None], object), 0.3, 10)
    >>> bins.names, bins.encode(np.array(["a", "b", None], object)).tolist()
    (('a', 'other', 'missing'), [0, 1, 2])
    """

    kind: ClassVar[str] = "names"

    known: tuple[str, ...]

    @classmethod
    def frozen(cls, values: NDArray[np.object_], least_share: float, most: int) -> NameBins:
        """Return bins for the texts with at least this share of the reference; the most frequent ``most`` of them."""
        counts = Counter(value for value in values.tolist() if value is not None)
        enough = least_share * len(values)
        frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
        return cls(tuple(name for name, count in frequent if count >= enough))

    @property
    def names(self) -> tuple[str, ...]:
        """The texts."""
        return (*self.known, OTHER, MISSING)

    def encode(self, values: Values) -> IntArray:
        """Return the category of each value."""
        places: dict[str | None, int] = {name: place for place, name in enumerate(self.known)}
        places[None] = len(self.known) + 1
        other = len(self.known)
        return np.fromiter((places.get(value, other) for value in values.tolist()), np.int64, len(values))


@dataclass(frozen=True, slots=True)
class EqualBins:
    """So many equal bins of [0, 1): the bins of a probability integral transform.

    >>> EqualBins(4).encode(np.array([0.0, 0.3, 1.0])).tolist()
    [0, 1, 3]
    """

    kind: ClassVar[str] = "equal"

    count: int

    @property
    def names(self) -> tuple[str, ...]:
        """From far less than predicted to far more."""
        return tuple(f"{place / self.count:.3g}..{(place + 1) / self.count:.3g}" for place in range(self.count))

    def encode(self, values: Values) -> IntArray:
        """Return the category of each value."""
        x = np.asarray(values, np.float64)
        return np.minimum((x * self.count).astype(np.int64), self.count - 1)


@dataclass(frozen=True, slots=True)
class FlagBins:
    """Zeros and ones under two names."""

    kind: ClassVar[str] = "flag"

    zero: str
    one: str

    @property
    def names(self) -> tuple[str, ...]:
        """Both."""
        return (self.zero, self.one)

    def encode(self, values: Values) -> IntArray:
        """Return the values as whole numbers."""
        return np.asarray(values, np.float64).astype(np.int64)


BINS: Mapping[str, Any] = {kind.kind: kind for kind in (NumberBins, NameBins, EqualBins, FlagBins)}
AnyBins = NumberBins | NameBins | EqualBins | FlagBins


def saved_bins(bins: AnyBins) -> dict[str, Any]:
    """Return plain JSON values."""
    return {"kind": bins.kind, **asdict(bins)}


def loaded_bins(saved: Mapping[str, Any]) -> AnyBins:
    """Return the bins that ``saved_bins`` wrote."""
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()}
    bins: AnyBins = BINS[fields.pop("kind")](**fields)
    return bins
