"""Which streams a decision point has: made from a window of reference, and frozen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitoring.bins import (
    AnyBins,
    EqualBins,
    FlagBins,
    NameBins,
    NumberBins,
    Values,
    loaded_bins,
    saved_bins,
)
from monitoring.config import MonitorsConfig
from monitoring.detector import FloatArray, IntArray
from monitoring.draws import uniforms
from monitoring.rows import Rows
from monitoring.strata import PHASES, expected, phases, transport

#: Bins of the level of all rewards, and of those of one action or one tenth of the scores.
_LEVELS, _FEW_LEVELS = 10, 4
_SCORE_BINS = 5
#: Delays are binned in so many.
_DELAY_BINS = 8
#: Raw columns that every row has; what else there is are the features.
CHOSEN, OFFERED, DELAY, REWARD = "chosen", "offered", "delay", "reward"
LEVEL, SCORE, DEFAULTED = "level", "score", "defaulted"
_FEATURE = "feature "

Raw = Mapping[str, Values]


@dataclass(frozen=True)
class Plan:
    """One stream: which rows it reads, in which categories, and what was expected of them.

    Parameters
    ----------
    monitor, stream
        Its name; ``stream`` is empty where the monitor has one alone.
    column
        The raw column that is binned.
    bins
        Frozen bins.
    table
        Distribution in each stratum of the reference window, shape (strata, K).
    share
        Share of the rows that it reads.
    action
        Reads rows that chose this action alone.
    level
        Reads rows with a score in this bin alone.
    score_edges
        Inner edges of the score bins, where it reads or conditions on them.
    """

    monitor: str
    stream: str
    column: str
    bins: AnyBins
    table: FloatArray
    share: float = 1.0
    action: str | None = None
    level: int | None = None
    score_edges: tuple[float, ...] | None = None

    @property
    def key(self) -> str:
        """Its name in one text, as ``feature:country``."""
        return f"{self.monitor}:{self.stream}" if self.stream else self.monitor

    @property
    def target(self) -> FloatArray:
        """The distribution that observations are transported to."""
        mean = self.table.mean(axis=0)
        target: FloatArray = mean / mean.sum()
        return target

    def reads(self, raw: Raw) -> NDArray[np.bool_]:
        """Return which rows it reads."""
        values = raw[self.column]
        which = np.ones(len(values), np.bool_)
        if self.column in (DELAY, LEVEL):
            which &= ~np.isnan(np.asarray(values, np.float64))
        if self.action is not None:
            which &= raw[CHOSEN] == self.action
        if self.level is not None:
            which &= self._score_bins(raw) == self.level
        return which

    def strata(self, time_ms: IntArray, raw: Raw, config: MonitorsConfig) -> IntArray:
        """Return the stratum of each row: the phase of the season, times the bin of the score where it matters."""
        if self.monitor == "actions":  # held to the probabilities of each decision
            return np.zeros(len(time_ms), np.int64)
        found = phases(time_ms, config.season)
        if self.score_edges is not None and self.level is None:
            found = found * (_SCORE_BINS + 1) + self._score_bins(raw)
        return found

    def strata_count(self, config: MonitorsConfig) -> int:
        """Return how many strata there are."""
        if self.monitor == "actions":
            return 1
        by_score = self.score_edges is not None and self.level is None
        return PHASES[config.season] * (_SCORE_BINS + 1 if by_score else 1)

    def tally(self, counts: IntArray, time_ms: IntArray, raw: Raw, config: MonitorsConfig) -> int:
        """Add what it reads to counts by stratum and category; return how many rows that were."""
        which = np.flatnonzero(self.reads(raw))
        categories = self.bins.encode(raw[self.column][which])
        np.add.at(counts, (self.strata(time_ms, raw, config)[which], categories), 1)
        return len(which)

    def encode(self, rows: Rows, raw: Raw, config: MonitorsConfig) -> tuple[IntArray, IntArray]:
        """Return the numbers of the rows that it reads, and their categories, free of what is expected of them."""
        which = np.flatnonzero(self.reads(raw))
        categories = self.bins.encode(raw[self.column][which])
        if not len(which):
            return which, categories
        if self.monitor == "actions":
            assert isinstance(self.bins, NameBins)
            places = {name: place for place, name in enumerate(self.bins.known)}
            given = np.zeros((len(which), self.table.shape[1]))
            given[:, :-1] = rows.probabilities(places, len(places))
        elif len(self.table) > 1:
            given = self.table[self.strata(rows.time_ms, raw, config)[which]]
        else:
            return which, categories
        return which, transport(categories, given, self.target, uniforms(rows.seeds, self.key)[which])

    def _score_bins(self, raw: Raw) -> IntArray:
        """The bin of each score; the last one where there is none."""
        score = np.asarray(raw[SCORE], np.float64)
        found = np.searchsorted(np.array(self.score_edges), score, side="right").astype(np.int64)
        found[np.isnan(score)] = _SCORE_BINS
        return found

    def saved(self) -> str:
        """Return it as JSON."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return json.dumps({**fields, "bins": saved_bins(self.bins), "table": self.table.tolist()})

    @classmethod
    def restored(cls, text: str) -> Plan:
        """Return the plan that ``saved`` wrote."""
        fields: dict[str, Any] = json.loads(text)
        edges = fields["score_edges"]
        fields |= {
            "bins": loaded_bins(fields["bins"]),
            "table": np.array(fields["table"]),
            "score_edges": None if edges is None else tuple(edges),
        }
        return cls(**fields)


def world_raw(rows: Rows, features: Mapping[str, Values]) -> dict[str, Values]:
    """Return what the policy cannot move, and the chosen actions, which are held to its own probabilities."""
    columns: dict[str, Values] = {f"{_FEATURE}{name}": values for name, values in features.items()}
    ones = rows.ones().astype(np.float64)
    return {**columns, CHOSEN: rows.chosen(), OFFERED: rows.offered(), DELAY: rows.delay_ms, REWARD: ones}


def oracle_raw(rows: Rows, _features: Mapping[str, Values]) -> dict[str, Values]:
    """Return what is judged by the scores of the oracle."""
    return {
        CHOSEN: rows.chosen(),
        LEVEL: rows.levels(),
        SCORE: rows.score,
        DEFAULTED: rows.defaulted.astype(np.float64),
    }


def world_plans(time_ms: IntArray, raw: Raw, config: MonitorsConfig) -> list[Plan]:
    """Freeze features, the candidates offered, the actions chosen and the delay of the reward."""
    drafts: list[Plan] = []
    empty = np.zeros((0, 0))
    if config.features.enabled:
        for column, values in raw.items():
            if column.startswith(_FEATURE):
                name = column.removeprefix(_FEATURE)
                drafts.append(Plan("features", name, column, _feature_bins(values, config), empty))
    for monitor, settings, column in (
        ("actions", config.actions, CHOSEN),
        ("candidates", config.candidates, OFFERED),
    ):
        if settings.enabled:
            drafts.append(Plan(monitor, "", column, _action_bins(raw[column], config), empty))
    if config.delay.enabled:
        delays = np.asarray(raw[DELAY], np.float64)
        bins = NumberBins.frozen(delays, _DELAY_BINS)
        # How late is late has no bound: the greatest delay seen so far is none.
        drafts.append(Plan("delay", "", DELAY, NumberBins(bins.edges, min(bins.low, 0.0), np.inf), empty))
    if config.reward.enabled and config.season != "none":
        # The rewards have a detector of their own; this takes the season out of what it reads.
        drafts.append(Plan("reward", "", REWARD, FlagBins("0", "1"), empty))
    return [_with_table(draft, time_ms, raw, config) for draft in drafts]


def oracle_plans(time_ms: IntArray, raw: Raw, config: MonitorsConfig) -> list[Plan]:
    """Freeze the rewards given the scores: all, by action, by score; and the default rewards given the score."""
    scores = np.asarray(raw[SCORE], np.float64)
    known = scores[~np.isnan(scores)]
    cuts = np.arange(1, _SCORE_BINS) / _SCORE_BINS
    edges = tuple(np.quantile(known, cuts).tolist()) if len(known) else tuple(cuts.tolist())
    empty = np.zeros((0, 0))
    drafts: list[Plan] = []
    if config.residual.enabled:
        drafts.append(Plan("residual", "", LEVEL, EqualBins(_LEVELS), empty))
    if config.action_reward.enabled:
        drafts += [
            Plan("action_reward", action, LEVEL, EqualBins(_FEW_LEVELS), empty, action=action)
            for action in _action_bins(raw[CHOSEN], config).known
        ]
    if config.calibration.enabled:
        ends = ["-inf", *(f"{edge:.3g}" for edge in edges), "inf"]
        drafts += [
            Plan("calibration", f"{low}..{high}", LEVEL, EqualBins(_FEW_LEVELS), empty, level=place, score_edges=edges)
            for place, (low, high) in enumerate(pairwise(ends))
        ]
    if config.defaults.enabled:
        bins = FlagBins("outcome", "default")
        drafts.append(Plan("defaults", "", DEFAULTED, bins, empty, score_edges=edges))
    plans = [_with_table(draft, time_ms, raw, config) for draft in drafts]
    return _distinct([plan for plan in plans if plan.share > 0.0])


def _distinct(plans: Sequence[Plan]) -> list[Plan]:
    """Bins of the score that look alike in print have one name, and the first of them alone is watched."""
    return list({plan.key: plan for plan in reversed(plans)}.values())[::-1]


def _feature_bins(values: Values, config: MonitorsConfig) -> AnyBins:
    if values.dtype == object:
        return NameBins.frozen(values, config.features.least_share, config.features.most_categories)
    return NumberBins.frozen(np.asarray(values, np.float64), config.features.bins)


def _action_bins(values: Values, config: MonitorsConfig) -> NameBins:
    return NameBins.frozen(np.asarray(values, object), config.frequent_action, config.most_actions)


def _with_table(draft: Plan, time_ms: IntArray, raw: Raw, config: MonitorsConfig) -> Plan:
    """Return the plan with what the reference window holds of it."""
    counts = np.zeros((draft.strata_count(config), len(draft.bins.names)), np.int64)
    share = draft.tally(counts, time_ms, raw, config) / max(1, len(time_ms))
    return replace(draft, table=expected(counts), share=share)
