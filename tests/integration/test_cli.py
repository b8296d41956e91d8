"""The command line as an operator meets it: what it prints, and the exit status that a script decides by."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.client import decide_request
from engine.policy import Policy, initial_policy
from engine.serving.deciding import decide
from engine.store import PolicyStore
from streaming.config import Config, EmbeddedLogConfig, KafkaLogConfig, load_config, log_environment
from streaming.insight import tail
from streaming.opening import open_log
from streaming.serve import now_ms
from streaming.topics import DEAD_LETTERS
from streaming.wire import message_of
from tests.integration.service import ACTIONS, CONTEXT, OFFERS, Service, eventually, leeway, running, settings


def configured(directory: Path, text: str | dict[str, Any]) -> Path:
    path = directory / "leeway.yaml"
    path.write_text(text if isinstance(text, str) else yaml.safe_dump(text, sort_keys=False))
    return path


# init and check


def test_init_writes_a_starter_that_is_good_and_says_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "leeway.yaml"
    assert leeway("init", path).returncode == 0
    checked = leeway("check", "--config", path)
    assert checked.returncode == 0
    assert "is good: decision points offers" in checked.stdout

    raw = yaml.safe_load(path.read_text())
    yours = raw["decision_points"]["offers"]
    minimal = {
        "version": 1,
        "decision_points": {
            "offers": {"context": yours["context"], "actions": {"features": yours["actions"]["features"]}}
        },
    }
    (tmp_path / "minimal").mkdir()
    defaults = load_config(configured(tmp_path / "minimal", minimal), {})
    written = load_config(path, {})
    assert written.model_copy(update={"data_dir": defaults.data_dir}) == defaults


def test_init_overwrites_nothing_unless_told_to(tmp_path: Path) -> None:
    path = configured(tmp_path, "mine")
    refused = leeway("init", path)
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    assert path.read_text() == "mine"
    assert leeway("init", "--force", path).returncode == 0
    assert "decision_points" in path.read_text()


GOOD = "version: 1\ndecision_points:\n  offers: {}\n"
BAD_FILES = {
    "broken off": (GOOD + "serving: {port: 1\n", ["not readable as YAML", "line 4", "expected ',' or '}'"]),
    "tabs": (GOOD + "serving:\n\tport: 1\n", ["not readable as YAML", "line 5", "cannot start any token"]),
    "no text": (b"version: 1\n\xff\xfe\n", ["cannot be read", "0xff"]),
    "empty": ("", ["must be a mapping of settings", "leeway init"]),
    "no decision point": ("version: 1\ndecision_points: {}\n", ["decision_points (line 2)", "at least 1"]),
    "left out": ("version: 1\n", ["decision_points", "is required; add it"]),
    "unknown setting": (GOOD + "serving:\n  prot: 1\n", ["serving.prot (line 5)", "did you mean port?"]),
    "wrong type": (GOOD + "serving: {port: many}\n", ["serving.port (line 4)", "integer", "'many'"]),
    "out of bounds": (GOOD + "serving: {workers: 1000}\n", ["serving.workers (line 4)", "256", "1000"]),
    "no duration": (
        "version: 1\ndecision_points:\n  offers:\n    reward: {window: 10 minutes}\n",
        ["decision_points.offers.reward.window (line 4)", "'10 minutes' is no duration", "10m"],
    ),
    "no unit": (
        "version: 1\ndecision_points:\n  offers:\n    reward: {window: 600}\n",
        ["decision_points.offers.reward.window (line 4)", "600 is no duration", "10m"],
    ),
    "no such kind": (
        "version: 1\ndecision_points:\n  offers:\n    context: {age: {type: numbr}}\n",
        ["decision_points.offers.context.age (line 4)", "'numbr'", "'number', 'text', 'vector'"],
    ),
    "no name": (
        "version: 1\ndecision_points:\n  My-Offers: {}\n",
        ["decision_points.My-Offers (line 3)", "lower-case"],
    ),
    "nothing": ("version: 1\ndecision_points:\n  offers:\n", ["decision_points.offers (line 3)", "None", "default"]),
    "key twice": (
        GOOD + "  banners: {}\n  offers: {}\n",
        ["decision_points.offers (line 5)", "stands in line 3 already"],
    ),
    "no such log": (GOOD + "log: {kind: redis}\n", ["log (line 4)", "'redis'", "'embedded', 'kafka'"]),
    "a log without brokers": (GOOD + "log: {kind: kafka}\n", ["log.bootstrap_servers (line 4)", "is required"]),
    "no broker's address": (
        GOOD + "log: {kind: kafka, bootstrap_servers: [here]}\n",
        ["log.bootstrap_servers.0 (line 4)", "'here'", "host:port"],
    ),
    "no such port": (
        GOOD + "log: {kind: kafka, bootstrap_servers: ['a:99999']}\n",
        ["log.bootstrap_servers.0 (line 4)", "'a:99999'", "ports are 1 to 65535"],
    ),
    "a prefix of dots": (
        GOOD + "log: {kind: kafka, bootstrap_servers: ['a:1'], topic_prefix: '..'}\n",
        ["log.topic_prefix (line 4)", "'..'", "begin with a letter or a digit"],
    ),
    "a setting of the other log": (
        GOOD + "log: {kind: embedded, client: librdkafka}\n",
        ["log.client (line 4)", "none here; remove it"],
    ),
    "half an identity": (
        GOOD + "log: {kind: kafka, bootstrap_servers: ['a:1'], security: {protocol: sasl_ssl}}\n",
        ["log.security.protocol (line 4)", "needs username and password", "by the environment"],
    ),
    "durability of a broker that is not": (
        GOOD + "serving: {durability: broker}\n",
        ["serving (line 4)", "disk or memory, or log.kind kafka"],
    ),
    "range upside down": (
        "version: 1\ndecision_points:\n  offers: {reward: {range: [1, 0]}}\n",
        ["decision_points.offers.reward (line 3)", "[1.0, 0.0]", "ascending"],
    ),
}


@pytest.mark.parametrize(("text", "words"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_check_names_path_line_value_and_remedy(tmp_path: Path, text: str | bytes, words: list[str]) -> None:
    path = tmp_path / "leeway.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    refused = leeway("check", "--config", path)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert str(path) in refused.stderr
    assert [word for word in words if word not in refused.stderr] == []
    assert "Traceback" not in refused.stderr


def test_check_tells_every_problem_at_once(tmp_path: Path) -> None:
    path = configured(tmp_path, GOOD + "serving: {port: many, prot: 2}\nlog: {retention: x}\n")
    refused = leeway("check", "--config", path)
    assert refused.returncode == 2
    assert "3 problem(s)" in refused.stderr


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    refused = leeway("check", "--config", tmp_path / "none.yaml")
    assert refused.returncode == 2
    assert f"leeway init {tmp_path / 'none.yaml'}" in refused.stderr


def test_the_environment_overrides_and_is_named_where_it_is_wrong(tmp_path: Path) -> None:
    path = configured(tmp_path, GOOD)
    elsewhere = leeway("check", env={"LEEWAY_CONFIG": str(path), "LEEWAY_DATA_DIR": "elsewhere"})
    assert elsewhere.returncode == 0
    assert str(tmp_path / "elsewhere") in elsewhere.stdout
    for variable, value, words in (
        ("LEEWAY_SERVING__PORT", "many", ["serving.port (set by LEEWAY_SERVING__PORT)", "'many'"]),
        ("LEEWAY_SERVING__PRT", "1", ["LEEWAY_SERVING__PRT", "did you mean port?"]),
        ("LEEWAY_SERVNG__PORT", "1", ["LEEWAY_SERVNG__PORT", "known are", "serving"]),
    ):
        refused = leeway("check", "--config", path, env={variable: value})
        assert refused.returncode == 2
        assert [word for word in words if word not in refused.stderr] == []


BROKERS = "log: {kind: kafka, bootstrap_servers: ['a:1'], security: {username: me, %s}}\n"


@pytest.mark.parametrize(
    "said", ["password: [hunter2]", "key_password: {x: hunter2}", "password: hunter2, protocl: ssl"]
)
def test_no_message_shows_a_password(tmp_path: Path, said: str) -> None:
    refused = leeway("check", "--config", configured(tmp_path, GOOD + BROKERS % said))
    assert refused.returncode == 2
    assert "log.security" in refused.stderr
    assert "hunter2" not in refused.stdout + refused.stderr


def test_a_password_from_the_environment_is_taken_as_it_stands(tmp_path: Path) -> None:
    path = configured(tmp_path, GOOD + BROKERS % "protocol: sasl_ssl")
    for password in ("007", "a: [", "null", "1e5"):
        log = load_config(path, {"LEEWAY_LOG__SECURITY__PASSWORD": password}).log
        assert isinstance(log, KafkaLogConfig)
        assert log.security.password is not None
        assert log.security.password.get_secret_value() == password


def test_the_log_of_any_configuration_can_be_changed_from_outside(tmp_path: Path) -> None:
    embedded = configured(tmp_path, GOOD + "log: {fsync: false, partitions: 7}\n")
    log = load_config(embedded, log_environment("kafka://a:9092,b:9093")).log
    assert isinstance(log, KafkaLogConfig)
    assert (log.bootstrap_servers, log.partitions) == (["a:9092", "b:9093"], 7)
    kafka = configured(tmp_path, GOOD + BROKERS % "protocol: ssl")
    assert load_config(kafka, {"LEEWAY_LOG__KIND": "embedded"}).log == EmbeddedLogConfig()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://a:1", "kafka://"),
        ("a:1", "kafka://"),
        ("kafka://a", "'a' is not host:port"),
        ("kafka://a:1,", "'' is not host:port"),
        ("kafka://a:0", "'a:0' has a port that does not exist; ports are 1 to 65535"),
        ("kafka://a:1/offers", "log.topic_prefix"),
        ("kafka://me:hunter2@a:1", "log.security"),
    ],
)
def test_what_is_no_address_of_a_log_is_refused(tmp_path: Path, url: str, words: str) -> None:
    refused = leeway("check", "--config", configured(tmp_path, GOOD), "--log", url)
    assert refused.returncode == 2
    assert words in refused.stderr
    assert "hunter2" not in refused.stderr


# doctor and status, of a service that runs


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with offers that fare well, and banners whose outcomes name other decisions."""
    points = {"offers": OFFERS, "banners": {"reward": OFFERS["reward"], "retraining": {"enabled": False}}}
    with running(tmp_path_factory.mktemp("service"), settings(points)) as service, service.client() as client:
        for answer in client.decide_batch([decide_request("offers", CONTEXT, ACTIONS) for _ in range(50)]):
            client.report(answer.decision_id, 1.0, point="offers")  # type: ignore[union-attr]
        for answer in client.decide_batch([decide_request("banners", {}, ["a", "b"]) for _ in range(20)]):
            client.report(f"row-{answer.decision_id}", 1.0, point="banners")  # type: ignore[union-attr]
        for point in points:
            service.settled(point)
        with_letters(service)
        eventually(lambda: service.status().learned == 50, "the feedback to be learned")
        yield service


def with_letters(service: Service) -> None:
    log = open_log(service.config)
    try:
        eventually(lambda: len(tail(log, DEAD_LETTERS, 100)) == 20, "the dead letters")
    finally:
        log.close()


def findings(path: Path) -> tuple[int, dict[str, tuple[str, str]]]:
    """Return the exit status of the doctor, and level and words by subject."""
    examined = leeway("doctor", "--json", "--config", path)
    assert examined.stderr == ""
    return examined.returncode, {f["subject"]: (f["level"], f["words"]) for f in json.loads(examined.stdout)}


def test_doctor_says_what_is_well_and_why_nothing_was_joined(service: Service) -> None:
    status, found = findings(service.path)
    assert found["serve"] == ("ok", f"runs (pid {service.pid('serve')})")
    assert found["work"] == ("ok", f"runs (pid {service.pid('work')})")
    assert found["offers join"] == ("ok", "50 decisions = 50 with reward + 0 with the default + 0 pending")
    assert found["offers policy"][0] == "ok"
    assert "has learned from 50 feedbacks" in found["offers policy"][1]
    assert {found[f"{role} lag"][0] for role in ("join", "learner", "monitor", "archive")} == {"ok"}

    level, words = found["banners join"]
    assert level == "problem"
    assert "nothing was ever joined: 20 decisions = 0 with reward + 20 with the default" in words
    assert "unknown_decision" in words
    assert status == 1

    printed = leeway("doctor", "--config", service.path)
    assert printed.returncode == 1
    assert "problem  banners join: nothing was ever joined" in printed.stdout


def test_status_tells_what_the_server_knows(service: Service) -> None:
    asked = leeway("status", "--config", service.path)
    assert asked.returncode == 0
    assert "50 decisions = 50 rewarded + 0 defaulted + 0 pending; 0 alarms" in asked.stdout
    points = json.loads(leeway("status", "--json", "--config", service.path).stdout)["decision_points"]
    assert {point["decision_point"]: point["accounting"]["dead_letters"] for point in points} == {
        "offers": "0",
        "banners": "20",
    }


def test_replay_of_a_running_service_finds_nothing_wrong(service: Service) -> None:
    replayed = leeway("replay", "--json", "--config", service.path)
    assert replayed.returncode == 0
    assert json.loads(replayed.stdout) == {"decisions": 70, "mismatches": 0, "examples": []}


# doctor, status, replay and retrain, of one that does not


def test_doctor_of_what_was_never_started_says_so_and_makes_nothing(tmp_path: Path) -> None:
    path = configured(tmp_path, settings())
    status, found = findings(path)
    assert status == 1
    assert found["serve"] == ("problem", "does not run, so nothing is decided; start it with: leeway up")
    assert found["work"] == ("problem", "does not run, so nothing is joined or learned; start it with: leeway up")
    assert found["log"][0] == "warning"
    assert [entry.name for entry in tmp_path.iterdir()] == ["leeway.yaml"]


def test_status_of_what_does_not_run_says_how_to_start_it(tmp_path: Path) -> None:
    asked = leeway("status", "--config", configured(tmp_path, settings()))
    assert asked.returncode == 1
    assert "leeway up" in asked.stderr
    nobody = leeway("status", "--target", "127.0.0.1:1", "--config", tmp_path / "leeway.yaml")
    assert nobody.returncode == 1
    assert "127.0.0.1:1 does not answer" in nobody.stderr
    assert "Traceback" not in nobody.stderr


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(configured(tmp_path, settings()), {})


def record(config: Config, count: int) -> Policy:
    """Write decisions as the server does."""
    policy = initial_policy("offers", config.points()["offers"], created_ms=now_ms())
    PolicyStore(config.policy_dir).publish(policy)
    decisions = [decide(policy, decide_request("offers", CONTEXT, ACTIONS), f"d{i}", now_ms()) for i in range(count)]
    log = open_log(config)
    try:
        log.append([message_of(decision) for decision in decisions])
    finally:
        log.close()
    return policy


def test_replay_finds_the_one_decision_that_was_tampered_with(tmp_path: Path, config: Config) -> None:
    path = tmp_path / "leeway.yaml"
    record(config, 5)
    assert leeway("replay", "--config", path).returncode == 0
    # All of it is as it should be, but for the action that was drawn.
    log = open_log(config)
    try:
        policy = initial_policy("offers", config.points()["offers"], created_ms=0)
        forged = decide(policy, decide_request("offers", CONTEXT, ACTIONS), "forged", now_ms())
        forged.chosen = (forged.chosen + 1) % len(ACTIONS)
        log.append([message_of(forged)])
    finally:
        log.close()
    replayed = leeway("replay", "--config", path)
    assert replayed.returncode == 1
    assert "6 decisions recomputed, 1 differ" in replayed.stdout
    assert f"forged: action {forged.chosen} was logged" in replayed.stdout
    assert leeway("replay", "--decision-id", "d0", "--config", path).returncode == 0
    assert leeway("replay", "--decision-id", "forged", "--config", path).returncode == 1
    unknown = leeway("replay", "--decision-id", "nowhere", "--config", path)
    assert unknown.returncode == 1
    assert "'nowhere' is not in the log" in unknown.stderr


def test_a_damaged_policy_is_told_by_doctor_and_replay(tmp_path: Path, config: Config) -> None:
    policy = record(config, 3)
    file = PolicyStore(config.policy_dir).path("offers", policy.version)
    file.write_bytes(file.read_bytes()[:-200])
    status, found = findings(tmp_path / "leeway.yaml")
    assert status == 1
    assert found["offers policy"][0] == "problem"
    assert str(file) in found["offers policy"][1]
    assert "restore it from a copy" in found["offers policy"][1]
    replayed = leeway("replay", "--config", tmp_path / "leeway.yaml")
    assert replayed.returncode == 1
    assert "3 decisions recomputed, 3 differ" in replayed.stdout
    assert str(file) in replayed.stdout


def test_retrain_says_by_its_exit_status_what_hinders_it(tmp_path: Path, config: Config) -> None:
    path = tmp_path / "leeway.yaml"
    unknown = leeway("retrain", "--decision-point", "ofers", "--config", path)
    assert unknown.returncode == 2
    assert "--decision-point ofers: not configured; known are: offers" in unknown.stderr
    scarce = leeway("retrain", "--dry-run", "--json", "--config", path)
    assert scarce.returncode == 3
    report = json.loads(scarce.stdout)
    assert report["outcome"] == "not_enough_data"
    assert "min_events" in report["words"]
    assert "wait for more" in report["words"]


def test_retrain_asks_which_of_several_decision_points(tmp_path: Path) -> None:
    path = configured(tmp_path, settings({"offers": OFFERS, "banners": {}}))
    asked = leeway("retrain", "--config", path)
    assert asked.returncode == 2
    assert "--decision-point offers|banners" in asked.stderr


def test_a_window_without_a_unit_is_no_window(tmp_path: Path) -> None:
    path = tmp_path / "leeway.yaml"
    path.write_text("version: 1\ndecision_points: {offers: {reward: {window: 8}}}\n")
    checked = leeway("check", "--config", path)
    assert checked.returncode == 2
    assert "reward.window" in checked.stderr
    assert "write a number with a unit" in checked.stderr


def test_one_underscore_where_two_are_meant_is_told(tmp_path: Path) -> None:
    path = tmp_path / "leeway.yaml"
    path.write_text("version: 1\ndecision_points: {offers: {}}\n")
    checked = leeway("check", "--config", path, env={"LEEWAY_SERVING_PORT": "8181"})
    assert checked.returncode == 2
    assert "did you mean LEEWAY_SERVING__PORT?" in checked.stderr
