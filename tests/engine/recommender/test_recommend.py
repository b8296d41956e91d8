"""Lists: drawn as often as their propensities say, answered whatever comes, replayed bit for bit."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from engine.client import Candidate, recommend_request
from engine.config import ITEM_ID, IndexConfig
from engine.effort import Effort
from engine.errors import InvalidRequest, SnapshotError
from engine.recommender.index import ExactIndex, HNSWIndex
from engine.recommender.likelihood import likelihood
from engine.recommender.policy import RecommenderPolicy
from engine.recommender.recommend import recommend, response
from engine.recommender.replay import slate_mismatch
from engine.recommender.store import RecommenderStore
from engine.records import FALLBACK_REASON_ORACLE_FAILED, Decision
from tests.engine.recommender.shop import NAME, make_policy, shop

USER: dict[str, Any] = {"country": "NL", "age": 30.0, "recent": ["i3", "never seen"]}
KINDS: dict[str, dict[str, Any]] = {
    "cascade": {},
    "plackett_luce": {"slate": {"kind": "plackett_luce", "exploration": {"kind": "softmax", "lambda_scale": 4.0}}},
    "greedy plackett_luce": {
        "slate": {"kind": "plackett_luce", "exploration": {"kind": "epsilon_greedy", "epsilon": 0}}
    },
    "cascade of squarecb": {"slate": {"exploration": {"kind": "squarecb"}}},
    "untrained": {"trained": False},
}
each_kind = pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)


def some_requests() -> list[Any]:
    mixed: list[Candidate | str] = [
        "i1",
        Candidate("new", {"price": 3.0}),
        Candidate("i2", {"look": [1.0, 2.0]}),
        "i4",
        "i5",
    ]
    return [
        recommend_request(NAME, USER),
        recommend_request(NAME, {}, exclude=["i1", "i2"], k=2),
        recommend_request(NAME, {"country": "FR"}, mixed, k=3, exclude=["i4"]),
        recommend_request(NAME, USER, ["only"]),
    ]


@each_kind
@pytest.mark.parametrize("effort", Effort)
def test_every_list_is_replayed_bit_for_bit_from_the_snapshot(
    changes: dict[str, Any], effort: Effort, tmp_path: Path
) -> None:
    policy = make_policy(**changes)
    store = RecommenderStore(tmp_path)
    store.publish(policy)
    loaded = store.load(NAME, policy.version)
    assert loaded.digest() == policy.digest()
    for number, request in itertools.product(range(10), some_requests()):
        made = recommend(policy, request, f"d{number}", 5, effort=effort)
        logged = Decision.FromString(made.SerializeToString())
        assert slate_mismatch(logged, loaded) == ""
        assert recommend(loaded, request, f"d{number}", 5, effort=effort) == made
        items = [item.item for item in response(made).items]
        assert len(set(items)) == len(items)
        assert not set(items) & set(request.exclude)
        assert made.fallback == effort.fallback
        assert math.fsum(made.probabilities) == pytest.approx(1.0)
        assert made.probabilities[made.chosen] == made.slate.propensities[0]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda d: d.slate.propensities.__setitem__(1, 0.5), "propensities"),
        (lambda d: d.scores.__setitem__(0, 9.0), "scores"),
        (lambda d: d.slate.items.reverse(), "items"),
        (lambda d: setattr(d, "salt", "other"), "salt"),
        (lambda d: setattr(d.slate, "catalogue", "other"), "catalogue"),
        (lambda d: setattr(d, "decision_id", "other"), "were logged"),
    ],
)
def test_replay_notices_what_was_changed(damage: Any, words: str) -> None:
    policy = make_policy(slate={"kind": "plackett_luce", "exploration": {"kind": "softmax", "lambda_scale": 1.0}})
    made = recommend(policy, recommend_request(NAME, USER), "d1", 5)
    damage(made)
    assert words in slate_mismatch(made, policy)


@each_kind
def test_lists_are_drawn_as_often_as_their_propensities_say(changes: dict[str, Any]) -> None:
    policy = make_policy(**changes)
    request = recommend_request(NAME, USER, ["i1", "i2", "i3", "i4"], k=2)
    n, counts, probability = 4_000, Counter[tuple[int, ...]](), {}
    for number in range(n):
        slate = recommend(policy, request, f"d{number}", 5).slate
        counts[tuple(slate.items)] += 1
        probability[tuple(slate.items)] = math.prod(slate.propensities)
    rare = [order for order, p in probability.items() if n * p < 5]
    chi = sum((counts[o] - n * p) ** 2 / (n * p) for o, p in probability.items() if o not in rare)
    assert chi < 31.26, "exceeded by 1 in 1000 with 11 degrees of freedom"


@each_kind
def test_the_policy_that_made_a_list_finds_its_own_propensities_likely(changes: dict[str, Any]) -> None:
    policy = make_policy(**changes)
    for number, request in itertools.product(range(5), some_requests()):
        made = recommend(policy, request, f"d{number}", 5)
        found = likelihood(policy, made)
        assert_allclose(found.propensities, made.slate.propensities, rtol=1e-12)
        assert_allclose(found.first, made.probabilities, rtol=1e-12)
        assert found.covered == 1.0 or request.exclude


def test_a_broken_model_costs_nobody_an_answer() -> None:
    class Broken(RecommenderPolicy):
        def expected(self, user: Any, items: Any) -> Any:
            raise RuntimeError("cuda is on fire")

    good = make_policy()
    broken = Broken(NAME, good.recommender, good.space, good.model, good.catalogue, 1, 0, 100, 0)
    for request in some_requests():
        made = recommend(broken, request, "d1", 5)
        assert made.fallback == FALLBACK_REASON_ORACLE_FAILED
        assert "cuda is on fire" in made.fallback_detail
        free = sum(not action.excluded for action in made.actions)
        assert list(made.slate.propensities) == pytest.approx([1 / (free - j) for j in range(len(made.slate.items))])
        assert slate_mismatch(made, broken) == ""


def test_without_a_model_a_large_catalogue_is_sampled_and_with_one_its_best_are_retrieved() -> None:
    untrained = make_policy(trained=False, candidates=5, slots=2)
    shown = Counter(
        action.id
        for number in range(600)
        for action in recommend(untrained, recommend_request(NAME, USER), f"d{number}", 5).actions
    )
    assert set(shown) == {f"i{number}" for number in range(12)}
    assert all(180 < count < 320 for count in shown.values()), "each is in 5 of 12 samples"
    trained = make_policy(candidates=5, slots=2)
    assert trained.vectors is not None
    user = trained.user_vector({"country": ["NL"], "age": np.array([30.0]), "recent": [("i3", "never seen")]})
    best = np.argsort(-(trained.model.logits(user, trained.vectors) @ [1.0, 5.0]))[:5]  # type: ignore[union-attr]
    made = recommend(trained, recommend_request(NAME, USER), "d1", 5)
    assert [action.id for action in made.actions] == [f"i{row}" for row in best]
    assert [known.features["look"] for known in made.slate.known]


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "too many": ({"k": 5}, "k", "ask for 1 to 4 items"),
    "negative": ({"k": -1}, "k", "is -1"),
    "candidates": ({"candidates": [f"x{n}" for n in range(9)]}, "candidates", "more than the 8 allowed"),
    "twice": ({"candidates": ["a", "a"]}, "candidates[1].id", "stands twice"),
    "no id": ({"candidates": [""]}, "candidates[0].id", "1 to 256"),
    "all excluded": ({"candidates": ["a"], "exclude": ["a"]}, "candidates", "all excluded"),
    "all items excluded": ({"exclude": [f"i{n}" for n in range(12)]}, "exclude", "every item"),
    "unknown field": ({"user": {"agee": 3.0}}, "user.agee", "no such field (known: country, age, recent)"),
    "wrong type": ({"user": {"age": "3"}}, "user.age", "must be a number, got a text"),
    "not finite": ({"user": {"age": math.inf}}, "user.age", "send finite numbers"),
    "wrong size": (
        {"candidates": [Candidate("a", {"look": [1.0]})]},
        "candidates[0].features.look",
        "2 numbers, got 1",
    ),
    "another id": ({"candidates": [Candidate("a", {ITEM_ID: "b"})]}, f"candidates[0].features.{ITEM_ID}", "'a'"),
}


@pytest.mark.parametrize(("fields", "where", "words"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("trained", [True, False])
def test_what_does_not_fit_is_refused_with_field_and_remedy(
    fields: dict[str, Any], where: str, words: str, trained: bool
) -> None:
    request = recommend_request(NAME, **{"user": USER, **fields})
    with pytest.raises(InvalidRequest) as caught:
        recommend(make_policy(trained=trained), request, "d1", 5)
    assert caught.value.field == where
    assert words in caught.value.problem


def test_no_candidates_and_no_catalogue_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no catalogue to choose from"):
        recommend(make_policy(catalogue=False), recommend_request(NAME, USER), "d1", 5)


def test_a_snapshot_that_was_changed_is_refused(tmp_path: Path) -> None:
    store = RecommenderStore(tmp_path)
    policy = make_policy()
    path = store.save(policy)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(SnapshotError, match="not a whole policy file"):
        store.load(NAME, policy.version)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"item": {"country": {"type": "category"}}}, "both have a field 'country'"),
        ({"candidates": 3}, "fewer than slots"),
        ({"item": {ITEM_ID: {"type": "number"}}}, "make it a category"),
        ({"item": {"x": {"type": "number"}}}, "recent.of names 'item_id'"),
        ({"tasks": {}}, "at least 1"),
        ({"tasks": {"click": 0.0}}, "greater than 0"),
        ({"slate": {"exploration": {"kind": "bag"}}}, "gives expected rewards alone"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        shop(**changes)


def test_the_graph_finds_nearly_what_the_exact_search_finds_and_can_be_made_again() -> None:
    rng = np.random.default_rng(0)
    keys = (rng.normal(size=(3_000, 16)) * rng.uniform(0.2, 3.0, (3_000, 1))).astype(np.float32)
    graph = HNSWIndex.build(keys, IndexConfig())
    assert graph.tobytes() == HNSWIndex.build(keys, IndexConfig()).tobytes()
    index, exact = HNSWIndex(graph, 200), ExactIndex(keys)
    found = []
    for query in rng.normal(size=(20, 16)).astype(np.float32):
        wanted = exact.search(query, 50)
        assert wanted.tolist() == np.lexsort((np.arange(3_000), -(keys @ query)))[:50].tolist()
        found.append(np.isin(index.search(query, 50), wanted).mean())
    assert np.mean(found) > 0.95
