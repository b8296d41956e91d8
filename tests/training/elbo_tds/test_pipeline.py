"""Daily training: what it reports, and that a restart is boring."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError, SnapshotError
from engine.recommender.space import FieldSpace
from engine.recommender.two_tower import TwoTower
from tests.training.elbo_tds.shop import TINY, Shop
from training.elbo_tds import checkpoint
from training.elbo_tds.pipeline import CHECKPOINT, Trained, train_recommender
from training.elbo_tds.streamed import StreamedRanking
from training.registry import Registry
from training.sessions import Sessions
from training.sessions.metrics import ranking

ROOT = Path(__file__).parents[3]
#: The training of a child process: chunks of 16 sessions, a checkpoint after each.
CHILD = """
import jax, pathlib, sys
jax.config.update("jax_disable_most_optimizations", True)
from tests.training.elbo_tds.test_pipeline import train
train(pathlib.Path(sys.argv[1]), kill_at=int(sys.argv[2]))
"""


def train(directory: Path, kill_at: int = 0, days: int = 3, registry: Registry | None = None) -> Trained:
    """Train; kill the process at its ``kill_at``-th word of progress, if that is not 0."""
    words = iter(range(1, 1_000))

    def progress(day: int, doing: str, sessions: int) -> None:
        if next(words) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    return train_recommender(
        TINY, Shop(days), directory, chunks=1, checkpoint_chunks=1, registry=registry, progress=progress
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    directory = tmp_path_factory.mktemp("whole")
    return directory, train(directory)


def same(one: Path, other: Path) -> bool:
    """Whether two checkpoints are the same but for the key of the training."""
    first, second = checkpoint.load(one / CHECKPOINT), checkpoint.load(other / CHECKPOINT)
    assert first is not None
    assert second is not None
    manifests = [{key: value for key, value in found[0].items() if key != "key"} for found in (first, second)]
    arrays = first[1], second[1]
    return (
        repr(manifests[0]) == repr(manifests[1])
        and arrays[0].keys() == arrays[1].keys()
        and all(array.tobytes() == arrays[1][name].tobytes() for name, array in arrays[0].items())
    )


# A day of 64 sessions is 4 words to score (none on the first day), 4 to extend, 4 to train: killed in the first
# day's training, between two days, and in a later day's scoring, extension and training.
@pytest.mark.parametrize(
    "kill_at",
    [
        pytest.param(7, marks=pytest.mark.slow),
        pytest.param(10, marks=pytest.mark.slow),
        19,
        pytest.param(24, marks=pytest.mark.slow),
    ],
)
def test_killed_anywhere_it_comes_out_bit_for_bit_the_same(
    kill_at: int, whole: tuple[Path, Trained], tmp_path: Path
) -> None:
    command = [sys.executable, "-c", CHILD, str(tmp_path), str(kill_at)]
    killed = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not same(whole[0], tmp_path)
    found = train(tmp_path)
    assert same(whole[0], tmp_path)
    ours, theirs = whole[1].model.arrays(), found.model.arrays()
    assert all(array.tobytes() == theirs[name].tobytes() for name, array in ours.items())
    assert found.space.digest() == whole[1].space.digest()


def test_days_that_come_later_are_learned_as_if_they_had_been_there(
    whole: tuple[Path, Trained], tmp_path: Path
) -> None:
    train(tmp_path, days=2)
    train(tmp_path, days=3)
    assert same(whole[0], tmp_path)


def test_a_day_is_scored_by_the_model_of_the_days_before(whole: tuple[Path, Trained], tmp_path: Path) -> None:
    before = train(tmp_path, days=2)
    chunk = Shop().whole(2)
    users = before.model.user_vectors(before.space.encode("user", chunk.user))[chunk.session]
    items = before.model.item_vectors(before.space.encode("item", chunk.item))
    scores = (users * items).sum(axis=2)
    report = whole[1].days[2]
    assert not whole[1].days[0].rankings
    for task, name in enumerate(Shop().tasks):
        expected = ranking(chunk.labels[:, task], scores[:, task], chunk.session)
        assert report.rankings[name].auc == pytest.approx(expected.auc, abs=2e-3)
        assert report.rankings[name].gauc == pytest.approx(expected.gauc, abs=1e-6)
    assert report.losses["predictive"] > 0.0


def test_metrics_of_chunks_are_those_of_the_whole() -> None:
    rng = np.random.default_rng(4)
    session = np.repeat(np.arange(300, dtype=np.int32), 5)
    scores = rng.normal(size=1_500).astype(np.float32)
    labels = (rng.random(1_500) < 1 / (1 + np.exp(-scores))).astype(np.float32)
    streamed = StreamedRanking()
    for start in range(0, 1_500, 250):
        here = slice(start, start + 250)
        streamed.add(labels[here], scores[here], session[here])
    found, expected = streamed.result(), ranking(labels, scores, session)
    assert (found.rows, found.sessions, found.mixed) == (expected.rows, expected.sessions, expected.mixed)
    for name in ("auc", "gauc", "gauc_mixed", "ndcg", "mrr"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=2e-4 if name == "auc" else 1e-9)


def test_the_model_is_published_after_each_day(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def publish(day: int, space: FieldSpace, model: TwoTower) -> None:
        seen.append((day, len(space.vocabularies["item_id"])))
        model.item_vectors(space.encode("item", Shop().whole(day).item))

    train_recommender(TINY, Shop(), tmp_path, publish=publish)
    assert [day for day, _ in seen] == [0, 1, 2]
    assert seen[0][1] < seen[1][1] < seen[2][1]


def test_each_day_has_a_run_below_that_of_the_training_once(tmp_path: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path}/mlflow.db")
    train(tmp_path / "training", days=2, registry=registry)
    found = train(tmp_path / "training", days=3, registry=registry)
    client = registry._client
    runs = client.search_runs([registry._experiment_id])
    days = {run.data.tags["day"]: run for run in runs}
    assert len(runs) == 4
    assert days.keys() == {"all", "0", "1", "2"}
    assert days["all"].info.run_id == found.run_id
    for day in ("0", "1", "2"):
        assert days[day].data.tags["mlflow.parentRunId"] == found.run_id
        assert days[day].info.status == "FINISHED"
    assert days["2"].data.metrics["click/auc"] == pytest.approx(found.days[2].rankings["click"].auc)
    assert days["all"].data.params["alpha"] == "0.01"


class Broken(Shop):
    """Its second day cannot be read."""

    def read(self, day: int, sessions: int) -> Iterator[Sessions]:
        if day == 1:
            raise OSError("disk")
        return super().read(day, sessions)


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no day"):
        train(tmp_path / "none", days=0)
    with pytest.raises(OSError, match="disk"):
        train_recommender(TINY, Broken(), tmp_path / "one")
    with pytest.raises(SnapshotError, match="made with config"):
        train_recommender(TINY.model_copy(update={"alpha": 0.5}), Shop(), tmp_path / "one")
    (tmp_path / "one" / CHECKPOINT).write_bytes(b"PK")
    with pytest.raises(SnapshotError, match="delete it to train from the first day"):
        train(tmp_path / "one")
