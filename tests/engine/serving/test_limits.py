"""How much a request may carry: refused by field, value and limit, and everything within is answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api.leeway.v1 import service_pb2
from engine.client import Candidate, decide_request, recommend_request
from engine.config import LimitsConfig
from engine.errors import InvalidRequest
from engine.serving.limits import Limits

LIMITS = Limits(LimitsConfig(actions=5, features=4, list_length=6, text_length=40, id_length=32, batch=2))


def decide(context: Any = None, *actions: Candidate | str, decision_id: str = "d") -> service_pb2.DecideRequest:
    return decide_request("offers", context or {}, actions or ["a"], decision_id)


def recommend(user: Any = None, **more: Any) -> service_pb2.RecommendRequest:
    return recommend_request("shop", user or {}, **{"decision_id": "d", **more})


LONG, WIDE = "x" * 41, {f"f{i}": 1.0 for i in range(5)}
CASES: dict[str, tuple[Callable[[], Any], str, str]] = {
    "actions": (lambda: decide({}, *map(str, range(6))), "actions", "6 entries, more than 5 (serving.limits.actions)"),
    "action id": (lambda: decide({}, "a", "i" * 33), "actions[1].id", "33 characters, and is longer than 32"),
    "decision id": (lambda: decide(decision_id="i" * 33), "decision_id", "33 characters, and is longer than 32"),
    "features": (lambda: decide(WIDE), "context.features", "5 entries, more than 4 (serving.limits.features)"),
    "of an action": (lambda: decide({}, "a", Candidate("b", WIDE)), "actions[1].features", "5 entries, more than 4"),
    "text": (lambda: decide({"c": LONG}), "context.features.c", "41 characters, and is longer than 40"),
    "text of an action": (lambda: decide({}, Candidate("b", {"c": LONG})), "actions[0].features.c", "41 characters"),
    "name": (lambda: decide({"n" * 33: 1.0}, "a" * 32), "context.features", "33 characters, and is longer than 32"),
    "list": (lambda: decide({"v": [1.0] * 7}), "context.features.v", "7 entries, more than 6 (serving.limits.list"),
    "texts": (lambda: decide({"h": ["i"] * 7}, "a" * 32), "context.features.h", "7 entries, more than 6"),
    "a text of many": (lambda: decide({"h": ["i", LONG]}), "context.features.h[1]", "41 characters"),
    "candidates": (lambda: recommend(candidates=list("abcdef")), "candidates", "6 entries, more than 5"),
    "exclude": (lambda: recommend(exclude=list("abcdef")), "exclude", "6 entries, more than 5"),
    "excluded id": (lambda: recommend(exclude=["i" * 33]), "exclude[0]", "33 characters"),
    "candidate's text": (
        lambda: recommend(candidates=[Candidate("a", {"c": LONG})]),
        "candidates[0].features.c",
        "41 characters",
    ),
    "user's text": (lambda: recommend({"c": LONG}), "user.features.c", "41 characters"),
}


def check(request: Any) -> None:
    (LIMITS.decide if isinstance(request, service_pb2.DecideRequest) else LIMITS.recommend)(request)


@pytest.mark.parametrize(("build", "field", "words"), CASES.values(), ids=CASES.keys())
def test_too_much_is_refused_by_field_value_and_limit(build: Callable[[], Any], field: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check(build())
    assert refused.value.field == field
    assert words in refused.value.problem
    assert len(str(refused.value)) < 200  # it does not send back what was too long


@pytest.mark.parametrize("name", ["decision_id", "outcome_id", "decision_point", "task", "item"])
def test_an_outcome_with_a_long_id_is_refused(name: str) -> None:
    fields: dict[str, Any] = {"decision_id": "d", name: "i" * 33}
    with pytest.raises(InvalidRequest, match="33 characters, and is longer than 32") as refused:
        LIMITS.report(service_pb2.ReportRequest(**fields))
    assert refused.value.field == name
    fields[name] = "i" * 32
    LIMITS.report(service_pb2.ReportRequest(**fields))


def test_ids_of_decisions_never_pass_what_the_log_takes() -> None:
    generous = Limits(LimitsConfig(id_length=4_096))
    generous.decide(decide({}, "i" * 4_096))
    with pytest.raises(InvalidRequest, match="longer than 256"):
        generous.decide(decide(decision_id="i" * 257))


def test_a_batch_has_its_limit() -> None:
    LIMITS.batch([1, 2])
    with pytest.raises(InvalidRequest, match=r"requests: has 3 entries, more than 2 \(serving.limits.batch\)"):
        LIMITS.batch([1, 2, 3])


plain = st.one_of(
    st.floats(0, 1),
    st.text("aé", max_size=60),
    st.lists(st.floats(0, 1), min_size=1, max_size=9),
    st.lists(st.text("aé", max_size=60), min_size=1, max_size=9),
)
features = st.dictionaries(st.text("abé", min_size=1, max_size=40), plain, max_size=7)
candidates = st.lists(st.builds(Candidate, st.text("xyé", min_size=1, max_size=40), features), min_size=1, max_size=7)


def _fine(named: dict[str, Any]) -> bool:
    def within(value: Any) -> bool:
        if isinstance(value, str):
            return len(value) <= 40
        return not isinstance(value, list) or (
            len(value) <= 6 and all(len(entry) <= 40 for entry in value if isinstance(entry, str))
        )

    return len(named) <= 4 and all(len(name) <= 32 and within(value) for name, value in named.items())


@given(features, candidates)
def test_the_short_way_for_small_requests_lets_nothing_through(context: Any, actions: list[Candidate]) -> None:
    expected = (
        len(actions) <= 5
        and all(len(action.id) <= 32 for action in actions)
        and all(_fine(named) for named in [context, *(dict(action.features or {}) for action in actions)])
    )
    try:
        LIMITS.decide(decide(context, *actions))
    except InvalidRequest:
        assert not expected
    else:
        assert expected
