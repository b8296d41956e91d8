"""Tables as worlds: what is read, what each action earns, and what is said of a table that cannot be played."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.config import DecisionPoint
from engine.errors import ConfigError
from engine.features import Encoder
from engine.records import Action, Features, Value
from training.simulation.table import TableWorld, read_world
from training.simulation.world import Offer, Visits

CSV = "Age,city,kind\n30,Delft,a\n40,Gouda,b\n50,Delft,a\n,Gouda,c\n"


def table(tmp_path: Path, text: str = CSV) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(text)
    return path


def all_rewards(world: TableWorld, visits: Visits) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return what each action earns, by asking runs that are equal."""
    count = len(world._actions)
    runs = [world.visits(0, None, Offer()) for _ in range(count)]
    return np.column_stack([run.rewards(0, np.full(len(visits), action)) for action, run in enumerate(runs)])


def test_a_label_earns_one_and_is_no_feature(tmp_path: Path) -> None:
    world = read_world(table(tmp_path), label="kind", ordered=True)
    visits = world.visits(0, None, Offer())
    assert list(world.point.context) == ["age", "city"]
    assert all_rewards(world, visits).tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]]
    requests = visits.requests(0, 4)
    assert list(requests.action_ids[:3]) == ["a", "b", "c"]
    # Encoded as the service does; a missing number counts as 0.
    encoded = Encoder(world.point).encode(
        Features(named={"age": Value(number=40), "city": Value(text="Gouda")}), [Action(id="a")]
    )
    assert requests.context[1].tolist() == encoded.X[0].tolist()
    assert requests.context[3, 0] == 0.0


def test_reward_columns_are_the_actions(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    columns = {"x": [[0.5, 1.0], [0.0, 2.0]], "pay_one": [3, 0], "pay_two": [0.5, -2.0]}
    pq.write_table(pa.table(columns), path)
    world = read_world(path, rewards="pay_", ordered=True)
    visits = world.visits(0, None, Offer())
    assert all_rewards(world, visits).tolist() == [[3.0, 0.5], [0.0, -2.0]]
    assert world.point.reward.range == (-2.0, 3.0)
    assert visits.requests(0, 2).context.tolist() == [[0.5, 1.0], [0.0, 2.0]]


def test_rows_are_shuffled_by_seed_unless_in_order(tmp_path: Path) -> None:
    rows = "".join(f"{i},{'ab'[i % 2]}\n" for i in range(40))
    path = table(tmp_path, f"n,kind\n{rows}")
    shuffled = read_world(path, label="kind")
    one, again, other = (shuffled.visits(seed, 80, Offer()).requests(0, 80).context for seed in (0, 0, 1))
    assert one.tobytes() == again.tobytes() != other.tobytes()
    assert sorted(one[:40].tolist()) == sorted(one[40:].tolist())  # each pass has every row
    kept = read_world(path, label="kind", ordered=True).visits(5, None, Offer()).requests(0, 40).context
    assert (np.diff(kept[:, 0]) > 0).all()


def test_a_numpy_archive_of_the_test_data(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(20, 3)), np.eye(4)[rng.integers(4, size=20)]
    np.savez(path, X=X, Y=Y, K=4)
    world = read_world(path, ordered=True)
    visits = world.visits(0, None, Offer())
    assert visits.requests(0, 20).context.tolist() == X.astype(np.float32).tolist()
    assert all_rewards(world, visits).tolist() == Y.tolist()


def test_a_declared_decision_point_takes_its_columns(tmp_path: Path) -> None:
    point = DecisionPoint.model_validate({"context": {"place": {"type": "vector", "size": 2, "scale": 2.0}}})
    text = "place_0,place_1,more,kind\n1,2,9,a\n3,4,9,b\n"
    world = read_world(table(tmp_path, text), label="kind", point=point, ordered=True)
    assert world.visits(0, None, Offer()).requests(0, 2).context.tolist() == [[2.0, 4.0], [6.0, 8.0]]
    with pytest.raises(ConfigError, match=r"context\.place"):
        read_world(table(tmp_path, "more,kind\n9,a\n9,b\n"), label="kind", point=point)


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (CSV, {"label": "sort"}, "no such column"),
        (CSV, {}, "--label"),
        (CSV, {"label": "kind", "rewards": "r_"}, "one of them"),
        (CSV, {"rewards": "r_"}, "0 action"),
        ("x,kind\n1,a\n2,a\n", {"label": "kind"}, "at least two"),
        ("x,kind\n1,a\n2,\n", {"label": "kind"}, "row 2|empty name"),
        ("x,r_a,r_b\n1,2,\n", {"rewards": "r_"}, "'b' in row 1"),
        ("x,r_a,r_b\n1,2,no\n", {"rewards": "r_"}, "not numeric"),
        ("x,X,kind\n1,2,a\n1,2,b\n", {"label": "kind"}, "rename one"),
        ("kind\n", {"label": "kind"}, "no rows"),
        ("", {"label": "kind"}, "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_played_says_why(tmp_path: Path, text: str, options: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_world(table(tmp_path, text), **options)  # type: ignore[arg-type]


def test_a_damaged_numpy_archive_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(ConfigError, match="no readable NumPy archive"):
        read_world(path)
    np.savez(path, Z=np.zeros(3))
    with pytest.raises(ConfigError, match="has no array X; it has: Z"):
        read_world(path)
