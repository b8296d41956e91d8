"""Streams that are frozen on one window of reference, and then watched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from monitoring.allocation import Allocation
from monitoring.bins import Values
from monitoring.config import MonitorsConfig
from monitoring.detector import FloatArray, IntArray
from monitoring.plans import Plan
from monitoring.reference import Reference
from monitoring.rows import Rows
from monitoring.state import Array
from monitoring.strata import inflation
from monitoring.stream_bank import Shift, StreamBank
from monitoring.tally import Tally
from monitoring.weights import AnyWeight, ShapedWeight

RawColumns = Callable[[Rows, Mapping[str, Values]], dict[str, Values]]
MakePlans = Callable[[IntArray, Mapping[str, Values], MonitorsConfig], list[Plan]]
Window = Callable[[int], tuple[Rows, Mapping[str, Values]] | None]
#: Monitor of the plan that takes the season out of the rewards; they have a detector of their own.
REWARD = "reward"


@dataclass
class Group:
    """The streams of one monitor with one number of categories."""

    plans: list[Plan]
    bank: StreamBank
    #: Observations of each stream when it last acted, below 0: never.
    acted: IntArray
    per_month: float
    observations: FloatArray


@dataclass(frozen=True, slots=True)
class Finding:
    """A change in one stream, and whether it is to act: its cool-down does not run."""

    plan: Plan
    shift: Shift
    acts: bool
    row: int


@dataclass
class Family:
    """Streams that share a window of reference.

    Until the window is complete nothing is watched. With a new generation it is collected anew: of streams that the
    policy cannot move the old ones are watched meanwhile; those that are judged by the scores of the oracle stop.

    Parameters
    ----------
    config
        The monitors.
    raw
        Takes the raw columns from rows and features.
    make
        Freezes the streams.
    per_month
        False alarms a month of a monitor of so many streams: its name and their number, to that of each.
    stops
        Whether a new generation ends what was watched.
    window
        Returns the newest rows that a generation was trained on, and their features, if they are known.
    """

    config: MonitorsConfig
    raw: RawColumns
    make: MakePlans
    per_month: Callable[[str, int], float]
    stops: bool
    window: Window = lambda _: None
    generation: int = -1
    reference: Reference | None = None
    groups: list[Group] = field(default_factory=list)
    reward: Plan | None = None
    feedbacks_per_month: float | None = None
    tally: Tally | None = None

    def update(self, rows: Rows, features: Mapping[str, Values], sample: float) -> list[Finding]:
        """Watch rows; return what changed. ``sample`` is the share of all feedback that rows are of."""
        found: list[Finding] = []
        start = 0
        raw = self.raw(rows, features)
        newest = np.maximum.accumulate(np.maximum(rows.generation, self.generation))
        turns = np.flatnonzero(np.diff(newest, prepend=self.generation))
        for turn in [*turns.tolist(), len(rows)]:
            self._run(rows, raw, start, turn, sample, found)
            if turn < len(rows):
                self._begin(int(newest[turn]), sample)
            start = turn
        return found

    def _begin(self, generation: int, sample: float) -> None:
        self.generation = generation
        self.reference = Reference(self.config.warm_up, self.config.settle if self.stops else 0)
        self.tally = None
        if self.stops:
            self.groups = []
            return
        # A season is counted over whole periods, which a training window need not hold.
        known = self.window(generation) if self.config.season == "none" else None
        if known is not None:
            rows, features = known
            raw = self.raw(rows, features)
            if self.reference.take(rows, raw) is not None:
                self._complete(1.0, sample)
                # What comes is compared with what the policy was trained on; what happened then is known.
                self._watch(rows, raw, np.arange(len(rows)), [])
            else:
                self.reference = Reference(self.config.warm_up)

    def _run(
        self, rows: Rows, raw: dict[str, Values], start: int, stop: int, sample: float, found: list[Finding]
    ) -> None:
        """Watch and collect the rows from ``start`` to ``stop``, which are of one generation or late ones of others."""
        which = np.arange(start, stop)
        if self.stops:
            which = which[rows.generation[start:stop] == self.generation]
        while len(which):
            part, part_raw = rows.take(which), {name: values[which] for name, values in raw.items()}
            taken = None
            if self.reference is not None:
                taken = self.reference.take(part, part_raw)
            elif self.tally is not None:
                taken = self.tally.take(part, part_raw)
            if taken is None:
                self._watch(part, part_raw, which, found)
                return
            old = slice(0, taken)
            self._watch(part.take(old), {name: values[old] for name, values in part_raw.items()}, which[old], found)
            self._complete(sample, sample)
            which = which[taken:]

    def _complete(self, collected: float, sample: float) -> None:
        """Go on from what has been collected: with a season from the bins to what is expected of each phase.

        Both are shares of all feedback: of which the rows were collected, and which are looked at from now on.
        """
        if self.reference is not None:
            raw = self.reference.columns()
            plans = self.make(raw.pop("time_ms").astype(np.int64), raw, self.config)
            self._traffic(self.reference.per_month, collected)
            self.reference = None
            if self.config.season == "none":
                self._freeze(plans, sample)
            else:
                self.tally = Tally(self.config, plans)
        elif self.tally is not None:
            self._traffic(self.tally.per_month, collected)
            plans, self.tally = self.tally.plans(), None
            self._freeze(plans, sample)

    def _traffic(self, per_month: float, sample: float) -> None:
        given = self.config.feedbacks_per_month
        self.feedbacks_per_month = per_month / sample if given is None else given

    def _freeze(self, plans: list[Plan], sample: float) -> None:
        assert self.feedbacks_per_month is not None
        self.reward = next((plan for plan in plans if plan.monitor == REWARD), None)
        streams = [plan for plan in plans if plan.monitor != REWARD]
        self.groups = []
        for monitor, categories in dict.fromkeys((plan.monitor, plan.table.shape[1]) for plan in streams):
            mine = [plan for plan in streams if (plan.monitor, plan.table.shape[1]) == (monitor, categories)]
            per_month = self.per_month(monitor, sum(plan.monitor == monitor for plan in streams))
            observations = self.feedbacks_per_month * sample * np.array([plan.share for plan in mine])
            weight = self._weight(monitor, categories, per_month, observations)
            bank = StreamBank(np.stack([plan.target for plan in mine]), weight)
            acted = np.full(len(mine), -1, np.int64)
            self.groups.append(Group(mine, bank, acted, per_month, observations))

    def _weight(self, monitor: str, categories: int, per_month: float, observations: FloatArray) -> ShapedWeight:
        """Return the weight of streams that share a bank: false alarms grow with observations, so their mean counts."""
        allocation = Allocation(monitor, "", per_month, float(observations.mean()))
        # Actions are held to the probabilities of each decision, in which no pattern is estimated.
        return allocation.weight(categories, 1.0 if monitor == "actions" else inflation(self.config.season))

    def _watch(self, rows: Rows, raw: Mapping[str, Values], numbers: IntArray, found: list[Finding]) -> None:
        if not len(rows):
            return
        fresh: list[Finding] = []
        for group in self.groups:
            encoded = [plan.encode(rows, raw, self.config) for plan in group.plans]
            streams = np.repeat(np.arange(len(encoded)), [len(which) for which, _ in encoded])
            shifts = group.bank.update(
                streams,
                np.concatenate([which for which, _ in encoded]),
                np.concatenate([categories for _, categories in encoded]),
                rows.time_ms,
            )
            for shift in shifts:
                plan = group.plans[shift.stream]
                if shift.effect < self.config.of(plan.monitor).min_effect:
                    continue
                last, now = int(group.acted[shift.stream]), shift.change.detected + 1
                acts = last < 0 or now > last + self.config.cooldown
                if acts:
                    group.acted[shift.stream] = now
                fresh.append(Finding(plan, shift, acts, int(numbers[shift.row])))
        found += sorted(fresh, key=lambda finding: finding.row)

    def plan(self, key: str) -> tuple[Plan, AnyWeight] | None:
        """Return a stream that is watched now, by its name, and the weight of its detector."""
        for group in self.groups:
            for plan in group.plans:
                if plan.key == key:
                    return plan, group.bank.bank.scan.weight
        return None

    def allocations(self) -> list[Allocation]:
        """Return what each stream may cost."""
        return [
            Allocation(plan.monitor, plan.stream, group.per_month, float(observations))
            for group in self.groups
            for plan, observations in zip(group.plans, group.observations, strict=True)
        ]

    def divergences(self) -> dict[str, FloatArray]:
        """Return for each stream how far its latest blocks were from the reference."""
        return {
            plan.key: group.bank.divergences(place) for group in self.groups for place, plan in enumerate(group.plans)
        }

    def run_lengths(self) -> dict[str, int]:
        """Return for each stream how many observations there were since its last change."""
        found: dict[str, int] = {}
        for group in self.groups:
            lengths = group.bank.bank.seen - group.bank.bank.run_starts
            found |= {plan.key: length for plan, length in zip(group.plans, lengths.tolist(), strict=True)}
        return found

    def save(self, prefix: str) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return the state as JSON values and arrays."""
        arrays: dict[str, Array] = {}
        groups = []
        for number, group in enumerate(self.groups):
            groups.append({"plans": [plan.saved() for plan in group.plans], "per_month": group.per_month})
            at = f"{prefix}{number}/"
            arrays |= {f"{at}{name}": array for name, array in group.bank.arrays().items()}
            arrays |= {f"{at}acted": group.acted, f"{at}observations": group.observations}
        fields: dict[str, Any] = {
            "generation": self.generation,
            "groups": groups,
            "reward": None if self.reward is None else self.reward.saved(),
            "feedbacks_per_month": self.feedbacks_per_month,
            "reference": None,
            "tally": None,
        }
        if self.reference is not None:
            fields["reference"], columns = self.reference.save(f"{prefix}reference/")
            arrays |= columns
        if self.tally is not None:
            fields["tally"], tables = self.tally.save(f"{prefix}tally/")
            arrays |= tables
        return fields, arrays

    def restore(self, fields: dict[str, Any], arrays: dict[str, Any], prefix: str) -> None:
        """Go on from a saved state."""
        self.generation = fields["generation"]
        self.feedbacks_per_month = fields["feedbacks_per_month"]
        self.reward = None if fields["reward"] is None else Plan.restored(fields["reward"])
        self.groups = []
        for number, saved in enumerate(fields["groups"]):
            at = f"{prefix}{number}/"
            mine = {name.removeprefix(at): array for name, array in arrays.items() if name.startswith(at)}
            plans = [Plan.restored(text) for text in saved["plans"]]
            kind, categories = plans[0].monitor, len(plans[0].target)
            weight = self._weight(kind, categories, saved["per_month"], mine["observations"])
            bank = StreamBank.restored(mine, weight)
            self.groups.append(Group(plans, bank, mine["acted"], saved["per_month"], mine["observations"]))
        reference, tally = fields["reference"], fields["tally"]
        self.reference = None if reference is None else Reference.restored(reference, arrays, f"{prefix}reference/")
        self.tally = None if tally is None else Tally.restored(self.config, tally, arrays, f"{prefix}tally/")
