"""From feedback to a plan that is served, and replayed."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from engine.config import DecisionPoint
from engine.policy import Policy
from engine.records import FALLBACK_REASON_NONE, Feedback
from engine.replay import mismatch
from engine.sequential import UCRL2Learner
from engine.serving.deciding import decide
from engine.store import PolicyStore
from tests.engine.samples import POINT
from tests.engine.sequential.exact_detector import ExactDetector
from tests.engine.sequential.samples import (
    ACTIONS,
    BEST,
    NAME,
    Shop,
    feedback_of,
    policy_of,
    shop,
    shop_point,
    shop_request,
)


def learner_of(point: DecisionPoint) -> UCRL2Learner:
    return UCRL2Learner(point, ExactDetector)


def serve(place: Shop, point: DecisionPoint, learner: UCRL2Learner, rounds: int) -> list[tuple[Policy, Feedback]]:
    """Let a shop be served, with a new policy after each hundred decisions."""
    found = []
    for update in range(rounds):
        policy = policy_of(point, learner, update)
        made = list(place.ask(policy, 100))
        learner.learn([(int(each.decision.decision_id[1:]) % 3, each) for each in made])
        found += [(policy, each) for each in made]
    return found


def share_of_best(made: Sequence[Feedback], best: Mapping[str, str]) -> float:
    """Return the share of decisions that chose the best action of their state."""
    decisions = [each.decision for each in made]
    return float(np.mean([d.actions[d.chosen].id == best[d.context.named["stage"].text] for d in decisions]))


def test_it_learns_the_funnel_from_feedback_and_every_decision_is_replayed() -> None:
    point = shop_point(width_scale=0.1, restarts=False)
    learner = learner_of(point)
    made = serve(shop(), point, learner, rounds=60)
    # A plan now and then tries again what is less well known: look at what was decided, not at one plan.
    assert share_of_best([each for _, each in made[3_000:]], BEST) > 0.75
    assert learner.learned > 5_500  # all but those for which it is not known what follows
    assert learner.late == 0
    for policy, each in made[::7]:
        assert mismatch(each.decision, policy) == ""
        assert each.decision.fallback == FALLBACK_REASON_NONE


def test_it_restarts_when_visitors_change_their_mind_and_learns_again() -> None:
    point = shop_point(width_scale=0.1)
    learner = learner_of(point)
    place = shop(change=2_000)
    serve(place, point, learner, rounds=20)
    assert learner.restarts == 0
    made = serve(place, point, learner, rounds=40)
    assert learner.restarts >= 1
    after = {"landing": "plain", "product": "plain", "cart": "plain"}
    assert share_of_best([each for _, each in made[2_000:]], after) > 0.75


def test_the_planned_action_has_propensity_one_and_exploration_is_a_matter_of_epsilon() -> None:
    point = shop_point(width_scale=0.1, restarts=False)
    learner = learner_of(point)
    serve(shop(), point, learner, rounds=40)
    decision = decide(policy_of(point, learner), shop_request("product", "s"), "d", 0)
    assert list(decision.probabilities) == [0.0, 0.0, 1.0, 0.0]
    settings = point.model_dump()
    settings["policy"]["exploration"]["epsilon"] = 0.2
    decision = decide(policy_of(DecisionPoint.model_validate(settings), learner), shop_request("product", "s"), "d", 0)
    assert list(decision.probabilities) == pytest.approx([0.05, 0.05, 0.85, 0.05])


def test_what_the_plan_does_not_foresee_is_answered_with_the_best_that_is_offered() -> None:
    point = shop_point(width_scale=0.1, restarts=False)
    learner = learner_of(point)
    serve(shop(), point, learner, rounds=40)
    policy = policy_of(point, learner)

    def chosen(stage: str, *offered: str) -> list[str]:
        decision = decide(policy, shop_request(stage, "s", offered), "d", 0)
        assert decision.fallback == FALLBACK_REASON_NONE
        assert mismatch(decision, policy) == ""
        return [a.id for a, p in zip(decision.actions, decision.probabilities, strict=True) if p > 0.0]

    assert chosen("product", "plain", "express") == ["plain"]  # the planned one is not offered
    assert chosen("product", "new", "plain") == ["plain"]
    assert chosen("product", "new", "newer") == ["new", "newer"]  # none is known: each alike
    assert chosen("product", "express", "reviews") == ["express", "reviews"]  # of other states
    assert len(chosen("nowhere", *ACTIONS)) == 1  # a state that is not declared
    assert chosen("nowhere", "new", "plain") == ["plain"]
    without = decide(policy, shop_request("product", "s"), "d", 0)
    del without.context.named["stage"]
    assert policy.predict(policy.encoder.encode(without.context, without.actions)).mean.tolist() == (
        policy.predict(policy.encoder.encode(shop_request("nowhere", "s").context, without.actions)).mean.tolist()
    )


def test_before_anything_is_learned_the_actions_of_the_state_are_alike() -> None:
    point = shop_point()
    decision = decide(policy_of(point, learner_of(point)), shop_request("cart", "s"), "d", 0)
    assert list(decision.probabilities) == [0.5, 0.0, 0.0, 0.5]


def test_rewards_are_shares_of_their_range() -> None:
    settings = shop_point(patience="0s", idle="10s", restarts=False).model_dump()
    plain = DecisionPoint.model_validate(settings)
    settings["reward"]["range"] = (-10.0, 30.0)
    settings["reward"]["default"] = -10.0
    wide = DecisionPoint.model_validate(settings)
    one, other = learner_of(plain), learner_of(wide)
    for number in range(200):
        reward = float(number % 3 == 0)
        one.learn([(0, feedback_of("cart", f"s{number // 2}", "plain", reward, number))])
        other.learn([(0, feedback_of("cart", f"s{number // 2}", "plain", -10.0 + 40.0 * reward, number))])
    np.testing.assert_allclose(one.oracle().q * 40.0, other.oracle().q, rtol=1e-12)


def test_feedback_without_a_unit_or_of_another_schema_teaches_nothing() -> None:
    learner = learner_of(shop_point(patience="0s"))
    without = feedback_of("cart", "", "plain", 1.0, 1)
    missing = feedback_of("cart", "s", "plain", 1.0, 2)
    del missing.decision.context.named["session"]
    number = feedback_of("cart", "s", "plain", 1.0, 3)
    number.decision.context.named["session"].number = 5.0
    assert learner.learn([(0, without), (0, missing), (0, number)]) == 0
    strange = [feedback_of("cart", "s", "discount", 1.0, 4), feedback_of("nowhere", "s", "plain", 1.0, 5)]
    last = [feedback_of("cart", "s", "plain", 1.0, 6), feedback_of("cart", "s", "plain", 1.0, 7)]
    assert learner.learn([(0, each) for each in [*strange, *last]]) == 1


def batches(made: Sequence[Feedback], sizes: Sequence[int]) -> list[list[tuple[int, Feedback]]]:
    found: list[list[tuple[int, Feedback]]] = []
    start = 0
    for size in itertools.cycle(sizes):
        if start >= len(made):
            return found
        found.append([(0, each) for each in made[start : start + size]])
        start += size
    return found


def test_any_split_into_batches_learns_the_same() -> None:
    point = shop_point(width_scale=0.1)
    first = learner_of(point)
    made = [each for _, each in serve(shop(change=700), point, first, rounds=15)]
    states = []
    for sizes in ([1], [1_500], [7, 100, 3]):
        learner = learner_of(point)
        for batch in batches(made, sizes):
            learner.learn(batch)
        states.append({key: array.tobytes() for key, array in learner.arrays().items()})
    assert states[0] == states[1] == states[2]


@pytest.mark.parametrize("restarts", [True, False])
def test_a_restored_learner_goes_on_bit_for_bit(restarts: bool) -> None:
    point = shop_point(width_scale=0.1, restarts=restarts)
    learner, again = learner_of(point), learner_of(point)
    made = [each for _, each in serve(shop(), point, learner_of(point), rounds=10)]
    learner.learn([(0, each) for each in made[:600]])
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **learner.arrays())
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as archive:
        again.restore(dict(archive))
    for each in (learner, again):
        each.learn([(0, entry) for entry in made[600:]])
    assert {k: v.tobytes() for k, v in again.arrays().items()} == {k: v.tobytes() for k, v in learner.arrays().items()}
    assert policy_of(point, again).version == policy_of(point, learner).version


def test_a_policy_comes_back_from_the_store_and_decides_the_same(tmp_path: Path) -> None:
    point = shop_point(width_scale=0.1, restarts=False)
    learner = learner_of(point)
    serve(shop(), point, learner, rounds=5)
    policy = policy_of(point, learner, update=6)
    store = PolicyStore(tmp_path)
    store.save(policy)
    decision = decide(policy, shop_request("cart", "s"), "d", 0)
    assert mismatch(decision, store.load(NAME, policy.version)) == ""


def test_another_oracle_has_no_plan() -> None:
    with pytest.raises(ValueError, match="kind linear, not ucrl2"):
        UCRL2Learner(POINT, ExactDetector)
