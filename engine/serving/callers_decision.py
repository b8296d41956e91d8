"""Decisions in which the caller's own choice acts: logged as the caller states it."""

from __future__ import annotations

from contextlib import suppress
from time import perf_counter_ns

from engine.api.leeway.v1.service_pb2 import DecideRequest
from engine.choice import stated_choice
from engine.config import DecisionPoint
from engine.effort import Effort
from engine.policy import OracleFailure, Policy
from engine.records import MODE_APPRENTICE, MODE_LOGGING_ONLY, Decision, Mode
from engine.serving.stages import StageTimes


def mode_of(point: DecisionPoint) -> Mode.ValueType:
    """Return the mode of a decision point as records have it."""
    return Mode.Value(f"MODE_{point.mode.upper()}")


def callers_decision(
    policy: Policy,
    request: DecideRequest,
    decision_id: str,
    now_ms: int,
    *,
    mode: Mode.ValueType = MODE_LOGGING_ONLY,
    effort: Effort = Effort.FULL,
    times: StageTimes | None = None,
) -> Decision:
    """Return the record of what the caller does by itself: a pure function of its arguments, ``times`` apart.

    Parameters
    ----------
    policy
        What serves; its schema has to take the request, and its version names the time in the record.
    request
        Context, actions and choice; ``InvalidRequest`` is raised where they do not fit the schema or each other.
    decision_id
        Of the decision.
    now_ms
        Time of the decision.
    mode
        One in which the caller's choice acts. As an apprentice the policy looks on: its vector is noted, unless its
        oracle fails, which must not cost the decision.
    effort
        The oracle, which only looks on, is asked where all is done for a decision.
    times
        Gets how long its stages took.
    """
    began = perf_counter_ns()
    encoded = policy.encoder.encode(request.context, request.actions, request.packed_actions)
    chosen, vector = stated_choice(request, encoded.available.tolist())
    was_encoded = was_explored = perf_counter_ns()
    looked_on: list[float] = []
    if mode == MODE_APPRENTICE and effort is Effort.FULL:
        with suppress(OracleFailure):
            looked_on = policy.pmf(policy.predict(encoded), encoded.available).tolist()
        was_explored = perf_counter_ns()
    made = Decision(
        decision_id=decision_id,
        decision_point=policy.name,
        time_ms=now_ms,
        policy_version=policy.version,
        context=request.context,
        actions=request.actions,
        packed_actions=request.packed_actions,
        probabilities=vector,
        chosen=chosen,
        mode=mode,
        shadow_policy_version=policy.version if looked_on else "",
        shadow_probabilities=looked_on,
        deferred=request.defer_activation,
    )
    if times is not None:
        times.add(0, (began, was_encoded, was_explored, was_explored, perf_counter_ns()))
    return made
