"""Answers that are safe to ask for again: each decision is recorded once, and known by its id for a while."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any

from engine.api.leeway.v1.service_pb2 import DecideResponse, RecommendResponse
from engine.errors import InvalidRequest, LogError
from engine.records import FALLBACK_REASON_NONE, MAX_ID_LENGTH, Decision, new_id
from engine.sealed import SealedDecision
from engine.serving.seams import Observer, Recorder
from engine.serving.stages import RECORD, StageTimes
from engine.serving.unrecorded import UnrecordedDecisions

Answer = DecideResponse | RecommendResponse
Made = Decision | SealedDecision
#: From a decision, and why it is not in the log if it is not, to what the caller sees.
Respond = Callable[[Any, str | None], Answer]


@dataclass(kw_only=True)
class Activity:
    """What a decision point, or a recommender, has done in this process."""

    decisions: int = 0
    fallbacks: int = 0
    policy_error: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, decision: Made) -> None:
        """Count a recorded decision."""
        with self.lock:
            self.decisions += 1
            self.fallbacks += decision.fallback != FALLBACK_REASON_NONE

    def count_each(self, made: Sequence[SealedDecision]) -> None:
        """Count recorded decisions that were made with the same effort."""
        with self.lock:
            self.decisions += len(made)
            self.fallbacks += len(made) * (made[0].fallback != FALLBACK_REASON_NONE)


@dataclass(frozen=True, slots=True)
class Told:
    """An answer that was given, in the least room: a hundred thousand of them are remembered."""

    kind: type[Answer]
    data: bytes

    @classmethod
    def of(cls, answer: Answer) -> Told:
        """Keep an answer."""
        return cls(type(answer), answer.SerializeToString())

    def again(self) -> Future[Answer]:
        """Return the answer, as a future that has ended."""
        known: Future[Answer] = Future()
        known.set_result(self.kind.FromString(self.data))
        return known


@dataclass(slots=True)
class Claim:
    """A decision id that a call has taken: whoever asks with it meanwhile gets the same answer.

    Attributes
    ----------
    decision_id
        As the caller gave it, or a new one.
    given
        Whether the caller gave it.
    answer
        Ends with the answer.
    kept
        The decision, where it was answered before and the log could not take it.
    """

    decision_id: str
    given: bool
    answer: Future[Answer]
    kept: Decision | None = None


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
    times
        Gets how long recording took.
    """

    def __init__(
        self, recorder: Recorder, observer: Observer, remembered: int, *, answer_unrecorded: bool, times: StageTimes
    ) -> None:
        self._times = times
        self._recorder = recorder
        self._observer = observer
        self._remembered = remembered
        self._answer_unrecorded = answer_unrecorded
        self._unrecorded = UnrecordedDecisions()
        self._recent: OrderedDict[str, tuple[str, Future[Answer] | Told]] = OrderedDict()
        self._lock = threading.Lock()

    def remember(self, decision: Decision, respond: Respond) -> None:
        """Know a decision that is already in the log, as after a restart; one that was answered since stays."""
        told = Told.of(respond(decision, None))
        with self._lock:
            self._recent.setdefault(decision.decision_id, (decision.decision_point, told))
            self._trim()

    def answer(
        self, name: str, activity: Activity, decision_id: str, make: Callable[[str], Made], respond: Respond
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
        claim = self.claim(name, decision_id)
        if not isinstance(claim, Claim):
            return claim
        try:
            decision = claim.kept or make(claim.decision_id)
        except BaseException as error:
            self.abandon(claim, error)
            raise
        self.record(name, activity, claim, decision, respond)
        return claim.answer

    def claim(self, name: str, decision_id: str) -> Claim | Future[Answer]:
        """Take a decision id, or return the answer of who has taken it; see :meth:`answer`.

        Who has it calls :meth:`record` or :meth:`abandon`: others may wait for that.
        """
        if not decision_id:
            return Claim(new_id(), False, Future())
        if len(decision_id) > MAX_ID_LENGTH:
            raise InvalidRequest("decision_id", f"is longer than {MAX_ID_LENGTH} characters")
        claim = Claim(decision_id, True, Future())
        with self._lock:
            known = self._recent.get(decision_id)
            if known is not None:
                if known[0] != name:
                    raise InvalidRequest(
                        "decision_id", f"{decision_id!r} belongs to a decision of {known[0]!r}; use an id once"
                    )
                claim.kept = self._unrecorded.take(decision_id)
                if claim.kept is None:
                    return known[1].again() if isinstance(known[1], Told) else known[1]
            self._recent[decision_id] = (name, claim.answer)
            self._trim()
        return claim

    def abandon(self, claim: Claim, error: BaseException) -> None:
        """Give an id back: its decision was not made."""
        if claim.given:
            self._forget(claim.decision_id)
        claim.answer.set_exception(error)  # a retry that came in between waits for this future

    def record(self, name: str, activity: Activity, claim: Claim, decision: Made, respond: Respond) -> None:
        """Record the decision of an id that was claimed; its answer ends when it is safe; see :meth:`answer`."""
        began = perf_counter_ns()
        try:
            recording = self._recorder.record([decision])
        except BaseException as error:
            self.abandon(claim, error)
            raise
        self._follow(name, activity, claim, decision, respond, recording, began)

    def record_sealed(
        self, name: str, activity: Activity, made: Sequence[SealedDecision], respond: Respond
    ) -> list[bytes | Future[Answer]]:
        """Record decisions whose ids were made here, which no retry can know yet; see :meth:`answer`.

        They were made with the same effort. Returns the answers themselves where the log has taken all of them at once.
        """
        began = perf_counter_ns()
        recording = self._recorder.record(made)
        if recording.done():
            if recording.exception() is None:
                queued = perf_counter_ns()
                activity.count_each(made)
                self._observer.sealed(name, made)
                self._times.add(RECORD, (began, queued, queued), len(made))
                return [decision.answer for decision in made]
            if len(made) > 1:  # one of them may be what the log cannot take, or all together too many
                return [answer for one in made for answer in self.record_sealed(name, activity, [one], respond)]
        answers: list[bytes | Future[Answer]] = []
        for decision in made:
            claim = Claim(decision.decision_id, False, Future())
            self._follow(name, activity, claim, decision, respond, recording, began)
            answers.append(claim.answer)
        return answers

    def _follow(
        self,
        name: str,
        activity: Activity,
        claim: Claim,
        decision: Made,
        respond: Respond,
        recording: Future[None],
        began: int,
    ) -> None:
        """Have an answer end when its recording has."""
        queued = perf_counter_ns()
        if recording.done():
            self._recorded(name, activity, claim, decision, respond, recording.exception())
            self._times.add(RECORD, (began, queued, queued))
        else:

            def ended(recorded: Future[None]) -> None:
                self._times.add(RECORD, (began, queued, perf_counter_ns()))
                self._recorded(name, activity, claim, decision, respond, recorded.exception())

            recording.add_done_callback(ended)

    def _recorded(
        self,
        name: str,
        activity: Activity,
        claim: Claim,
        decision: Made,
        respond: Respond,
        error: BaseException | None,
    ) -> None:
        """End an answer when it is known whether the log has the decision."""
        answer = claim.answer
        if error is None:
            activity.count(decision)
            response = respond(decision, None)
            answer.set_result(response)
            if claim.given:
                told = Told.of(response)
                with self._lock:
                    if decision.decision_id in self._recent:
                        self._recent[decision.decision_id] = (name, told)
        elif self._answer_unrecorded and isinstance(error, LogError):
            with self._lock:
                self._unrecorded.keep(decision.decision() if isinstance(decision, SealedDecision) else decision)
                # Known also where the id was made here: the caller has it now, and may ask again.
                self._recent[decision.decision_id] = (name, answer)
            answer.set_result(respond(decision, str(error)))
        else:
            self.abandon(claim, error)
            return
        if len(self._recent) > self._remembered:
            with self._lock:
                self._trim()
        if claim.kept is None:  # else it was told of before
            self._observer.decision(decision)
            if error is not None:
                self._observer.unrecorded(name)

    def _forget(self, decision_id: str) -> None:
        with self._lock:
            self._recent.pop(decision_id, None)

    def _trim(self) -> None:
        while len(self._recent) > self._remembered:
            decision_id, (_, answer) = next(iter(self._recent.items()))
            if isinstance(answer, Future) and not answer.done():
                return  # forgotten now, a retry would record it a second time
            del self._recent[decision_id]
            self._unrecorded.take(decision_id)
