"""One configuration of R-BOCPD, and the state of the streams that it looks at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np

from monitoring.budget import PREDICTOR, Budget
from monitoring.detector import Change, FloatArray, IntArray
from monitoring.rbocpd import kernel, layout, tables
from monitoring.state import Scalar
from monitoring.weights import (
    PARAMETERS,
    AnytimeWeight,
    AnyWeight,
    ShapedWeight,
    TheoremWeight,
    loaded_weight,
    saved_weight,
)

Predictor = Literal["laplace", "kt"]
Candidates = Literal["hull", "octaves", "all"]

_CANDIDATES: dict[Candidates, int] = {"hull": kernel.HULL, "octaves": kernel.OCTAVES, "all": kernel.ALL}
_TWICE_A: dict[Predictor, int] = {"laplace": 2, "kt": 1}
#: Most changes that one call of the kernel reports.
_EVENTS = 256
#: Rows between two thinnings.
_SPARE = 32
#: The look ahead of the test, at most.
_AHEAD = 64
#: So many n2 have a bound of their own on how much the weight can grow within the look ahead; it falls with n2.
_GROWTHS = 4096
#: No evidence is as great, in nats.
_NEVER = 1e6


@dataclass(slots=True)
class Streams:
    """State of S streams as plain arrays; ``monitoring.rbocpd.layout`` says what they hold."""

    head: IntArray
    slack: FloatArray
    rows: IntArray
    lengths: IntArray
    before: FloatArray
    due: IntArray

    @property
    def arrays(self) -> kernel.State:
        """All of them."""
        return self.head, self.slack, self.rows, self.lengths, self.before, self.due

    def held(self, stream: int) -> kernel.Rows:
        """The forecasters of one stream."""
        return self.rows[stream], self.lengths[stream], self.before[stream], self.due[stream]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays)


@dataclass(frozen=True, slots=True)
class Scan:
    """How R-BOCPD looks for changes. Parameters as of ``RBOCPD``, all of them resolved."""

    weight: AnyWeight
    categories: int
    predictor: Predictor
    candidates: Candidates
    max_candidates: int
    per_octave: int
    reseed: bool
    stride: int = 1

    @classmethod
    def of(
        cls,
        weight: AnyWeight | Budget | None,
        categories: int,
        predictor: Predictor | None,
        candidates: Candidates | None,
        max_candidates: int,
        per_octave: int,
        reseed: bool,
        stride: int = 1,
    ) -> Scan:
        """Fill in what is left open, and refuse what is impossible."""
        if categories < 2:
            raise ValueError(f"categories must be at least 2, got {categories}")
        if weight is None:
            weight = Budget()
        if isinstance(weight, Budget):
            weight = weight.weight(categories)
            predictor = predictor or PREDICTOR
        predictor = predictor or "laplace"
        candidates = candidates or ("hull" if categories == 2 else "octaves")
        if predictor not in get_args(Predictor):
            raise ValueError(f"predictor must be one of {', '.join(get_args(Predictor))}, got {predictor!r}")
        if candidates not in get_args(Candidates):
            raise ValueError(f"candidates must be one of {', '.join(get_args(Candidates))}, got {candidates!r}")
        if candidates == "hull" and categories != 2:
            raise ValueError(f"candidates 'hull' needs 2 categories, got {categories}: take 'octaves'")
        if isinstance(weight, AnytimeWeight | TheoremWeight) and predictor != "laplace":
            raise ValueError(f"{type(weight).__name__} is proved for predictor 'laplace', got {predictor!r}")
        if isinstance(weight, TheoremWeight) and categories > 10:
            raise ValueError(f"TheoremWeight is useless beyond 10 categories, got {categories}: take AnytimeWeight")
        if max_candidates < 8:
            raise ValueError(f"max_candidates must be at least 8, got {max_candidates}")
        if stride < 1 or (stride > 1 and candidates == "hull"):
            raise ValueError(f"stride must be at least 1, and 1 for candidates 'hull', got {stride}")
        if per_octave < 2:
            raise ValueError(f"per_octave must be at least 2, got {per_octave}")
        return cls(weight, categories, predictor, candidates, max_candidates, per_octave, reseed, stride)

    @property
    def chain(self) -> int:
        """Rows of a chain at the start; more are added where needed, except for hulls."""
        return self.max_candidates // 2 if self.candidates == "hull" else 2 * self.per_octave + _SPARE

    def most_forecasters(self, run_length: int) -> int | None:
        """Return how many forecasters a stream holds at most after so many observations; None: as many as those."""
        if self.candidates == "hull":
            return self.max_candidates
        if self.candidates == "all":
            return None
        octaves = max(0, math.ceil(math.log2(max(1.0, run_length / (2 * self.per_octave)))))
        return 2 * (2 * self.per_octave + _SPARE) + 2 * self.per_octave * (octaves + 1)

    def empty(self, streams: int) -> Streams:
        """Return the state of streams that have not begun."""
        rows = 2 * self.chain if self.candidates == "hull" else self.chain
        return Streams(
            np.zeros((streams, layout.COUNTS + self.categories), np.int64),
            np.zeros(streams),
            np.zeros((streams, rows, self.categories), np.int64),
            np.zeros((streams, rows), np.int64),
            np.full((streams, rows), np.nan),
            np.zeros((streams, rows), np.int64),
        )

    def run(self, state: Streams, streams: IntArray, xs: IntArray) -> list[tuple[int, int, Change]]:
        """Give each stream its observations in turn; return position in the batch, stream and change of each alarm."""
        return self._advance(state, streams, xs, _machine(self.weight, self.categories, self.predictor))

    def greatest(self, xs: IntArray, windows: Sequence[int]) -> list[float]:
        """Return the greatest evidence in parts of a stream that is never restarted, at least that of this weight's 0.

        Parameters
        ----------
        xs
            The stream.
        windows
            Where the first part begins, and where each ends.

        Returns
        -------
        list of float
            Of each part, as -log of the scale that just raises no alarm in it.
        """
        machine = _machine(self.weight, self.categories, self.predictor)
        quiet = machine.arrays[0].copy()
        quiet[[0, kernel.NEWBORN]] = -_NEVER
        state, begin, found = self.empty(1), 0, []
        for place, end in enumerate(windows):
            level = machine.arrays[0].copy() if place else quiet
            state.head[:, layout.LEFT] = 0
            state.due[:] = 0
            piece = xs[begin:end]
            climbing = _Machine(machine.ahead if place else _AHEAD, (level, *machine.arrays[1:]))
            self._advance(state, np.zeros(len(piece), np.int64), piece, climbing, climbing=True)
            found.append(float(-level[0]))
            begin = end
        return found[1:]

    def _advance(
        self, state: Streams, streams: IntArray, xs: IntArray, machine: _Machine, *, climbing: bool = False
    ) -> list[tuple[int, int, Change]]:
        found: list[tuple[int, int, Change]] = []
        k = self.categories
        events, evidences = np.empty((_EVENTS, kernel.EVENT_COUNTS + 2 * k), np.int64), np.empty(_EVENTS)
        scratch = np.empty(k)
        begin = 0
        while begin < len(xs):
            taken, count = kernel.advance(
                state.arrays,
                streams,
                xs,
                begin,
                self._plan(state, machine.ahead),
                machine.arrays,
                scratch,
                events,
                evidences,
                climbing,
            )
            found += [
                (int(event[kernel.POSITION]), int(event[kernel.STREAM]), _change(event, evidence, k))
                for event, evidence in zip(events[:count], evidences[:count].tolist(), strict=True)
            ]
            if taken < len(xs) and count < _EVENTS:
                _grow(state)
            begin = taken
        return found

    def statistic(self, state: Streams, stream: int) -> float:
        """Return the evidence of the best change in one stream now."""
        machine = _machine(self.weight, self.categories, self.predictor)
        plan, scratch = self._plan(state, machine.ahead), np.empty(self.categories)
        head, held = state.head[stream], state.held(stream)
        _, evidence, _ = kernel.statistic(head, held, plan, machine.arrays, scratch, True)
        return float(evidence)

    def starts(self, state: Streams, stream: int) -> IntArray:
        """Return the starts of the forecasters of one stream in ascending order."""
        head, lengths = state.head[stream], state.lengths[stream]
        if head[layout.FIRST] == 0:  # the anchor comes with the first observation
            return np.array([head[layout.START]], np.int64)
        second = self.chain
        held = [lengths[: head[layout.FIRST]], lengths[second : second + head[layout.SECOND]]]
        starts: IntArray = np.unique(np.concatenate(held)) + head[layout.START]
        return starts

    def _plan(self, state: Streams, ahead: int) -> IntArray:
        chain = self.chain if self.candidates == "hull" else state.rows.shape[1]
        return np.array(
            [
                *(self.categories, _CANDIDATES[self.candidates], chain, self.per_octave, _TWICE_A[self.predictor]),
                *(self.reseed, self.weight.formula, ahead, self.stride),
            ],
            np.int64,
        )

    def fields(self) -> dict[str, Scalar]:
        """Return the configuration as fields of a saved state."""
        return {
            "categories": self.categories,
            "predictor": self.predictor,
            "candidates": self.candidates,
            "max_candidates": self.max_candidates,
            "per_octave": self.per_octave,
            "reseed": self.reseed,
            "stride": self.stride,
            **saved_weight(self.weight),
        }

    @classmethod
    def restored(cls, saved: Mapping[str, Any]) -> Scan:
        """Return the configuration that ``fields`` wrote."""
        return cls(
            loaded_weight(dict(saved)),
            **{name: saved[name] for name in (field.name for field in fields(cls)) if name != "weight"},
        )


@dataclass(frozen=True, slots=True)
class _Machine:
    """What the kernel needs to evaluate a weight: parameters and tables."""

    ahead: int
    arrays: kernel.Tables


@lru_cache(maxsize=64)
def _machine(weight: AnyWeight, categories: int, predictor: Predictor) -> _Machine:
    twice_a = _TWICE_A[predictor]
    ahead, newborn = _look_ahead(weight, categories) if isinstance(weight, ShapedWeight) else (0, 0.0)
    constants = (math.lgamma(0.5 * twice_a), math.lgamma(0.5 * twice_a * categories))
    bounds = (weight.knee, weight.ceiling) if isinstance(weight, ShapedWeight) else (0.0, 0.0)
    unused = [0.0] * (PARAMETERS - len(weight.parameters))
    shape = np.array([*weight.parameters, *unused, newborn, *constants, *bounds])
    symbols, totals = tables.log_gamma_ratios(twice_a), tables.log_gamma_ratios(twice_a * categories)
    after = np.empty(tables.LENGTH)
    plan = np.zeros(kernel.AHEAD + 1, np.int64)
    plan[kernel.K_], plan[kernel.FORMULA] = categories, weight.formula
    kernel.fill_after(plan, shape, totals, after)
    growths = np.zeros(1)
    if isinstance(weight, ShapedWeight) and ahead:
        n2 = np.maximum(1, np.arange(_GROWTHS))
        growths = (weight.exponent + weight.late_exponent) * np.log1p(ahead / n2)
    return _Machine(ahead, (shape, symbols, totals, after, tables.logs(), growths))


def _look_ahead(weight: ShapedWeight, categories: int) -> tuple[int, float]:
    """Return how far ahead the test need not be made, and the log weight of a forecaster born meanwhile, at most.

    Such a forecaster has n2, hence q, at most that far. What is saved is as much as the anchor can lose until the
    evidence is used up, if it loses what it does on uniform categories.
    """
    best, newborn = 0, 0.0
    for ahead in range(2, _AHEAD + 1):
        q = math.log(ahead)
        late = weight.late_exponent * max(0.0, q - math.log(weight.knee))
        most = math.log(weight.scale) + weight.exponent * q + late
        if ahead * math.log(categories) > -most:
            break
        best, newborn = ahead, most
    return best, newborn


def _grow(state: Streams) -> None:
    """Double the rows of all streams."""
    state.rows = np.concatenate([state.rows, np.zeros_like(state.rows)], axis=1)
    state.before = np.concatenate([state.before, np.full_like(state.before, np.nan)], axis=1)
    state.lengths = np.concatenate([state.lengths, np.zeros_like(state.lengths)], axis=1)
    state.due = np.concatenate([state.due, np.zeros_like(state.due)], axis=1)


def _change(event: IntArray, evidence: float, k: int) -> Change:
    before, after = event[kernel.EVENT_COUNTS :][:k].tolist(), event[kernel.EVENT_COUNTS :][k : 2 * k].tolist()
    count_before, count_after = sum(before), sum(after)
    return Change(
        index=int(event[kernel.INDEX]),
        detected=int(event[kernel.DETECTED]),
        count_before=count_before,
        count_after=count_after,
        mean_before=sum(o * count for o, count in enumerate(before)) / count_before,
        mean_after=sum(o * count for o, count in enumerate(after)) / count_after,
        evidence=evidence,
        counts_before=tuple(before),
        counts_after=tuple(after),
    )
