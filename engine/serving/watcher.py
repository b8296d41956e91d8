"""Hot swap: looks for newly published policies and lets them serve."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from engine.config import Challenger, same_fields
from engine.errors import SnapshotError
from engine.features import same_columns
from engine.policy import Policy
from engine.recommender.policy import RecommenderPolicy
from engine.recommender.store import RecommenderStore
from engine.serving.answers import Activity
from engine.serving.deciding import Slot
from engine.serving.rollout import Rollout
from engine.serving.seams import Observer
from engine.serving.service import DecisionService, RecommenderSlot
from engine.store import PolicyStore

logger = logging.getLogger(__name__)


def schema_problem(policy: Policy, slot: Slot) -> str:
    """Return why a policy cannot serve a slot: it was made for other features; empty where it can.

    A policy that encodes other columns than requests bring would score nonsense, so it is never served.
    """
    if same_columns(policy.point, slot.point):
        return ""
    return f"policy {policy.version} was made for other features; the learner publishes one that fits"


def pause_s(interval_s: float, turn: float, now_s: float) -> float:
    """Return how long to wait for the next look of one of several processes, which all read the same clock.

    >>> pause_s(0.25, 0.0, now_s=100.0), pause_s(0.25, 0.5, now_s=100.0)
    (0.25, 0.125)
    """
    return interval_s - (now_s - turn * interval_s) % interval_s


class PolicyWatcher:
    """Polls the store's pointers in a thread of its own.

    A policy that cannot be loaded leaves the serving one in place, with the reason in the slot, the log and
    the observer; it is tried again when the pointer changes.

    Parameters
    ----------
    service
        Whose policies are swapped.
    store
        Where policies are published.
    observer
        Is told of swaps and failures.
    interval_s
        Seconds between looks.
    turn
        Which part of the interval has passed when this process looks, from 0 to less than 1; ``None``: any. With one of
        its own for each process that watches the store they swap one after another.
    """

    def __init__(
        self,
        service: DecisionService,
        store: PolicyStore,
        observer: Observer,
        interval_s: float,
        turn: float | None = None,
    ) -> None:
        self._service = service
        self._store = store
        self._lists = RecommenderStore(store.root)
        self._observer = observer
        self._interval_s = interval_s
        self._turn = turn
        self._stop = threading.Event()
        self._seen: dict[str, str] = {}
        self._challengers: dict[str, Challenger | None] = {}
        self._thread = threading.Thread(target=self._run, name="policy-watcher", daemon=True)

    def start(self) -> None:
        """Look once, then go on in the background."""
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """Stop looking; the serving policies stay."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Swap in what was published since the last look."""
        for slot in self._service.slots.values():
            self._look_for_challenger(slot)
            self._look_at(slot.name, slot, lambda label, slot=slot: self._point_policy(slot, label))  # type: ignore[misc]
        for ranked in self._service.recommenders.values():
            self._look_at(ranked.name, ranked, lambda label, slot=ranked: self._list_policy(slot, label))  # type: ignore[misc]

    def _look_at(self, name: str, slot: Activity, load: Callable[[str], Policy | RecommenderPolicy]) -> None:
        try:
            label = self._store.current(name)
        except OSError as error:
            self._fail(name, slot, "?", f"pointer cannot be read ({error})")
            return
        if label is None or self._seen.get(name) == label:
            return
        self._seen[name] = label
        try:
            policy = load(label)
        except SnapshotError as error:
            self._fail(name, slot, label, str(error))
            return
        slot.policy_error = ""
        self._service.swap(policy)
        self._observer.swap(name, policy.version, policy.generation, policy.learned, policy.created_ms)

    def _point_policy(self, slot: Slot, label: str) -> Policy:
        policy = self._store.load(slot.name, label)
        problem = schema_problem(policy, slot)
        if problem:
            raise SnapshotError(problem)
        return policy

    def _list_policy(self, slot: RecommenderSlot, label: str) -> RecommenderPolicy:
        policy = self._lists.load(slot.name, label)
        if not same_fields(policy.recommender, slot.recommender):
            raise SnapshotError(
                f"policy {policy.version} was made for other fields or tasks; `work` publishes one that fits"
            )
        policy.prepare()
        return policy

    def _look_for_challenger(self, slot: Slot) -> None:
        """Begin or end the trial of a challenger; one that cannot be loaded is not tried."""
        try:
            asked = self._store.challenger(slot.name)
            if asked == self._challengers.get(slot.name):
                return
            self._challengers[slot.name] = asked
            policy = None if asked is None else self._store.load(slot.name, asked.version)
            problem = "" if policy is None else schema_problem(policy, slot)
        except (SnapshotError, OSError) as error:
            policy, problem = None, str(error)
        if problem:
            slot.rollout = None
            self._fail(slot.name, slot, "challenger", problem)
        elif asked is None or policy is None:
            slot.rollout = None
        else:
            slot.rollout = Rollout(policy, asked)
            logger.info("%s: %s of %s begins", slot.name, asked.mode, policy.version)

    def _fail(self, name: str, slot: Activity, label: str, problem: str) -> None:
        slot.policy_error = problem
        logger.error("%s: policy %s is not served: %s", name, label, problem)
        self._observer.load_error(name)

    def _pause_s(self) -> float:
        return self._interval_s if self._turn is None else pause_s(self._interval_s, self._turn, time.time())

    def _run(self) -> None:
        while not self._stop.wait(self._pause_s()):
            try:
                self.look()
            except Exception:
                # The thread must outlive any surprise: without it no policy would ever be swapped again.
                logger.exception("looking for new policies failed; trying again")
