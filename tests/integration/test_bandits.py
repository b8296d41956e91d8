"""The harness of the bandits benchmark: what a policy is told, and what it promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks._bandit_contenders import FLOOR, Contender, leeway
from benchmarks._bandit_problem import Bandit
from benchmarks._bandit_service import parts, play


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 4)).astype(np.float32)
    Y = np.eye(3, dtype=np.uint8)[X[:, :3].argmax(axis=1)]
    np.savez(tmp_path / "set.npz", X=X, Y=Y)
    return tmp_path / "set.npz"


def test_a_row_tells_the_reward_of_one_action_once(path: Path) -> None:
    with np.load(path) as data:
        order = np.random.RandomState(3).permutation(400)
        X, right = data["X"][order], data["Y"][order].argmax(axis=1)
    bandit = Bandit(path, seed=3)
    assert np.array_equal(bandit.contexts, X)
    with pytest.raises(RuntimeError, match="only 0 of 400"):
        bandit.mean_reward()
    rewards = [bandit.act(0) for _ in range(400)]
    assert rewards == (right == 0).astype(float).tolist()
    assert bandit.mean_reward() == np.mean(right == 0)
    with pytest.raises(IndexError, match="all 400 rows"):
        bandit.act(0)
    with pytest.raises(ValueError, match="action 3"):
        Bandit(path, seed=3).act(3)
    # What can be read of it are contexts and sums: nothing else is as long as the labels.
    public = {name: getattr(bandit, name) for name in dir(bandit) if not name.startswith("_")}
    assert [name for name, value in public.items() if isinstance(value, np.ndarray)] == ["contexts"]


@pytest.mark.parametrize("contender", leeway(quick=True), ids=lambda contender: contender.family)
def test_every_configuration_learns_and_keeps_every_action_possible(path: Path, contender: Contender) -> None:
    bandit = Bandit(path, seed=0)
    learner, exploration = parts(contender.configuration, bandit.contexts.shape[1])
    least = play(bandit, learner, exploration, salt="test")
    assert bandit.mean_reward() > 0.5
    assert least > 0.0
    if "floor" in contender.family:
        assert least >= FLOOR / bandit.actions * (1.0 - 1e-9)
