"""Boosted trees on a Dask cluster: the workers read the archive, and each keeps its part of the rows.

The histograms of all workers are added up for each split (LightGBM's data-parallel learner), so that the trees are
those of all rows and not an average over workers.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]  # publishes no types
import pyarrow as pa

from engine.config import DecisionPoint
from engine.errors import ConfigError, LeewayError
from engine.oracles import LightGBMOracle
from training.archive.encoding import columns_of, encode
from training.archive.manifest import Part, batches_of, read_manifest
from training.archive.order import valued
from training.config import LightGBMConfig
from training.damping import Weighing
from training.dataset import Dataset
from training.fit import tree_parameters
from training.stored import StoredDataset

#: Beyond this a scheduler that does not answer is taken for dead.
CONNECT_S = 10
_EXTRA = "pip install 'leeway[dask]'"
#: What scikit-learn's form of LightGBM calls two of its parameters.
_AS_SKLEARN = {"min_data_in_leaf": "min_child_samples", "seed": "random_state"}


class ClusterError(LeewayError):
    """The cluster cannot be reached, or a worker failed; the same retraining may be started again."""


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Give a client of the scheduler.

    Parameters
    ----------
    address
        Such as ``tcp://scheduler:8786``.

    Raises
    ------
    ConfigError
        Dask is not installed.
    ClusterError
        No scheduler answers, or it has no worker.
    """
    try:
        import dask.dataframe  # noqa: F401  (not in every installation of Dask)
        from distributed import Client
    except ImportError as error:
        raise ConfigError(
            f"retraining.cluster is {address}, but {error.name} is not installed; install it here and on the workers: "
            f"{_EXTRA}, or set retraining.cluster to local"
        ) from error
    try:
        client = Client(address, timeout=CONNECT_S)  # the default one: LightGBM asks Dask for that
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"retraining.cluster: no Dask scheduler answers at {address} within {CONNECT_S} s ({error}); start it with "
            "`dask scheduler`, correct the address, or set retraining.cluster to local"
        ) from error
    try:
        if not client.scheduler_info(n_workers=-1)["workers"]:
            raise ClusterError(
                f"retraining.cluster: the scheduler at {address} has no workers; start some with "
                f"`dask worker {address}`"
            )
        yield client
    finally:
        client.close()


@dataclass(frozen=True)
class _Slice:
    """What a worker takes of the archive: the rows of a window between its first and its last, and in what form.

    Rows are told apart by (time, decision id), as their order is.
    """

    directory: str
    point: DecisionPoint
    first: tuple[int, str]
    last: tuple[int, str]
    code: dict[str, int]
    weighing: Weighing | None

    def frame(self, part: Part) -> Any:
        """Return the rows of a file: the features of what was done, its code, the reward and the weight."""
        columns = columns_of(self.point) | {"mode"}
        batches = map(self._inside, batches_of(Path(self.directory), part, verify=True, columns=columns))
        return pd.concat([self._of(encode(batch, self.point, part.path)) for batch in batches], ignore_index=True)

    def _inside(self, found: Any) -> Any:
        batch = valued(found)
        times = batch.column("time_ms").to_numpy()
        maybe = np.flatnonzero((times >= self.first[0]) & (times <= self.last[0]))
        at_an_end = (times[maybe] == self.first[0]) | (times[maybe] == self.last[0])
        keep = np.ones(len(maybe), np.bool_)
        for i in np.flatnonzero(at_an_end).tolist():
            key = (int(times[maybe[i]]), batch.column("decision_id")[int(maybe[i])].as_py())
            keep[i] = self.first <= key <= self.last
        return batch.take(pa.array(maybe[keep]))

    def _of(self, rows: Dataset) -> Any:
        frame = pd.DataFrame(rows.chosen_matrix(), columns=[str(j) for j in range(rows.width)])
        frame["code"] = np.array([self.code[action] for action in rows.chosen_actions()], np.float32)
        frame["reward"] = rows.reward
        frame["weight"] = np.ones(len(rows)) if self.weighing is None else self.weighing.weights(rows)
        return frame


def fit_on_cluster(
    train: StoredDataset,
    point: DecisionPoint,
    config: LightGBMConfig,
    seed: int,
    weighing: Weighing | None,
    address: str,
) -> tuple[LightGBMOracle, tuple[str, ...]]:
    """Fit the boosted trees of ``training.fit.fit_lightgbm`` on the workers of a Dask cluster.

    The same rows, read by each worker from the archive, which must be at the same path there, and the same parameters.
    The sums over rows are taken in another order, and the bins are made of other samples: the model is as good, and not
    the same bits; nor is it between two runs.

    Parameters
    ----------
    train
        The rows to fit on.
    point, config, seed
        As for ``fit_lightgbm``.
    weighing
        How rows are weighed; ``None``: all alike.
    address
        Of the scheduler.

    Raises
    ------
    ClusterError
        The cluster cannot be reached, or a worker failed.
    """
    vocabulary, _ = train.chosen_codes()
    ids = train.decision_ids()
    times = train.time_ms
    cut = _Slice(
        str(train.origin.directory.resolve()),
        point,
        (int(times[0]), ids[0].as_py()),
        (int(times[-1]), ids[len(ids) - 1].as_py()),
        {action: i for i, action in enumerate(vocabulary, start=1)},
        weighing,
    )
    manifest = read_manifest(train.origin.directory)
    parts = [
        part
        for part in (() if manifest is None else manifest.parts)
        if part.decision_point == train.origin.name
        and part.max_time_ms >= cut.first[0]
        and part.min_time_ms <= cut.last[0]
    ]
    parameters = tree_parameters(train.reward, point, config, seed)
    with connected(address) as client:
        frame = _frame(client, cut, parts, train.width)
        return _fit(client, frame, cut, parameters | {"n_estimators": config.trees}, len(train), address), vocabulary


def _frame(client: Any, cut: _Slice, parts: list[Part], width: int) -> Any:
    """Return the dask dataframe of the archive's files, one partition each; its rows stay with the workers."""
    import dask.dataframe

    features = {name: np.empty(0, np.float32) for name in (*map(str, range(width)), "code")}
    meta = pd.DataFrame(features | {"reward": np.empty(0), "weight": np.empty(0)})
    return client.persist(dask.dataframe.from_map(cut.frame, parts, meta=meta))


def _fit(
    client: Any, frame: Any, cut: _Slice, parameters: dict[str, object], rows: int, address: str
) -> LightGBMOracle:
    from lightgbm.dask import DaskLGBMRegressor

    names = {_AS_SKLEARN.get(name, name): value for name, value in parameters.items()}
    try:
        found = client.compute(frame["reward"].count()).result()
        if found != rows:
            raise ClusterError(
                f"retraining.cluster: the workers found {found} of {rows} feedbacks in {cut.directory}; it was merged "
                "meanwhile, or is another one there: start the retraining again"
            )
        features = frame.drop(columns=["reward", "weight"])
        model = DaskLGBMRegressor(client=client, tree_learner="data", **names)
        weights, place = frame["weight"], [len(features.columns) - 1]
        with warnings.catch_warnings():
            # LightGBM says so of its own default: each worker has as many threads as Dask gave it.
            warnings.filterwarnings("ignore", "Parameter n_jobs will be ignored", UserWarning)
            model.fit(features, frame["reward"], sample_weight=weights, categorical_feature=place)
    except ClusterError:
        raise
    except Exception as error:
        # Dask raises what a worker raised, or one of many errors of its own where a worker is lost.
        raise ClusterError(
            f"retraining.cluster: the fit on {address} failed ({type(error).__name__}: {error}); the workers need "
            f"{cut.directory} and the same Leeway ({_EXTRA}); start the retraining again, or set retraining.cluster "
            "to local"
        ) from error
    return LightGBMOracle(model.booster_.model_to_string())
