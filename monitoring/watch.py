"""All monitors of one decision point."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np

from engine.errors import SnapshotError
from engine.records import Alarm, Decision, Feedback
from monitoring.alarms import audit_alarm, change_alarm
from monitoring.allocation import MONTH_MS, Allocation, split
from monitoring.bins import Values
from monitoring.budget import Budget
from monitoring.config import STREAM_MONITORS, MonitorsConfig
from monitoring.detector import FloatArray, IntArray
from monitoring.draws import seeds, uniforms
from monitoring.family import Family
from monitoring.incidents import Incidents
from monitoring.plans import oracle_plans, oracle_raw, world_plans, world_raw
from monitoring.reward import RewardMonitor
from monitoring.rows import FeatureColumns, Rows
from monitoring.run_lengths import expected_delay
from monitoring.state import Array, Scalar, decode, encode
from monitoring.strata import inflation
from monitoring.weights import AnyWeight, ShapedWeight

#: Recomputes a decision: in words what differs, empty where nothing does, ``None`` where its policy cannot be had.
Audit = Callable[[Decision], str | None]
#: Returns the newest feedback that a generation was trained on.
TrainingWindow = Callable[[int], Sequence[Feedback]]


@dataclass(frozen=True, slots=True)
class StreamHistory:
    """What one stream reads of some feedback.

    Attributes
    ----------
    time_ms, categories : ndarray of int64, shape (n,)
        Decision times and observations.
    names : tuple of str
        Of the categories.
    weight
        Of the detector, or the calibrated one where the detector has another kind.
    expected : ndarray of float64, shape (K,), or None
        Shares of the categories in the reference window.
    """

    time_ms: IntArray
    categories: IntArray
    names: tuple[str, ...]
    weight: ShapedWeight
    expected: FloatArray | None


_KIND = "point-watch/1"
_SECOND_MS = 1_000


class PointWatch:
    """Watches the feedback of one decision point; pure: feedback in, alarms out.

    Two families of streams: what the policy cannot move (features, candidates, delay of the outcomes) together with
    the actions chosen, held to the probabilities of each decision; and what is judged by the scores of the oracle (the
    level of each reward among those predicted, over all, by action, by score; default rewards given the score), which
    begins anew with each generation. The reward itself has a monitor of its own, which tells drift from learning.

    Parameters
    ----------
    name
        The decision point.
    reward_range
        Declared least and greatest reward.
    config
        Its monitors.
    features
        Takes the context features out of decisions.
    audit
        Recomputes decisions.
    window
        Returns the newest feedback that a generation was trained on, in order; empty where it is not known.

    Attributes
    ----------
    seen : int
        Feedbacks so far.
    mismatches : int
        Decisions recomputed since the start that differed.
    """

    def __init__(
        self,
        name: str,
        reward_range: tuple[float, float],
        config: MonitorsConfig,
        features: FeatureColumns = lambda _: {},
        audit: Audit = lambda _: None,
        window: TrainingWindow = lambda _: (),
    ) -> None:
        self.name = name
        self.config = config
        self._range = reward_range
        self._features = features
        self._audit = audit
        self._window = window
        self.reward = RewardMonitor(name, reward_range, config.reward) if config.reward.enabled else None
        share = partial(_per_month, config)
        self.world = Family(config, world_raw, world_plans, share, stops=False, window=self._trained_on)
        self.oracle = Family(config, oracle_raw, oracle_plans, share, stops=True)
        self._streams = any(getattr(config, monitor).enabled for monitor in STREAM_MONITORS)
        self.seen = 0
        self.sample = 1.0
        self.mismatches = 0
        self._audit_alarm_at: int | None = None
        self._audit_second = (0, 0)
        self._incidents = Incidents()

    def update_many(self, batch: Sequence[Feedback]) -> list[Alarm]:
        """Take feedback in the order of the log; return the alarms that it raises.

        The policy versions must be such (``engine.records.generation_of``), the chosen actions among the actions.
        """
        if not batch:
            return []
        first, self.seen = self.seen, self.seen + len(batch)
        alarms = self._watch_streams(batch, first)
        alarms += self._watch_propensities(batch, first)
        alarms.sort(key=lambda alarm: alarm.feedback_seen)
        for alarm in alarms:
            self._incidents.enter(alarm)
        return alarms

    def _watch_streams(self, batch: Sequence[Feedback], first: int) -> list[Alarm]:
        season = self.config.season != "none"
        alarms = [] if season else self._watch_reward(batch, first, None)
        if not (self._streams or season):
            return alarms
        chosen, every = self._sampled(batch), np.arange(len(batch))
        rows = Rows.of(batch if season else [batch[place] for place in chosen], self._range)
        if season:
            # The reward is read whole, and needs the season taken out of it.
            alarms += self._watch_reward(batch, first, rows)
            rows = rows.take(np.isin(every, chosen))
        if not len(rows):
            return alarms
        features = self._features(rows.decisions.tolist())
        known = self.world.feedbacks_per_month
        for family in (self.world, self.oracle):
            for finding in family.update(rows, features, self.sample):
                place = int(chosen[finding.row])
                alarms.append(change_alarm(finding, batch[place].decision, self.config, first + place + 1))
        if self.world.feedbacks_per_month != known:
            self._traffic_is_known()
        return alarms

    def _watch_reward(self, batch: Sequence[Feedback], first: int, rows: Rows | None) -> list[Alarm]:
        if self.reward is None:
            return []
        ones = None
        if rows is not None:
            plan = self.world.reward
            if plan is None:
                return []  # the first period of the season is the reference
            _, ones = plan.encode(rows, {plan.column: rows.ones().astype(np.float64)}, self.config)
        before = self.reward.seen
        alarms = self.reward.update_many(batch, ones)
        for alarm in alarms:
            alarm.feedback_seen += first - before
        return alarms

    def _trained_on(self, generation: int) -> tuple[Rows, Mapping[str, Values]] | None:
        batch = self._window(generation)
        if not batch:
            return None
        rows = Rows.of(batch, self._range)
        return rows, self._features(rows.decisions.tolist())

    def _sampled(self, batch: Sequence[Feedback]) -> np.ndarray[Any, np.dtype[np.int64]]:
        if self.sample >= 1.0:
            return np.arange(len(batch))
        draws = uniforms(seeds(feedback.decision.decision_id for feedback in batch), "sample")
        return np.flatnonzero(draws < self.sample)

    def _traffic_is_known(self) -> None:
        """Set the level of the reward, and how many feedbacks the streams look at."""
        per_month = self.world.feedbacks_per_month
        assert per_month is not None
        self.sample = min(1.0, self.config.max_per_second * MONTH_MS / _SECOND_MS / per_month)
        if self.reward is not None and not self.config.reward.own_level:
            self.reward.set_level(self._reward_level())

    def _reward_level(self) -> ShapedWeight:
        return self._reward_allocation().weight(2, inflation(self.config.season))

    def _reward_allocation(self) -> Allocation:
        per_month = self.world.feedbacks_per_month
        return Allocation("reward", "", _per_month(self.config, "reward", 1), per_month or float(MONTH_MS / _SECOND_MS))

    def _watch_propensities(self, batch: Sequence[Feedback], first: int) -> list[Alarm]:
        config = self.config.propensity
        if not config.enabled:
            return []
        draws = uniforms(seeds(feedback.decision.decision_id for feedback in batch), "audit")
        alarms = []
        for place in np.flatnonzero(draws < config.share).tolist():
            decision, seen = batch[place].decision, first + place + 1
            second, count = self._audit_second
            now = max(second, decision.time_ms // _SECOND_MS)
            self._audit_second = (now, count + 1 if now == second else 1)
            if self._audit_second[1] > config.most_per_second:
                continue
            difference = self._audit(decision)
            if difference is None:
                continue
            if not difference:
                continue
            self.mismatches += 1
            last = self._audit_alarm_at
            if last is None or seen > last + config.cooldown:
                self._audit_alarm_at = seen
                alarms.append(audit_alarm(decision, difference, self.mismatches, self.config, seen))
        return alarms

    def allocations(self) -> list[Allocation]:
        """Return what each stream may cost: of those that are watched now."""
        own = self.reward is None or self.config.reward.own_level
        reward = [] if own else [self._reward_allocation()]
        return [*reward, *self.world.allocations(), *self.oracle.allocations()]

    @property
    def run_length(self) -> int:
        """Feedbacks since the last change of the reward."""
        return 0 if self.reward is None else self.reward.run_length

    @property
    def change_probability(self) -> float:
        """Probability of a change of the reward since the last one that was reported."""
        return 0.0 if self.reward is None else self.reward.change_probability

    def history(self, key: str, batch: Sequence[Feedback]) -> StreamHistory | None:
        """Return what a stream reads of feedback, or ``None`` where there is no such stream now; watches nothing.

        Parameters
        ----------
        key
            ``reward``, or as ``features:country``.
        batch
            Feedback of this decision point.
        """
        rows = Rows.of(batch, self._range)
        if key == "reward" and self.reward is not None:
            return StreamHistory(rows.time_ms, rows.ones(), ("0", "1"), _shaped(self.reward.weight, 2), None)
        features = self._features(rows.decisions.tolist())
        for family in (self.world, self.oracle):
            found = family.plan(key)
            if found is not None:
                plan, weight = found
                which, categories = plan.encode(rows, family.raw(rows, features), self.config)
                names = plan.bins.names
                return StreamHistory(rows.time_ms[which], categories, names, _shaped(weight, len(names)), plan.target)
        return None

    def delays(self, moved: float) -> dict[str, int | None]:
        """Return after how many of its observations each stream finds a change that moves a share of them.

        From the most frequent category to the rarest, after a month without a change. See ``expected_delay``.
        """
        found: dict[str, int | None] = {}
        if self.reward is not None:
            month = self._reward_allocation().observations_per_month
            even = np.array([0.5 - moved / 2, 0.5 + moved / 2])
            found["reward"] = expected_delay(even, even[::-1], int(month), _shaped(self.reward.weight, 2))
        for family in (self.world, self.oracle):
            for group in family.groups:
                for plan, month in zip(group.plans, group.observations.tolist(), strict=True):
                    target = plan.target
                    changed = target.copy()
                    share = min(moved, float(target.max()))
                    changed[target.argmax()] -= share
                    changed[target.argmin()] += share
                    weight = _shaped(group.bank.bank.scan.weight, len(target))
                    found[plan.key] = expected_delay(target, changed, int(month), weight)
        return found

    def divergences(self) -> dict[str, FloatArray]:
        """Return for each stream how far its latest blocks were from its reference."""
        return self.world.divergences() | self.oracle.divergences()

    def run_lengths(self) -> dict[str, int]:
        """Return for each stream how many observations there were since its last change."""
        return self.world.run_lengths() | self.oracle.run_lengths()

    def save(self) -> bytes:
        """Return the whole state, the configuration apart."""
        arrays: dict[str, Array] = {}
        families = {}
        for name, family in (("world", self.world), ("oracle", self.oracle)):
            families[name], more = family.save(f"{name}/")
            arrays |= more
        if self.reward is not None:
            arrays["reward"] = np.frombuffer(self.reward.save(), np.uint8)
        fields: dict[str, Scalar] = {
            "seen": self.seen,
            "sample": self.sample,
            **self._incidents.save(),
            "audit_alarm_at": self._audit_alarm_at,
            "audit_second": self._audit_second[0],
            "audit_count": self._audit_second[1],
            "families": json.dumps(families),
            "frozen_by": self._frozen_by(),
        }
        return encode(_KIND, fields, arrays)

    def _frozen_by(self) -> str:
        """What the streams are made of: another configuration needs other streams."""
        said = {"reactions", "min_effect"}
        others = dict.fromkeys(("reward", "propensity", "cooldown"), True)
        return self.config.model_dump_json(exclude={**others, **dict.fromkeys(STREAM_MONITORS, said)})

    @classmethod
    def load(
        cls,
        data: bytes,
        name: str,
        reward_range: tuple[float, float],
        config: MonitorsConfig,
        features: FeatureColumns = lambda _: {},
        audit: Audit = lambda _: None,
        window: TrainingWindow = lambda _: (),
    ) -> Self:
        """Return the monitors that ``save`` wrote.

        Under another configuration of the streams they begin anew; the reward goes on. Raises ``SnapshotError`` where
        the bytes are damaged, or of another decision point or reward range.
        """
        watch = cls(name, reward_range, config, features, audit, window)
        fields, arrays = decode(_KIND, data)
        try:
            watch.seen = fields["seen"]
            watch._incidents.restore(fields)
            watch._audit_alarm_at = fields["audit_alarm_at"]
            watch._audit_second = (fields["audit_second"], fields["audit_count"])
            if fields["frozen_by"] == watch._frozen_by():
                watch.sample = fields["sample"]
                families = json.loads(fields["families"])
                watch.world.restore(families["world"], arrays, "world/")
                watch.oracle.restore(families["oracle"], arrays, "oracle/")
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise SnapshotError(f"the saved {_KIND} is incomplete ({error}); let it start anew") from error
        if watch.reward is not None and "reward" in arrays:
            known = watch.world.feedbacks_per_month is not None and not config.reward.own_level
            level = watch._reward_level() if known else None
            watch.reward = RewardMonitor.load(arrays["reward"].tobytes(), name, reward_range, config.reward, level)
        return watch


def _shaped(weight: AnyWeight, categories: int) -> ShapedWeight:
    return weight if isinstance(weight, ShapedWeight) else Budget().weight(categories)


def _per_month(config: MonitorsConfig, monitor: str, streams: int) -> float:
    """Return the false alarms a month of one of so many streams of a monitor."""
    return split(config.false_alarms_per_month, dict.fromkeys(config.budgeted, 1) | {monitor: streams})[monitor]
