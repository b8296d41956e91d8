"""The role that publishes the policies of recommenders: promoted generations, and catalogues as they are loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from engine.config import Recommender, same_fields
from engine.errors import SnapshotError
from engine.recommender.catalogue import Catalogue
from engine.recommender.policy import RecommenderPolicy, initial_recommender
from engine.recommender.store import RecommenderStore
from engine.records import REACTION_EXPLORE, Alarm, Generation, generation_of
from monitoring.reactions import reactions_of
from streaming.catalogues import catalogue_path, read_catalogue
from streaming.intake import parsed
from streaming.log import Log
from streaming.topics import ALARMS, GENERATIONS

logger = logging.getLogger(__name__)

#: Looking asks the log and the disk: not at every step.
LOOK_EVERY_MS = 1_000


class ListPublisher:
    """Keeps the published policy of each recommender what it should be.

    That is: the model of the last promoted generation, the configuration of today, the catalogue that was loaded last,
    and uniform exploration while an alarm asks for it. All of it is in the log and on the disk, so a restart forgets
    nothing.

    Parameters
    ----------
    log
        Where promoted generations and alarms are.
    recommenders
        As they are configured now.
    store
        Where policies are published.
    catalogues
        Directory of the catalogues.
    clock
        Milliseconds since 1970.
    """

    def __init__(
        self,
        log: Log,
        recommenders: Mapping[str, Recommender],
        store: RecommenderStore,
        catalogues: Path,
        clock: Callable[[], int],
    ) -> None:
        self._log = log
        self._recommenders = recommenders
        self._store = store
        self._catalogues = catalogues
        self._clock = clock
        self._read = {GENERATIONS: 0, ALARMS: 0}
        self._promoted: dict[str, Generation] = {}
        self._alarms: dict[str, Alarm] = {}
        self._seen: dict[str, tuple[int, int] | None] = {}
        self._known: dict[str, Catalogue | None] = {}
        self._failed: dict[str, int] = {}
        self._looked_ms = 0
        self.policies: dict[str, RecommenderPolicy] = {}

    def step(self, *, timeout_s: float = 0.0) -> int:
        """Look for what is new and publish what follows; waits for nothing. Returns the number of records read."""
        if self.policies and self._clock() - self._looked_ms < LOOK_EVERY_MS:
            return 0
        count = self._follow()
        for name, recommender in self._recommenders.items():
            self._look(name, recommender)
        self._looked_ms = self._clock()
        return count

    def close(self) -> None:
        """Nothing is under way."""

    def _follow(self) -> int:
        count = 0
        for topic in self._read:
            while records := self._log.read(topic, 0, self._read[topic]):
                for record in records:
                    if topic == GENERATIONS:
                        entry = parsed(record, Generation)
                        if entry is not None and entry.promoted and entry.decision_point in self._recommenders:
                            self._promoted[entry.decision_point] = entry
                    else:
                        alarm = parsed(record, Alarm)
                        if alarm is not None and REACTION_EXPLORE in reactions_of(alarm):
                            self._alarms[alarm.decision_point] = alarm
                    count += 1
                self._read[topic] = records[-1].offset + 1
        return count

    def _look(self, name: str, recommender: Recommender) -> None:
        policy = self.policies.get(name)
        if policy is None:
            policy = self._first(name, recommender)
        entry = self._promoted.get(name)
        if entry is not None and entry.generation > max(policy.generation, self._failed.get(name, -1)):
            policy = self._generation(name, recommender, entry, policy)
        catalogue = self._catalogue(name, recommender)
        share = self._share(name, recommender, policy)
        wanted = (recommender, None if catalogue is None else catalogue.digest, share)
        found = (
            policy.recommender,
            None if policy.catalogue is None else policy.catalogue.digest,
            policy.uniform_share,
        )
        if wanted != found:
            policy = replace(
                policy,
                recommender=recommender,
                catalogue=catalogue,
                uniform_share=share,
                update=policy.update + 1,
                created_ms=self._clock(),
                # Kept where nothing that they are made of has changed.
                vectors=policy.vectors if wanted[:2] == found[:2] else None,
                graph=policy.graph if wanted[:2] == found[:2] else None,
            )
        if policy is not self.policies.get(name):
            self._store.publish(policy)
            self.policies[name] = policy
            logger.info("%s: policy %s serves", name, policy.version)

    def _first(self, name: str, recommender: Recommender) -> RecommenderPolicy:
        """Return what to go on from: what is published, or a policy that knows nothing."""
        version = self._store.current(name)
        if version is None:
            return initial_recommender(name, recommender, self._clock())
        try:
            policy = self._store.load(name, version)
        except SnapshotError as error:
            logger.error("%s: %s; starting afresh", name, error)
        else:
            if same_fields(policy.recommender, recommender):
                return policy
            logger.warning("%s: fields or tasks have changed and the model does not fit them; starting afresh", name)
        # Generations are never counted backwards: the ledger and the registry go on from the one before.
        try:
            generation = generation_of(version)
        except ValueError:
            generation = 0
        return initial_recommender(name, recommender, self._clock(), generation)

    def _generation(
        self, name: str, recommender: Recommender, entry: Generation, policy: RecommenderPolicy
    ) -> RecommenderPolicy:
        try:
            promoted = self._store.load(name, entry.policy_version)
            if not same_fields(promoted.recommender, recommender):
                raise SnapshotError(f"{promoted.version} was trained for other fields or tasks than are configured now")
        except SnapshotError as error:
            self._failed[name] = entry.generation
            logger.error("%s: generation %d cannot be served: %s", name, entry.generation, error)
            return policy
        return promoted

    def _catalogue(self, name: str, recommender: Recommender) -> Catalogue | None:
        """Return the catalogue that was loaded last; one that cannot be read leaves the one before in place."""
        path = catalogue_path(self._catalogues, name)
        try:
            facts = path.stat()
            stamp = (facts.st_mtime_ns, facts.st_size)
        except FileNotFoundError:
            stamp = None
        if name not in self._seen or self._seen[name] != stamp:
            self._seen[name] = stamp
            try:
                self._known[name] = read_catalogue(path, recommender)
            except SnapshotError as error:
                logger.error("%s: %s", name, error)
        return self._known.get(name)

    def _share(self, name: str, recommender: Recommender, policy: RecommenderPolicy) -> float:
        """Return how much uniform exploration the newest alarm asks for: the share of the reward that was lost."""
        alarm, entry = self._alarms.get(name), self._promoted.get(name)
        slate = recommender.slate
        if alarm is None or self._clock() - alarm.detected_ms > slate.drift_exploration_time:
            return 0.0
        if entry is not None and entry.trained_ms >= alarm.detected_ms:
            return 0.0
        lost = alarm.effect
        if alarm.monitor in ("reward", ""):
            gained = alarm.mean_before - recommender.reward_range[0]
            lost = (alarm.mean_before - alarm.mean_after) / gained if gained > 0.0 else 1.0
        return min(max(lost, 0.0), slate.drift_exploration)
