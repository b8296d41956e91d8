"""Answers that are safe to ask for again: each decision is recorded once, and known by its id for a while."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from engine.api.leeway.v1.service_pb2 import DecideResponse, RecommendResponse
from engine.errors import InvalidRequest, LogError
from engine.records import FALLBACK_REASON_NONE, MAX_ID_LENGTH, Decision, new_id
from engine.serving.seams import Observer, Recorder
from engine.serving.unrecorded import UnrecordedDecisions

Answer = DecideResponse | RecommendResponse
#: From a decision, and why it is not in the log if it is not, to what the caller sees.
Respond = Callable[[Decision, str | None], Answer]


@dataclass(kw_only=True)
class Activity:
    """What a decision point, or a recommender, has done in this process."""

    decisions: int = 0
    fallbacks: int = 0
    policy_error: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, decision: Decision) -> None:
        """Count a recorded decision."""
        with self.lock:
            self.decisions += 1
            self.fallbacks += decision.fallback != FALLBACK_REASON_NONE


class Answers:
    """Records decisions, and answers with each when it is safe in the log.

    Parameters
    ----------
    recorder
        Where decisions go.
    observer
        Is told of every decision.
    remembered
        How many recent decisions are known by id, so that a retry gets the same answer.
    answer_unrecorded
        What becomes of a decision that the log does not take: true: it is answered, and flagged; false: refused.
    """

    def __init__(self, recorder: Recorder, observer: Observer, remembered: int, *, answer_unrecorded: bool) -> None:
        self._recorder = recorder
        self._observer = observer
        self._remembered = remembered
        self._answer_unrecorded = answer_unrecorded
        self._unrecorded = UnrecordedDecisions()
        self._recent: OrderedDict[str, tuple[str, Future[Answer]]] = OrderedDict()
        self._lock = threading.Lock()

    def remember(self, decision: Decision, respond: Respond) -> None:
        """Know a decision that is already in the log, as after a restart; one that was answered since stays."""
        known: Future[Answer] = Future()
        known.set_result(respond(decision, None))
        with self._lock:
            self._recent.setdefault(decision.decision_id, (decision.decision_point, known))
            self._trim()

    def answer(
        self, name: str, activity: Activity, decision_id: str, make: Callable[[str], Decision], respond: Respond
    ) -> Future[Answer]:
        """Decide and record; the future ends with the answer once the decision is safe in the log.

        A request with the id of a recent decision gets that decision's answer, and nothing is recorded; unless the
        log could not take it then: it is tried again. Raises ``InvalidRequest`` at once. Where the decision cannot be
        recorded, the answer is flagged, or the future raises ``LogError`` (see ``answer_unrecorded``): then it was not
        made, and a retry decides anew.

        Parameters
        ----------
        name, activity
            Of the decision point or recommender.
        decision_id
            As the caller gave it; empty: a new one.
        make
            Makes the decision of an id.
        respond
            Makes the answer; of one name always of one type.
        """
        if len(decision_id) > MAX_ID_LENGTH:
            raise InvalidRequest("decision_id", f"is longer than {MAX_ID_LENGTH} characters")
        answer: Future[Answer] = Future()
        decision: Decision | None = None
        if decision_id:
            with self._lock:
                known = self._recent.get(decision_id)
                if known is not None and known[0] != name:
                    raise InvalidRequest(
                        "decision_id", f"{decision_id!r} belongs to a decision of {known[0]!r}; use an id once"
                    )
                if known is not None:
                    decision = self._unrecorded.take(decision_id)
                    if decision is None:
                        return known[1]
                self._recent[decision_id] = (name, answer)
                self._trim()
        try:
            again = decision is not None
            made = decision or make(decision_id or new_id())
            recording = self._recorder.record([made])
        except BaseException as error:
            self._forget(decision_id)
            answer.set_exception(error)  # a retry that came in between waits for this future
            raise
        recording.add_done_callback(
            lambda outcome: self._recorded(name, activity, made, respond, answer, outcome.exception(), again)
        )
        return answer

    def _recorded(
        self,
        name: str,
        activity: Activity,
        decision: Decision,
        respond: Respond,
        answer: Future[Answer],
        error: BaseException | None,
        again: bool,
    ) -> None:
        """End an answer when it is known whether the log has the decision; ``again``: it was answered before."""
        if error is None:
            activity.count(decision)
            answer.set_result(respond(decision, None))
        elif self._answer_unrecorded and isinstance(error, LogError):
            with self._lock:
                self._unrecorded.keep(decision)
                # Known also where the id was made here: the caller has it now, and may ask again.
                self._recent[decision.decision_id] = (name, answer)
            answer.set_result(respond(decision, str(error)))
        else:
            self._forget(decision.decision_id)
            answer.set_exception(error)
            return
        with self._lock:
            self._trim()
        if not again:
            self._observer.decision(decision)
            if error is not None:
                self._observer.unrecorded(name)

    def _forget(self, decision_id: str) -> None:
        if decision_id:
            with self._lock:
                self._recent.pop(decision_id, None)

    def _trim(self) -> None:
        while len(self._recent) > self._remembered:
            decision_id, (_, answer) = next(iter(self._recent.items()))
            if not answer.done():
                return  # forgotten now, a retry would record it a second time
            del self._recent[decision_id]
            self._unrecorded.take(decision_id)
