"""Logs as others write them, and lines that are none: put aside with number and reason, and nothing else is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.records import Feedback
from training.formats import READERS, Unusable, as_yaml, infer, read_cb_adf, read_dsjson, read_open_bandit

GOLDEN = Path(__file__).parents[2] / "golden" / "formats"


def event(**changes: Any) -> str:
    """Return a good dsjson line with some keys changed; ``None``: left out."""
    line = {
        "_label_cost": -1.0,
        "_label_probability": 0.8,
        "_label_Action": 2,
        "_labelIndex": 1,
        "EventId": "e",
        "Timestamp": "2026-01-01T00:00:00Z",
        "a": [2, 1, 3],
        "p": [0.8, 0.1, 0.1],
        "c": {"User": {"age": 1}, "_multi": [{"_tag": "x"}, {"_tag": "y"}, {"_tag": "z"}]},
        **changes,
    }
    return json.dumps({key: value for key, value in line.items() if value is not None})


def one(line: str) -> Feedback:
    [found] = read_dsjson([line], "offers")
    assert isinstance(found, Feedback), found
    return found


def test_the_golden_dsjson_is_read_as_it_is_meant() -> None:
    found = list(read_dsjson((GOLDEN / "personalizer.dsjson").read_text().splitlines(), "drinks"))
    aside = [each for each in found if isinstance(each, Unusable)]
    good = [each for each in found if isinstance(each, Feedback)]
    assert [(each.line, each.reason.split(":")[0]) for each in aside] == [
        (3, "is marked _skipLearn"),
        (4, "is no JSON"),
        (5, "has _outcomes"),
    ]
    first, second = good
    decision = first.decision
    assert decision.decision_id == "13118d9b4c114f8485d9dec417e3aefe"
    assert decision.time_ms == 1_537_292_446_943
    assert decision.policy_version == "model-1"
    assert [action.id for action in decision.actions] == ["Cappucino", "Cold brew", "Iced mocha", "Latte"]
    # Ranked 3, 1, 2, 4: the vector goes back to the order of the actions.
    assert list(decision.probabilities) == [0.0625, 0.03125, 0.875, 0.03125]
    assert decision.chosen == 2
    assert (first.reward, first.outcomes, first.defaulted) == (1.0, 1, False)
    assert decision.context.named["fromurl_timeofday"].text == "Afternoon"
    assert decision.actions[0].features["i_constant"].number == 1.0
    assert decision.actions[0].features["j_origin"].text == "kenya"
    assert (second.reward, second.outcomes, second.defaulted) == (0.0, 0, True)


def test_the_golden_text_of_vw_is_read_as_it_is_meant() -> None:
    found = list(read_cb_adf((GOLDEN / "cb_adf.txt").read_text().splitlines(), "offers"))
    assert [(each.line, each.reason) for each in found if isinstance(each, Unusable)] == [
        (10, "no action has a label action:cost:probability: no label, no feedback")
    ]
    first, second = (each for each in found if isinstance(each, Feedback))
    assert first.reward == -0.1
    assert first.decision.chosen == 1
    assert first.decision.probabilities[1] == 0.75
    assert list(first.decision.probabilities) == [0.125, 0.75, 0.125]
    assert first.decision.context.named["user_age"].number == 30.0
    assert first.decision.context.named["user_country"].text == "NL"
    assert first.decision.actions[2].features["a_1"].number == 0.5
    assert second.decision.chosen == 0
    assert [action.id for action in second.decision.actions] == ["1", "2"]


def test_the_golden_table_of_zozo_is_read_as_it_is_meant() -> None:
    lines = (GOLDEN / "open_bandit.csv").read_text().splitlines()
    found = list(read_open_bandit(lines, "zozo", items=[str(item) for item in range(5)]))
    assert [(each.line, each.reason) for each in found if isinstance(each, Unusable)] == [
        (4, "item '9' is none of the 5 items"),
        (5, "does not have the 11 fields of the header"),
    ]
    first, second = (each for each in found if isinstance(each, Feedback))
    assert first.reward == 0.0
    assert second.reward == 1.0
    assert second.decision.actions[second.decision.chosen].id == "3"
    assert second.decision.probabilities[3] == 0.2
    assert second.decision.context.named["position"].text == "1"
    assert second.decision.context.named["user_feature_0"].text == "81ce123cbb5bd8ce818f60fb3586bba5"
    assert second.decision.actions[0].features["affinity"].number == 0.5
    assert second.decision.time_ms == 1_574_553_602_123


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[1]", "is no JSON object"),
        (event(_label_cost=None), "no label"),
        (event(_label_cost="x"), "_label_cost is 'x'"),
        ('{"_label_cost": NaN}', "NaN"),
        (event(p=[0.8, 0.1]), "p must have 3 entries"),
        (event(p=[0.8, 0.1, 0.3]), "no probability vector"),
        (event(p=[1.2, -0.1, -0.1]), "no probability vector"),
        (event(a=[2, 2, 1]), "each at most once"),
        (event(a=[4, 1, 2]), "actions 1 to 3"),
        (event(a=[1, 2, 3]), "_label_Action is 2"),
        (event(_labelIndex=0), "_labelIndex is 0"),
        (event(_label_probability=0.5), "_label_probability is 0.5, but p begins with 0.8"),
        (event(p=[0.0, 0.5, 0.5], _label_probability=None), "must lie in (0, 1]"),
        (event(p=None, _label_probability=None), "without a propensity"),
        (event(EventId=None), "EventId"),
        (event(Timestamp="yesterday"), "'yesterday' is no time"),
        (event(c={"_multi": []}), "c._multi"),
        (event(c={"_multi": [{"_tag": "x"}, {"_tag": "x"}, {}]}), "'x' stands twice"),
        (event(c={"a": {"b": 1}, "a_b": 2, "_multi": [{}, {}, {}]}), "'a_b'"),
        (event(c={"a": ["x"], "_multi": [{}, {}, {}]}), "a is neither"),
        (event(c={"a": 10**400, "_multi": [{}, {}, {}]}), "float64"),
        (event(_skipLearn=True), "_skipLearn"),
        (event(leeway={"reward": "much"}), "leeway cannot be read"),
        (event(leeway={"excluded": [1]}), "chosen action is excluded"),
    ],
)
def test_a_line_that_cannot_be_true_is_put_aside_with_its_number(line: str, reason: str) -> None:
    first, bad, last = read_dsjson([event(), line, event()], "offers")
    assert isinstance(first, Feedback)
    assert isinstance(last, Feedback)
    assert isinstance(bad, Unusable)
    assert bad.line == 2
    assert reason in bad.reason


def test_an_action_that_was_not_ranked_was_excluded() -> None:
    found = one(event(a=[2, 3], p=[0.8, 0.2]))
    assert [action.excluded for action in found.decision.actions] == [True, False, False]
    assert list(found.decision.probabilities) == [0.0, 0.8, 0.2]


def test_without_a_vector_the_other_actions_share_the_rest() -> None:
    assert list(one(event(a=None, p=None)).decision.probabilities) == pytest.approx([0.1, 0.8, 0.1])


@settings(max_examples=150)
@given(st.sampled_from(sorted(READERS)), st.text(max_size=60) | st.text("{}[]\"':|,.0123 shared", max_size=60))
def test_no_text_makes_a_reader_crash(kind: str, text: str) -> None:
    try:
        for found in READERS[kind](text.split("\n"), "offers"):
            assert isinstance(found, Feedback | Unusable)
    except ConfigError:
        assert kind in ("obd", "csv")  # a header that is none


@settings(max_examples=100)
@given(st.data())
def test_no_damage_to_a_line_makes_a_reader_crash(data: st.DataObject) -> None:
    line = event(leeway={"decision": {"scores": [1.0]}, "excluded": []})
    at, length = data.draw(st.integers(0, len(line))), data.draw(st.integers(0, 20))
    broken = line[:at] + data.draw(st.text(max_size=3)) + line[at + length :]
    for found in read_dsjson([broken], "offers"):
        assert isinstance(found, Feedback | Unusable)


def test_a_file_that_is_no_open_bandit_table_is_an_error() -> None:
    with pytest.raises(ConfigError, match="propensity_score"):
        list(read_open_bandit(["timestamp,item_id,position,click"], "zozo"))


def test_what_is_inferred_fits_the_log() -> None:
    found = list(read_dsjson((GOLDEN / "personalizer.dsjson").read_text().splitlines(), "drinks"))
    point = infer(each for each in found if isinstance(each, Feedback))
    assert point.context["fromurl_timeofday"].type == "text"
    assert point.actions.features["i_constant"].type == "number"
    assert point.reward.range == (0.0, 1.0)
    assert "drinks:" in as_yaml("drinks", point)
    with pytest.raises(ConfigError, match="no feedback"):
        infer([])
