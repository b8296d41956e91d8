"""What trains a recommender's model day by day: the seam between a retraining and the algorithm."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.atomic_file import write_atomically
from engine.errors import SnapshotError
from engine.recommender.space import FieldSpace
from engine.recommender.two_tower import TwoTower
from training.config import RecommenderRetrainingConfig
from training.sessions import SessionSource

#: Everything that training goes on from on the next day, as plain arrays.
State = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class DayScore:
    """How well a day was predicted by the model of the days before it.

    Attributes
    ----------
    day
        Number of the day.
    rows
        Items shown.
    auc : mapping of str to float
        By task; NaN where a task had one outcome alone. Of a first day, before which nothing was learned, it says
        nothing.
    """

    day: int
    rows: int
    auc: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training gives.

    Attributes
    ----------
    space, model
        What is served.
    state
        What the next day's training goes on from.
    days
        The days that it went through, each scored first and learned then.
    """

    space: FieldSpace
    model: TwoTower
    state: State
    days: tuple[DayScore, ...]


class DayTrainer(Protocol):
    """Goes through the days of a source, in their order: score a day, then learn from it."""

    def __call__(
        self,
        source: SessionSource,
        config: RecommenderRetrainingConfig,
        *,
        p: float,
        state: State | None,
        on_day: Callable[[DayScore], None],
        earlier: SessionSource | None = None,
    ) -> Trained:
        """Return the model after the last day.

        Parameters
        ----------
        source
            The days; at least one.
        config
            Settings and seed.
        p
            Strength of the augmentation.
        state
            Of an earlier training, to go on from; ``None``: from scratch.
        on_day
            Is told of each day when it is learned.
        earlier
            What ``state`` has learned already, for rehearsal beside a small day; ``None``: there is none of it.

        Raises
        ------
        SnapshotError
            The state does not fit the fields or the settings.
        """


def trainer_path(directory: Path, version: str) -> Path:
    """Return where the state behind a policy version lies, below the recommender's directory of policies.

    The name begins otherwise than a policy's, so that a store does not take it for one.
    """
    return directory / f"trainer-{version}.npz"


def save_state(path: Path, state: State, until_ms: int, lists: int) -> None:
    """Write a state with what it was trained on: decisions before ``until_ms``, and how many lists in all."""
    buffer = io.BytesIO()
    facts = np.frombuffer(json.dumps({"until_ms": until_ms, "lists": lists}).encode(), np.uint8)
    np.savez(buffer, allow_pickle=False, _facts=facts, **{f"state.{key}": array for key, array in state.items()})
    try:
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise SnapshotError(f"{path}: cannot be written ({error.strerror}); make room or mend the directory") from error


def read_state(path: Path) -> tuple[State, int, int] | None:
    """Return a state, the time up to which it was trained, and the lists in it; ``None`` where there is none.

    Raises ``SnapshotError`` if the file is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        facts = json.loads(arrays.pop("_facts").tobytes())
        state = {key.removeprefix("state."): array for key, array in arrays.items()}
        return state, int(facts["until_ms"]), int(facts["lists"])
    except FileNotFoundError:
        return None
    except Exception as error:
        # Damaged bytes make the readers of zip, arrays and JSON raise almost anything.
        raise SnapshotError(
            f"{path}: no whole state of a training ({type(error).__name__}: {error}); delete it, and the next "
            "retraining starts from scratch"
        ) from error
