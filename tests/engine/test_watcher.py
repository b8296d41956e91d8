from __future__ import annotations

from pathlib import Path

import pytest

from engine.policy import Policy
from engine.serving.service import DecisionService
from engine.serving.watcher import PolicyWatcher
from engine.store import PolicyStore
from tests.engine.samples import NAME, POINT, MemoryObserver, MemoryRecorder, make_policy

FIRST = make_policy()


class World:
    """A core that serves ``FIRST``, a store, and the watcher between them."""

    def __init__(self, directory: Path) -> None:
        self.store = PolicyStore(directory)
        self.observer = MemoryObserver()
        self.service = DecisionService({NAME: POINT}, {NAME: FIRST}, MemoryRecorder(), self.observer)
        self.watcher = PolicyWatcher(self.service, self.store, self.observer, interval_s=0.01)

    def look(self) -> str:
        """Look once and return the version that serves then."""
        self.watcher.look()
        return self.service.slot(NAME).policy.version

    @property
    def error(self) -> str:
        return self.service.slot(NAME).policy_error


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_nothing_published_leaves_the_first(world: World) -> None:
    assert world.look() == FIRST.version
    assert (world.error, world.observer.swaps, world.observer.load_errors) == ("", [], [])


def test_what_is_published_serves_once_and_an_older_one_serves_again(world: World) -> None:
    newer = make_policy(seed=2, update=1)
    world.store.publish(newer)
    assert world.look() == newer.version
    assert world.look() == newer.version
    assert world.observer.swaps == [newer.version]
    world.store.publish(FIRST)
    assert world.look() == FIRST.version


def test_the_background_thread_finds_it_and_ends(world: World) -> None:
    newer = make_policy(seed=2, update=1)
    world.store.publish(newer)
    world.watcher.start()  # looks once before it returns
    assert world.service.slot(NAME).policy.version == newer.version
    world.watcher.stop()


@pytest.mark.parametrize("content", [b"damaged", b""])
def test_a_damaged_file_leaves_the_serving_policy_and_the_next_one_serves(world: World, content: bytes) -> None:
    newer, newest = make_policy(seed=2, update=1), make_policy(seed=3, update=2)
    world.store.publish(newer)
    world.store.path(NAME, newer.version).write_bytes(content)
    assert world.look() == FIRST.version
    assert "not a whole policy file" in world.error
    assert world.look() == FIRST.version
    assert world.observer.load_errors == [NAME], "told once, not at every look"
    world.store.publish(newest)
    assert world.look() == newest.version
    assert world.error == ""


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"g9.9-00000000", bytes(9)])
def test_a_damaged_pointer_leaves_the_serving_policy(world: World, content: bytes) -> None:
    world.store.publish(FIRST)
    (world.store.root / NAME / "CURRENT").write_bytes(content)
    assert world.look() == FIRST.version
    assert world.error
    world.store.publish(make_policy(seed=2, update=1))
    assert world.look() != FIRST.version


def test_a_pointer_that_cannot_be_read_leaves_the_serving_policy(world: World) -> None:
    (world.store.root / NAME / "CURRENT").mkdir(parents=True)
    assert world.look() == FIRST.version
    assert "pointer cannot be read" in world.error


OTHER_ORDER = dict(reversed(POINT.actions.features.items()))


def made_for(**changed: object) -> Policy:
    return make_policy(point=POINT.model_copy(update=changed), update=1)


@pytest.mark.parametrize(
    "policy",
    [
        made_for(context=dict(list(POINT.context.items())[:2])),
        made_for(context=dict(reversed(POINT.context.items()))),
        made_for(actions=POINT.actions.model_copy(update={"features": OTHER_ORDER})),
    ],
    ids=["other features", "other order", "other order of actions"],
)
def test_a_policy_for_other_columns_is_not_served(world: World, policy: Policy) -> None:
    world.store.publish(policy)
    assert world.look() == FIRST.version
    assert "made for other features" in world.error


def test_another_bound_on_the_number_of_actions_changes_no_column(world: World) -> None:
    policy = made_for(actions=POINT.actions.model_copy(update={"max": 7}))
    world.store.publish(policy)
    assert world.look() == policy.version
