from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.effort import Effort
from engine.oracles import LinearOracle
from engine.policy import Policy
from engine.records import FALLBACK_REASON_DEADLINE, FALLBACK_REASON_NONE, FALLBACK_REASON_ORACLE_FAILED, Decision
from engine.replay import mismatch
from engine.serving.deciding import decide
from engine.store import PolicyStore
from tests.engine.samples import TIME_MS, make_policy, request

POLICY = make_policy()
# The action that is drawn for this id is not the best one, so that a change of the draw shows.
DECISION_ID = "decision-4"


def logged(policy: Policy = POLICY, decision_id: str = DECISION_ID, *, effort: Effort = Effort.FULL) -> Decision:
    """Return a decision as it comes back from the log."""
    sent = request(decision_id)
    sent.actions[1].excluded = True
    decision = decide(policy, sent, decision_id, TIME_MS, effort=effort)
    return Decision.FromString(decision.SerializeToString())


@given(
    number=st.integers(0, 10**6),
    effort=st.sampled_from(Effort),
    seed=st.integers(0, 5),
    share=st.sampled_from([0.0, 0.3]),
)
def test_a_logged_decision_is_recomputed_bit_for_bit(number: int, effort: Effort, seed: int, share: float) -> None:
    policy = make_policy(seed, uniform_share=share)
    assert mismatch(logged(policy, f"id-{number}", effort=effort), policy) == ""


def test_a_policy_from_the_store_recomputes_what_another_process_decided(tmp_path: Path) -> None:
    store = PolicyStore(tmp_path)
    store.save(POLICY)
    decision = logged()
    assert mismatch(decision, store.load(decision.decision_point, decision.policy_version)) == ""


def test_a_fallback_after_a_failing_oracle_is_recomputed_though_the_oracle_fails_again() -> None:
    broken = make_policy(oracle=LinearOracle(np.zeros((1, 1))))
    decision = logged(broken)
    assert decision.fallback == FALLBACK_REASON_ORACLE_FAILED
    assert mismatch(decision, broken) == ""


def up(value: float) -> float:
    return math.nextafter(value, math.inf)


def change_score(decision: Decision) -> None:
    decision.scores[1] = up(decision.scores[1])


def change_probability(decision: Decision) -> None:
    decision.probabilities[0] = up(decision.probabilities[0])


def swap_probabilities(decision: Decision) -> None:
    decision.probabilities[0], decision.probabilities[2] = decision.probabilities[2], decision.probabilities[0]


def change_context(decision: Decision) -> None:
    decision.context.named["amount"].number += 1.0


def drop_context(decision: Decision) -> None:
    del decision.context.named["taste"]


def change_action_feature(decision: Decision) -> None:
    decision.actions[3].features["price"].number += 0.5


def change_action_id(decision: Decision) -> None:
    decision.actions[0].id, decision.actions[2].id = decision.actions[2].id, decision.actions[0].id


def include(decision: Decision) -> None:
    decision.actions[1].excluded = False


def exclude(decision: Decision) -> None:
    decision.actions[3].excluded = True


def drop_action(decision: Decision) -> None:
    del decision.actions[3]


def unknown_feature(decision: Decision) -> None:
    decision.context.named["age"].number = 1.0


def set_field(name: str, value: object) -> Callable[[Decision], None]:
    def change(decision: Decision) -> None:
        setattr(decision, name, value)

    return change


def drop_scores(decision: Decision) -> None:
    del decision.scores[:]


def drop_probabilities(decision: Decision) -> None:
    del decision.probabilities[:]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (change_score, "scores"),
        (drop_scores, "scores"),
        (change_probability, "probabilities"),
        (swap_probabilities, "probabilities"),
        (drop_probabilities, "probabilities"),
        (change_context, "scores"),
        (drop_context, "scores"),
        (change_action_feature, "scores"),
        (change_action_id, "scores"),
        (drop_action, "scores"),
        (include, "probabilities"),
        (exclude, "probabilities"),
        (unknown_feature, "does not fit the policy's schema: context.features.age"),
        (set_field("packed_actions", b"\0"), "does not fit the policy's schema: actions[0].features"),
        (set_field("decision_point", "other"), "other"),
        (set_field("policy_version", "g1.0-00000000"), "g1.0-00000000 was logged"),
        (set_field("salt", "pepper"), "salt 'pepper' was logged"),
        (set_field("decision_id", "decision-2"), "drawn again"),
        (set_field("chosen", 0), "action 0 was logged"),
        (set_field("chosen", 1), "action 1 was logged"),
        (set_field("chosen", 9), "action 9 was logged"),
        (set_field("fallback", FALLBACK_REASON_DEADLINE), "a fallback has none"),
        (set_field("fallback", FALLBACK_REASON_ORACLE_FAILED), "a fallback has none"),
    ],
)
def test_any_change_of_what_was_decided_is_found(change: Callable[[Decision], None], found: str) -> None:
    decision = logged()
    assert mismatch(decision, POLICY) == ""
    change(decision)
    assert found in mismatch(decision, POLICY)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (change_probability, "probabilities"),
        (include, "probabilities"),
        (set_field("chosen", 1), "action 1 was logged"),
        (set_field("fallback", FALLBACK_REASON_NONE), "scores [] were logged"),
        (set_field("salt", ""), "salt"),
    ],
)
@pytest.mark.parametrize("effort", [Effort.DEADLINE, Effort.OVERLOAD])
def test_any_change_of_a_fallback_is_found(effort: Effort, change: Callable[[Decision], None], found: str) -> None:
    decision = logged(effort=effort)
    assert mismatch(decision, POLICY) == ""
    change(decision)
    assert found in mismatch(decision, POLICY)


def test_another_policy_did_not_make_the_decision() -> None:
    other = make_policy(seed=2)
    difference = mismatch(logged(), other)
    assert POLICY.version in difference
    assert other.version in difference


def test_a_decision_that_the_oracle_cannot_make_any_more_says_so() -> None:
    broken = make_policy(oracle=LinearOracle(np.zeros((1, 1))))
    decision = logged()
    decision.policy_version = broken.version
    assert mismatch(decision, broken).startswith("oracle fails now, and did not then")
