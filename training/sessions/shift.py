"""Which features shift from day to day: the analysis that names the factors to augment.

For every field and day the histogram of its indices (buckets, or categories) is compared with that of a reference by
two divergences: the population stability index, which is the symmetrised Kullback-Leibler divergence in nats, and the
Jensen-Shannon divergence in bits (Lin, "Divergence Measures Based on the Shannon Entropy", IEEE Trans. Inf. Theory
37(1), 1991), which lies between 0 and 1. ELBO_TDS (arXiv 2511.21032) picks its factors by "statistical analysis of real
production data" without saying which; this is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.recommender.fields import FIRST, SIDES, Field, Kind, Rows, Side
from engine.recommender.space import FieldSpace
from training.sessions.sessions import SessionSource

Float64 = NDArray[np.float64]
Reference = Literal["first", "previous"]

#: Most categories that are told apart, the most frequent of the first days; all others are one cell.
CELLS = 100
_CHUNK = 4_096


def population_stability(counts: Any, reference: Any) -> float:
    """Return the population stability index of two histograms over the same cells, in nats.

    Half a count is added to every cell, so that an empty one does not make it infinite. Cells that are empty in both
    count for nothing. NaN where one of them has no count at all.

    >>> round(population_stability([50, 50], [50, 50]), 6), round(population_stability([90, 10], [50, 50]), 2)
    (0.0, 0.85)
    """
    p, q = _both(counts, reference)
    if not p.sum() or not q.sum():
        return float("nan")
    p, q = (p + 0.5) / (p + 0.5).sum(), (q + 0.5) / (q + 0.5).sum()
    return float(((p - q) * np.log(p / q)).sum())


def jensen_shannon(counts: Any, reference: Any) -> float:
    """Return the Jensen-Shannon divergence of two histograms over the same cells, in bits; NaN where one is empty.

    >>> jensen_shannon([1, 0], [0, 7]), jensen_shannon([2, 4], [1, 2])
    (1.0, 0.0)
    """
    p, q = _both(counts, reference)
    if not p.sum() or not q.sum():
        return float("nan")
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2.0
    return float(max((_information(p, middle) + _information(q, middle)) / 2.0, 0.0))


def chance(counts: Any, reference: Any) -> float:
    """Return the population stability index that two samples of one law have on average, with independent rows.

    It is ``(cells - 1) (1 / n + 1 / m)`` to first order. Rows of one item or user are not independent, so that without
    a shift the index of their features is somewhat greater.
    """
    p, q = _both(counts, reference)
    if not p.sum() or not q.sum():
        return float("nan")
    return float((len(p) - 1) * (1.0 / p.sum() + 1.0 / q.sum()))


@dataclass(frozen=True)
class FactorShift:
    """How one field shifts.

    Parameters
    ----------
    name, side, kind
        The field.
    psi, js, chance : ndarray of float64, shape (days,)
        By compared day: population stability index, Jensen-Shannon divergence, and the index that chance gives. NaN
        where a day has no values.
    augment
        Whether it shifts so much that its time-varying part should be augmented.
    """

    name: str
    side: Side
    kind: Kind
    psi: Float64
    js: Float64
    chance: Float64
    augment: bool

    @property
    def shift(self) -> float:
        """The mean over days of what the index is above chance; what factors are ranked by."""
        above = self.psi - self.chance
        return float(np.nanmean(above)) if not np.isnan(above).all() else 0.0


@dataclass(frozen=True)
class ShiftReport:
    """The analysis of a source.

    Parameters
    ----------
    days
        The days that were compared.
    reference
        ``first``: with the first days together; ``previous``: each with the day before it.
    reference_days
        The first days, which gave buckets and categories too.
    threshold
        Least ``shift`` that is proposed for augmentation.
    factors
        Statistical, categorical and sequential fields, those that shift most first. Vectors are not analysed: no
        augmentation changes them.
    """

    days: tuple[int, ...]
    reference: Reference
    reference_days: tuple[int, ...]
    threshold: float
    factors: tuple[FactorShift, ...]

    @property
    def augment(self) -> tuple[str, ...]:
        """The fields that are proposed for augmentation, those that shift most first."""
        return tuple(factor.name for factor in self.factors if factor.augment)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values; NaN becomes ``None``."""
        return {
            "days": list(self.days),
            "reference": self.reference,
            "reference_days": list(self.reference_days),
            "threshold": self.threshold,
            "augment": list(self.augment),
            "factors": [
                {
                    "name": factor.name,
                    "side": factor.side,
                    "kind": factor.kind,
                    "shift": factor.shift,
                    "augment": factor.augment,
                    "psi": _plain(factor.psi),
                    "js": _plain(factor.js),
                    "chance": _plain(factor.chance),
                }
                for factor in self.factors
            ],
        }


def analyse(
    source: SessionSource,
    *,
    reference: Reference = "first",
    reference_days: int = 3,
    threshold: float = 0.1,
    progress: Callable[[int], None] = lambda done: None,
) -> ShiftReport:
    """Compare every day of a source with its reference.

    Parameters
    ----------
    source
        The days.
    reference
        What a day is compared with; see ``ShiftReport``.
    reference_days
        How many days come first. Buckets and categories are fitted on them and are the same for all days.
    threshold
        See ``ShiftReport``. By custom an index below 0.1 is called small and one above 0.25 large.
    progress
        Told how many days have been read, of ``reference_days`` and all days.

    Raises
    ------
    ValueError
        There is no day to compare with the reference, or no field to analyse.

    Notes
    -----
    Memory is bounded by histograms of at most ``CELLS + 3`` cells for each field and day, and by what fitting holds of
    the first days (see ``FieldSpace.fitted``).
    """
    days = tuple(source.days())
    if not 1 <= reference_days < len(days):
        raise ValueError(
            f"reference_days: {reference_days} of {len(days)} days leave none to compare; "
            "bring more days, or let fewer be the reference"
        )
    if all(field.kind == "dense" for field in (*source.user, *source.item)):
        raise ValueError("fields: there is no statistical, categorical or sequential one whose shift could be analysed")
    first = days[:reference_days]
    done = 0

    def read(some: Sequence[int]) -> Any:
        nonlocal done
        for day in some:
            yield from source.read(day, _CHUNK)
            done += 1
            progress(done)

    # Rare categories are all one cell, so that nothing is gained by leaving them out.
    space = FieldSpace(source.user, source.item).fitted(read(first), min_count=1)
    fields = [(side, field) for side in SIDES for field in space.fields(side) if field.kind != "dense"]
    histograms = {field.name: np.zeros((len(days), _cells(space, field))) for _, field in fields}
    places = {day: place for place, day in enumerate(days)}
    for chunk in read(days):
        rows = {"user": space.encode("user", chunk.user), "item": space.encode("item", chunk.item)}
        for side, field in fields:
            cells = histograms[field.name]
            found = _indices(space, side, field, rows[side])
            cells[places[chunk.day]] += np.bincount(found, minlength=cells.shape[1])
    factors = [
        _factor(side, field, histograms[field.name], reference, reference_days, threshold) for side, field in fields
    ]
    compared = days[reference_days:] if reference == "first" else days[1:]
    ranked = sorted(factors, key=lambda factor: (-factor.shift, factor.name))
    return ShiftReport(compared, reference, first, threshold, tuple(ranked))


def _factor(
    side: Side, field: Field, histograms: Float64, reference: Reference, reference_days: int, threshold: float
) -> FactorShift:
    if reference == "first":
        pairs = [(day, histograms[:reference_days].sum(axis=0)) for day in histograms[reference_days:]]
    else:
        pairs = list(zip(histograms[1:], histograms[:-1], strict=True))
    psi, js, by_chance = (
        np.array([measure(*pair) for pair in pairs]) for measure in (population_stability, jensen_shannon, chance)
    )
    factor = FactorShift(field.name, side, field.kind, psi, js, by_chance, augment=False)
    return replace(factor, augment=factor.shift >= threshold)


def _cells(space: FieldSpace, field: Field) -> int:
    return space.rows_of(field) if field.kind == "statistical" else min(space.rows_of(field), FIRST + CELLS) + 1


def _indices(space: FieldSpace, side: Side, field: Field, rows: Rows) -> NDArray[np.int64]:
    """Return the cell of each value, or of each entry of a list."""
    place = [other.name for other in space.fields(side) if other.kind == field.kind].index(field.name)
    if field.kind == "statistical":
        return rows.statistical[:, place].astype(np.int64)
    codes = rows.categorical[:, place] if field.kind == "categorical" else rows.sequential[:, place].ravel()
    if field.kind == "sequential":
        codes = codes[codes > 0]
    # Codes are given by falling frequency: those beyond the last cell are the rare ones.
    return np.minimum(codes, _cells(space, field) - 1).astype(np.int64)


def _both(counts: Any, reference: Any) -> tuple[Float64, Float64]:
    p, q = np.asarray(counts, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if p.ndim != 1 or p.shape != q.shape or (p < 0.0).any() or (q < 0.0).any():
        raise ValueError(f"histograms: must be counts over the same cells, got the shapes {p.shape} and {q.shape}")
    used = (p > 0.0) | (q > 0.0)
    return p[used], q[used]


def _information(p: Float64, q: Float64) -> float:
    here = p > 0.0
    return float((p[here] * np.log2(p[here] / q[here])).sum())


def _plain(values: Float64) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
