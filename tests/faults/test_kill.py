"""kill -9 in the midst of everything: nothing acknowledged is lost, nothing happens twice, the books close."""

from __future__ import annotations

import subprocess
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import yaml

from engine.records import Feedback
from streaming.demo.figures import collect
from streaming.demo.run import POINT, prepare
from streaming.demo.traffic import Traffic
from streaming.demo.world import World, digits
from streaming.insight import tail
from streaming.opening import open_log
from streaming.topics import FEEDBACK
from tests.integration.service import COMMAND, ROOT, eventually, free_port, leeway, running, settings

DECISIONS = 1_500
RATE = 150
KILLS = 3


def test_a_demo_whose_server_is_killed_three_times_closes_its_books(tmp_path: Path) -> None:
    table = digits()
    config = yaml.safe_load(prepare(tmp_path / "demo", table).read_text())
    config["serving"]["port"] = free_port()  # the client must find the server again
    config["decision_points"][POINT]["retraining"] = {"enabled": False}  # there is too little feedback for it
    world = World(table, change_at=DECISIONS // 2, seed=1)
    with running(tmp_path / "demo", config) as service:
        traffic = Traffic(service.target, POINT, world, retry_s=60.0)
        client = threading.Thread(target=traffic.run, args=(DECISIONS, RATE), daemon=True)
        client.start()
        rng = np.random.default_rng(2)
        third = DECISIONS // (KILLS + 1)
        for at in (third * (number + 1) + int(rng.integers(-third // 3, third // 3)) for number in range(KILLS)):
            eventually(lambda at=at: len(traffic.acknowledged) >= at, f"decision {at}")  # type: ignore[misc]
            service.kill()
            service.start()
        client.join()
        traffic.finish()
        assert traffic.errors == []
        assert len(traffic.acknowledged) == DECISIONS

        # The counter of the process began anew with it; the log did not.
        eventually(lambda: service.status(POINT).accounting.feedback == DECISIONS, "every window to close")
        # Neither forgotten nor learned twice.
        eventually(lambda: service.status(POINT).learned == DECISIONS, "the feedback to be learned")
        assert service.stop() == 0

    assert traffic.change_ms is not None
    figures, _ = collect(service.config, POINT, traffic.change_ms, list(traffic.acknowledged))
    assert figures["acknowledged_missing"] == 0
    assert figures["decisions_logged_twice"] == 0
    assert figures["decisions"] == figures["feedback"] + figures["pending"] == DECISIONS
    assert (figures["replayed"], figures["replay_mismatches"]) == (DECISIONS, 0)
    # Downtime makes outcomes late, and a few are lost on purpose; by far the most are joined all the same.
    assert figures["defaulted"] < DECISIONS // 2
    assert sum(entry["feedback"] for entry in figures["acted"]) == DECISIONS

    log = open_log(service.config)
    try:
        joined = Counter(Feedback.FromString(value).decision.decision_id for value in tail(log, FEEDBACK, 2**40))
    finally:
        log.close()
    assert joined == Counter(dict.fromkeys(traffic.acknowledged, 1))


def test_a_registry_whose_making_was_killed_is_made_again(tmp_path: Path) -> None:
    """MLflow sets its database up in many steps, and cannot go on between two of them."""
    path = tmp_path / "leeway.yaml"
    path.write_text(yaml.safe_dump(settings()))
    prepare_registry: list[str | Path] = ["retrain", "--prepare", "--config", path]
    draft = tmp_path / "data" / ".mlflow.db.draft"
    with subprocess.Popen([*COMMAND, *map(str, prepare_registry)], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        eventually(lambda: draft.exists() and draft.stat().st_size > 200_000, "the database to be half made")
        process.kill()
    assert draft.exists()
    assert not (tmp_path / "data" / "mlflow.db").exists()
    again = leeway(*prepare_registry)
    assert (again.returncode, again.stderr) == (0, "")
    assert [entry.name for entry in (tmp_path / "data").glob("*mlflow.db*") if "lock" not in entry.name] == [
        "mlflow.db"
    ]
