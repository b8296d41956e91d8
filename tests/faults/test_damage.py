"""Damaged files: each is named in words with what to do, and stops no more than what needs it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from engine.records import Decision, Feedback
from engine.store import PolicyStore
from streaming.learner import LearnerRole
from streaming.log import Message
from streaming.opening import open_log
from streaming.topics import FEEDBACK
from tests.integration.service import ACTIONS, CONTEXT, Service, eventually, leeway, offer, running, settings

#: Decisions that were made, rewarded and learned before anything is damaged.
BEFORE = 120


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which a service has worked and ended in order; tests take copies."""
    directory = tmp_path_factory.mktemp("installation")
    with running(directory, settings()) as service:
        with service.client() as client:
            for _ in range(BEFORE):
                client.report(client.decide("offers", CONTEXT, ACTIONS).decision_id, 1.0)
        service.settled()
        eventually(lambda: service.status().learned == BEFORE, "the feedback to be learned")
        assert service.stop() == 0
    return directory


@pytest.fixture
def service(installation: Path, tmp_path: Path) -> Iterator[Service]:
    """A copy of the installation, not started yet."""
    shutil.copytree(installation / "data", tmp_path / "data")
    service = Service(tmp_path, settings())
    yield service
    service.kill()


def cut_in_half(path: Path) -> Path:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def overwrite(path: Path, start: int) -> Path:
    """Overwrite what a file holds from an offset on, as a failing disk might."""
    with path.open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(start)
        file.write(b"\xa5" * (size - start))
    return path


def decide_and_report(service: Service, count: int) -> list[str]:
    with service.client() as client:
        made = [client.decide("offers", CONTEXT, ACTIONS).decision_id for _ in range(count)]
        for decision_id in made:
            client.report(decision_id, 1.0)
    return made


def doctor(service: Service) -> list[str]:
    """Return the problems that the doctor tells."""
    told = leeway("doctor", "--config", service.path).stdout.splitlines()
    return [line for line in told if line.startswith(" problem")]


@pytest.mark.parametrize("damaged", ["checkpoint", "statistics", "policy"])
def test_what_the_learner_has_lost_it_learns_again_from_the_log(service: Service, damaged: str) -> None:
    checkpoint = service.config.data_dir / "learner" / "learner.npz"
    store = PolicyStore(service.config.policy_dir)
    match damaged:
        case "checkpoint":
            file = cut_in_half(checkpoint)
        case "statistics":  # the list of contents at the end of the file is whole
            data = bytearray(checkpoint.read_bytes())
            at = data.index(b"offers/A.npy") + 300
            data[at : at + 8] = b"\xa5" * 8
            checkpoint.write_bytes(data)
            file = checkpoint
        case _:
            file = cut_in_half(store.path("offers", store.current("offers") or ""))
    service.start()
    eventually(lambda: "learning again from the log's beginning" in service.messages(), "the damage to be told")
    assert str(file) in service.messages()
    decide_and_report(service, 10)
    service.settled()
    eventually(lambda: service.status().learned == BEFORE + 10, "everything to be learned again")
    assert service.status().policy_error == ""
    with service.client() as client:
        assert client.decide("offers", CONTEXT, ACTIONS).fallback == "none"
    assert doctor(service) == []


def test_a_damaged_manifest_stops_the_archive_and_nothing_else(service: Service) -> None:
    manifest = service.config.archive_dir / "_manifest.json"
    whole = manifest.read_text()
    manifest.write_text('{"format": 1, "parts": [gar')
    service.start()
    eventually(lambda: service.metric("work", "leeway_role_errors_total", role="archive") >= 2, "the archive to fail")
    assert f"{manifest}: not a manifest of the archive" in service.messages()
    assert "restore it from a copy" in service.messages()
    role, problem = doctor(service)
    assert "archive role: does not work, though `work` (pid" in role
    assert "offers archive: cannot be read, so nothing is archived or retrained" in problem
    decide_and_report(service, 10)
    assert service.settled().feedback == BEFORE + 10
    eventually(lambda: service.status().learned == BEFORE + 10, "the feedback to be learned")
    up = {role: service.metric("work", "leeway_role_up", role=role) for role in ("join", "learner", "archive")}
    assert up == {"join": 1.0, "learner": 1.0, "archive": 0.0}

    manifest.write_text(whole)
    eventually(lambda: service.metric("work", "leeway_role_up", role="archive") == 1.0, "the archive to work again")
    eventually(
        lambda: service.metric("work", "leeway_archive_rows_total", decision_point="offers") == 10,
        "the feedback to be archived",
    )


@pytest.mark.parametrize("start", [0, 8_192], ids=["its head", "its records"])
def test_a_damaged_file_of_the_join_stops_no_decision(service: Service, start: int) -> None:
    file = overwrite(service.config.log_dir / "join.sqlite", start)
    service.start()
    made = decide_and_report(service, 10)
    assert {decision.decision_id for decision in service.decisions()} >= set(made)
    eventually(lambda: service.metric("work", "leeway_role_errors_total", role="join") >= 2, "the join to fail")
    assert service.metric("work", "leeway_role_up", role="join") == 0.0
    assert f"{file}: cannot" in service.messages()
    assert "the file is damaged" in service.messages()
    # Another role that cannot begin says why, and not that its own first attempt still holds what it needs.
    assert "by another process" not in service.messages()
    *roles, problem = doctor(service)
    assert any("join role: does not work" in role for role in roles)
    assert str(file) in problem
    with pytest.raises(grpc.RpcError) as unknown:
        service.status()
    assert unknown.value.code() is grpc.StatusCode.UNAVAILABLE
    assert str(file) in str(unknown.value.details())


def test_a_damaged_file_of_the_decisions_ends_serving_in_words(service: Service) -> None:
    file = overwrite(service.config.log_dir / "serving.sqlite", 8_192)
    service.launch()
    eventually(lambda: "serve ended with status 1" in service.messages(), "the server to end")
    assert f"leeway: {file}: cannot" in service.messages()
    assert "restore the file from a copy or move it away" in service.messages()
    assert "Traceback" not in service.messages()
    assert any(str(file) in problem for problem in doctor(service))


def move_away(service: Service, writer: str) -> None:
    """Do what the messages advise with a damaged file of the log."""
    for path in service.config.log_dir.glob(f"{writer}.sqlite*"):
        path.rename(service.config.data_dir / path.name)


def test_a_file_that_was_moved_away_begins_anew_and_no_decision_is_passed_over(service: Service) -> None:
    """The offsets of those who read it are beyond the end of the new one."""
    move_away(service, "serving")
    service.start()
    decide_and_report(service, 10)
    eventually(lambda: service.status().accounting.feedback == BEFORE + 10, "the new decisions to be joined")
    eventually(lambda: service.status().learned == BEFORE + 10, "the new feedback to be learned")
    assert "it is another log, and is read from its beginning" in service.messages()


def test_the_learner_begins_anew_with_a_new_log(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """Its statistics hold what the new log will bring once more."""
    move_away(service, "join")
    config = service.config
    log = open_log(config)
    try:
        learner = LearnerRole(
            log, config.points(), PolicyStore(config.policy_dir), config.data_dir / "learner", lambda: 0
        )
        log.append([Message(FEEDBACK, b"d", feedback().SerializeToString(), 1, partition=0)])
        assert learner.step() == 1
        learner.close()
    finally:
        log.close()
    assert "this is another log); learning again from the log's beginning" in caplog.text
    assert learner.learned["offers"] == 1


def feedback() -> Feedback:
    request = offer()
    decision = Decision(
        decision_id="d",
        decision_point="offers",
        time_ms=1,
        context=request.context,
        actions=request.actions,
        probabilities=[1.0 / len(request.actions)] * len(request.actions),
    )
    return Feedback(decision=decision, reward=1.0, outcomes=1)
