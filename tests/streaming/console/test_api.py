"""What the console answers, to whom, and what it changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from engine.records import Generation
from streaming.cli import main
from streaming.config import load_config
from streaming.holds import read_holds
from streaming.opening import open_existing
from tests.streaming.console.world import DECISIONS, EVIL, NOW_MS, OTHER, POINT, Page, entry, filled, serving, written
from training.job import ExitCode
from training.promotion import Move

TOKENS: dict[str, tuple[str, dict[str, Any]]] = {
    "reader": entry("reader", ["read"]),
    "limited": entry("limited", ["admin"], [OTHER]),
    "admin": entry("admin", ["admin"]),
    "shop": entry("shop", ["decide", "report"]),
}
LOOKS = ("session", "health", "alarms", "join", f"live?point={POINT}", f"drift?point={POINT}", "decision?id=d2",
         f"policies?point={POINT}", f"generations?point={POINT}")  # fmt: skip


def secret(name: str) -> str:
    return TOKENS[name][0]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A console that anybody on this machine may use."""
    path = written(tmp_path_factory.mktemp("open"))
    filled(path)
    with serving(path) as served:
        yield served


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A console that asks for tokens."""
    directory = tmp_path_factory.mktemp("guarded")
    (directory / "access.yaml").write_text(yaml.safe_dump({"tokens": [each for _, each in TOKENS.values()]}))
    path = written(directory, access_file="access.yaml")
    filled(path)
    with serving(path) as served:
        yield served


def test_health_is_what_the_doctor_says(page: Page) -> None:
    findings = {each["subject"]: each for each in page.ask("/api/health").body["findings"]}
    assert findings["serve"]["level"] == "problem"
    assert findings[f"{POINT} join"]["words"] == "200 decisions = 100 with reward + 100 with the default + 0 pending"


def test_a_decision_is_explained_with_vector_outcome_and_replay(page: Page) -> None:
    found = page.ask("/api/decision?id=d2").body
    assert (found["decision_point"], found["time_ms"]) == (POINT, NOW_MS + 2_000)
    assert [action["probability"] for action in found["actions"]] == pytest.approx([0.5, 0.5])
    assert found["replay"]["same"]
    assert found["feedback"]["reward"] == 1.0
    assert [outcome["outcome_id"] for outcome in found["outcomes"]] == ["o2"]
    words = " ".join(found["words"])
    assert f"'{found['chosen']}' was drawn with probability 0.5 from 2 actions." in words
    assert "It earned 1, from 1 outcomes." in words
    unrewarded = page.ask("/api/decision?id=d3").body
    assert "default reward 0" in unrewarded["words"][-1]
    missing = page.ask("/api/decision?id=nothing")
    assert (missing.status, "leeway replay" in missing.body["error"]) == (404, True)


def test_rewards_are_binned_over_all_feedback(page: Page) -> None:
    found = page.ask(f"/api/live?point={POINT}").body
    assert sum(each["count"] for each in found["bins"]) == found["feedback"] == DECISIONS
    assert all(each["low"] < each["mean"] == 0.5 < each["high"] for each in found["bins"])
    assert [each["change_ms"] for each in found["changes"]] == [NOW_MS + 50_000]
    assert page.ask(f"/api/live?point={OTHER}").body["bins"] == []


def test_generations_policies_and_the_join_are_those_of_the_commands(page: Page) -> None:
    table = page.ask(f"/api/generations?point={POINT}").body
    assert [row["reward"] for row in table["generations"]] == [0.5, 0.6, 0.58]
    assert table["generations"][0]["estimate"] is None
    policies = page.ask(f"/api/policies?point={POINT}").body
    assert [each["registry_version"] for each in policies["generations"]] == ["2", "1"]
    assert f"alarm {POINT}-alarm holds promotions" in policies["held"]
    join = {each["point"]: each for each in page.ask("/api/join").body["points"]}
    assert (join[POINT]["decisions"], join[POINT]["rewarded"], join[POINT]["balanced"]) == (DECISIONS, 100, True)
    assert page.ask("/api/policies?point=nothing").status == 404


def test_every_answer_forbids_scripts_that_are_not_the_consoles_own(page: Page) -> None:
    for path in ("/", "/app.js", "/api/health", "/nothing", "/api/nothing"):
        policy = page.ask(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
    html = page.ask("/").body
    assert "<script>" not in html
    assert "style=" not in html
    assert "://" not in html  # nothing comes from elsewhere


def test_what_others_have_sent_is_json_and_no_page(page: Page) -> None:
    answer = page.ask("/api/decision?id=d0")
    assert answer.body["context"]["country"] == EVIL
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_another_site_changes_nothing_and_reads_nothing(page: Page) -> None:
    form = {"alarm_id": f"{POINT}-alarm"}
    key = page.ask("/api/session").body["change_key"]
    assert page.ask("/api/alarms/acknowledge", None, form).status == 403
    for headers in (
        {"origin": "https://evil.example"},
        {"sec_fetch_site": "cross-site"},
        {"origin": "null"},
    ):
        assert page.ask("/api/alarms/acknowledge", None, form, x_leeway_change=key, **headers).status == 403
    plain = page.ask("/api/alarms/acknowledge", None, form, x_leeway_change=key, content_type="text/plain")
    assert plain.status == 415
    # A name of another that resolves to this machine.
    assert page.ask("/api/session", host="evil.example").status == 421
    assert page.ask("/", host="evil.example:80").status == 421
    assert page.ask("/api/session", host=f"localhost:{page.port}").status == 200
    assert page.ask("/api/alarms").body["alarms"][0]["acknowledged_ms"] is None


@pytest.mark.parametrize("look", LOOKS)
def test_who_may_look(guarded: Page, look: str) -> None:
    nobody = guarded.ask(f"/api/{look}")
    assert (nobody.status, nobody.headers["www-authenticate"]) == (401, "Bearer")
    assert guarded.ask(f"/api/{look}", "leeway_wrong").status == 401
    assert guarded.ask(f"/api/{look}", secret("shop")).status == 403
    assert guarded.ask(f"/api/{look}", secret("reader")).status == 200


def test_who_is_limited_sees_nothing_of_other_points(guarded: Page) -> None:
    mine = secret("limited")
    assert [each["name"] for each in guarded.ask("/api/session", mine).body["points"]] == [OTHER]
    assert [each["decision_point"] for each in guarded.ask("/api/alarms", mine).body["alarms"]] == [OTHER]
    assert [each["point"] for each in guarded.ask("/api/join", mine).body["points"]] == [OTHER]
    assert POINT not in str(guarded.ask("/api/health", mine).body)
    assert guarded.ask(f"/api/live?point={POINT}", mine).status == 403
    assert guarded.ask("/api/live?point=nothing", mine).status == 403
    hidden, missing = guarded.ask("/api/decision?id=d2", mine), guarded.ask("/api/decision?id=x2", mine)
    assert (hidden.status, hidden.body["error"].replace("d2", "x2")) == (404, missing.body["error"])
    of_others = guarded.change("/api/alarms/acknowledge", {"alarm_id": f"{POINT}-alarm"}, mine)
    assert of_others.status == 404
    move = guarded.change("/api/policies/move", {"point": POINT, "kind": "rollback"}, mine)
    assert move.status == 403


def test_only_an_admin_acknowledges_and_it_is_noted(guarded: Page) -> None:
    form = {"alarm_id": f"{POINT}-alarm", "note": "a new shop"}
    assert guarded.change("/api/alarms/acknowledge", form, secret("reader")).status == 403
    answer = guarded.change("/api/alarms/acknowledge", form, secret("admin"))
    assert answer.body == {"words": f"{POINT}-alarm is acknowledged"}
    again = guarded.change("/api/alarms/acknowledge", form, secret("admin"))
    assert again.body == {"words": f"{POINT}-alarm was acknowledged before"}
    shown = {each["alarm_id"]: each for each in guarded.ask("/api/alarms", secret("reader")).body["alarms"]}
    assert shown[f"{POINT}-alarm"]["note"] == "a new shop"
    with closing(open_existing(load_config(guarded.directory / "leeway.yaml", {}))) as log:
        assert read_holds(log).words(POINT) is None
    lines = [each for each in guarded.audited() if each["call"] == "ConsoleAcknowledge" and each["point"] == POINT]
    assert [(each["who"], each["verdict"]) for each in lines] == [("token admin", "OK")] * 2
    refused = [each for each in guarded.audited() if each["verdict"] == "PERMISSION_DENIED"]
    assert "ConsoleAcknowledge" in {each["call"] for each in refused}


class Registry:
    """Stands for promotion over the registry: its challenger is version 3, then 4."""

    def __init__(self) -> None:
        self.challenger = "3"
        self.done: list[str] = []

    def promote(self, _floor: object, _now_ms: int, *, version: str | None, dry_run: bool, **_: object) -> Move:
        target = version or self.challenger
        if not dry_run:
            self.done.append(target)
        return Move(ExitCode.PROMOTED, f"version {target}", target, Generation(generation=3))

    def rollback(self, _floor: object, _now_ms: int, *, dry_run: bool, **_: object) -> Move:
        return self.promote(_floor, _now_ms, version=None, dry_run=dry_run)


def test_a_champion_is_moved_only_as_it_was_confirmed(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()
    monkeypatch.setattr("training.promotion.promote", registry.promote)
    monkeypatch.setattr("training.promotion.rollback", registry.rollback)
    monkeypatch.setattr("streaming.retraining.promotion_floor", lambda *_: None)
    form = {"point": POINT, "kind": "promote"}
    asked = page.change("/api/policies/move", form).body
    assert (asked["done"], asked["registry_version"], registry.done) == (False, "3", [])
    registry.challenger = "4"
    done = page.change("/api/policies/move", {**form, "confirmed": "3"}).body
    assert (done["done"], registry.done) == (True, ["3"])  # not the new challenger
    back = page.change("/api/policies/move", {"point": POINT, "kind": "rollback", "confirmed": "3"}).body
    assert (back["done"], registry.done) == (False, ["3"])
    assert "by now it would be version 4" in back["words"]
    verdicts = [each["verdict"] for each in page.audited() if each["call"] == "ConsoleMove"]
    assert verdicts == ["NOTHING_DONE", "DONE", "NOTHING_DONE"]


def test_forms_are_strict(page: Page) -> None:
    for form in ({}, {"point": POINT, "kind": "delete"}, {"point": POINT, "kind": "promote", "more": 1}):
        answer = page.change("/api/policies/move", form)
        assert answer.status == 400, answer.body
    assert page.change("/api/alarms/acknowledge", {"alarm_id": "a", "note": "n" * 100_000}).status == 413


def test_there_is_no_console_for_others_without_tokens(tmp_path: Path) -> None:
    shown = CliRunner().invoke(main, ["console", "--config", str(written(tmp_path)), "--host", "0.0.0.0"])
    assert shown.exit_code == 2
    assert "set serving.access_file" in shown.output


def test_a_log_that_was_never_begun_is_said_and_not_made(tmp_path: Path) -> None:
    with serving(written(tmp_path)) as page:
        answer = page.ask("/api/alarms")
        assert (answer.status, "leeway up" in answer.body["error"]) == (503, True)
        assert page.ask("/api/health").status == 200
    assert not (tmp_path / "data" / "log").exists()
