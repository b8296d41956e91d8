"""The model over time: it scores a day, extends its tables, and learns from the day in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError, SnapshotError
from engine.recommender.fields import SIDES, Field, Side
from engine.recommender.space import FieldSpace
from engine.recommender.two_tower import Float32, Tower, TwoTower
from training.elbo_tds import draws
from training.elbo_tds.batches import Batch, Batcher, Encoded
from training.elbo_tds.config import ElboTdsConfig
from training.elbo_tds.embeddings import CodeTable, Layout, first_table, grown, rows_at, with_rows
from training.elbo_tds.environments import Environments
from training.elbo_tds.towers import MLP, ServedNetwork, TowerNetwork, linear
from training.elbo_tds.train_step import (
    TOTALS,
    State,
    StepFunction,
    Structure,
    Weights,
    compiled_score,
    compiled_step,
    optimiser,
)
from training.sessions import Sessions

_SCORED_AT_ONCE = 256


class ElboTds:
    """ELBO_TDS, or one of its controls: what it is, the configuration says. A ``DayModel``.

    Source: Y. Zhu et al., "A Probabilistic Framework for Temporal Distribution Generalization in Industry-Scale
    Recommender Systems", arXiv 2511.21032; what is ours where the paper could not be read is in ``docs/elbo_tds.md``.

    Parameters
    ----------
    config
        Model, objective, optimiser.
    user, item
        The fields.
    tasks
        Names of the labels.
    space
        A space that is fitted; ``None``: its edges are fitted on the first sessions that are learned.
    network
        Of the towers; default: an MLP of the configured widths.
    name
        In tables and plots.
    """

    def __init__(
        self,
        config: ElboTdsConfig,
        user: Sequence[Field],
        item: Sequence[Field],
        tasks: Sequence[str],
        *,
        space: FieldSpace | None = None,
        network: TowerNetwork | None = None,
        name: str = "ELBO_TDS",
    ) -> None:
        self.config = config
        self.tasks = tuple(tasks)
        self.network = network or MLP(config.hidden)
        self.steps = 0
        self._name = name
        self._fields = FieldSpace(user, item)
        self._space: FieldSpace | None = None
        self._layout: Layout
        self._state: State
        self._codes: CodeTable
        self._step: StepFunction
        self._environments = Environments(config.penalty) if config.penalty else None
        if space is not None:
            self._begin(space)

    @property
    def name(self) -> str:
        """Name in tables and plots."""
        return self._name

    @property
    def space(self) -> FieldSpace:
        """The space that it encodes with; raises ``ConfigError`` before the first day."""
        if self._space is None:
            raise ConfigError(f"{self.name}: no day was learned yet, so that there is no space; learn one first")
        return self._space

    # A day

    def score(self, sessions: Sessions) -> Float32:
        """Return the logits of rows, shape (n, n_tasks): 0 before the first day."""
        if self._space is None:
            return np.zeros((len(sessions), len(self.tasks)), np.float32)
        encoded = Encoded.of(self._space, sessions)
        batcher = Batcher(self._space, self._layout, _SCORED_AT_ONCE)
        parts = []
        for part in encoded.parts(_SCORED_AT_ONCE):
            batch = batcher.batch([part])
            active = rows_at(self._codes, batch.active).rows
            parts.append(np.asarray(self._score(self._state.parameters, active, batch))[: len(part.session)])
        return np.concatenate(parts) if parts else np.zeros((0, len(self.tasks)), np.float32)

    def learn(self, day: Iterable[Sessions]) -> None:
        """Learn from a day, once through; each chunk extends the vocabularies before it is learned."""
        for chunk in day:
            self.extend([chunk])
            self.train(chunk)

    def extend(self, sessions: Iterable[Sessions]) -> None:
        """Let vocabularies and tables grow by the categories of sessions; at first: fit the space on them."""
        if self._space is None:
            self._begin(self._fields.fitted(sessions, min_count=self.config.min_count))
            return
        space = self._space.extended(sessions, min_count=self.config.min_count)
        layout = Layout.of(space)
        self._codes = grown(self._codes, self._layout, layout, self.config.embedding_deviation, self.config.seed)
        self._space, self._layout = space, layout

    def train(self, sessions: Sessions) -> None:
        """Take the steps of some sessions, in batches of whole sessions, without extending anything."""
        encoded = Encoded.of(self.space, sessions)
        environments = 0 if self.config.penalty is None else self.config.penalty.days + 1
        batcher = Batcher(self.space, self._layout, self.config.batch_sessions, environments)
        for part in encoded.parts(self.config.batch_sessions):
            if len(part.session) == 0:
                continue
            beside = [] if self._environments is None else self._environments.beside(sessions.day, part, self.steps)
            self.take_step(batcher.batch([part, *beside]))

    def take_step(self, batch: Batch) -> None:
        """Take one step of the optimiser."""
        key = draws.key_of(self.config.seed, self.steps)
        self.steps += 1
        number = np.float32(self.steps)
        rows = rows_at(self._codes, batch.active)
        self._state, rows = self._step(self._state, rows, batch, key, number, self._weights)
        self._codes = with_rows(self._codes, batch.active, rows)

    def losses(self) -> dict[str, float]:
        """Return the mean of each term over the steps since the last call, and start anew."""
        totals = dict(zip(TOTALS, np.asarray(self._state.totals).tolist(), strict=True))
        self._state = self._state._replace(totals=jnp.zeros(len(TOTALS), jnp.float32))
        steps = totals.pop("steps")
        return {name: total / max(steps, 1.0) for name, total in totals.items()}

    # What is kept

    def two_tower(self) -> TwoTower:
        """Return the model that is served.

        Raises
        ------
        ConfigError
            No day was learned, or the network plugged in is no chain of layers, which is what can be served.
        """
        if not isinstance(self.network, ServedNetwork):
            raise ConfigError(
                f"{self.name}: a network of {type(self.network).__name__} cannot be served, since it has no layers(); "
                "serve an MLP, or give it that method if it is a chain of layers with LeakyReLU"
            )
        space, parameters = self.space, self._state.parameters
        towers = {}
        for side in SIDES:
            of_side = parameters[side]
            encoder = of_side.get("encoder")
            towers[side] = Tower(
                statistical=self._layout.lookup(space, side, "statistical"),
                categorical=self._layout.lookup(space, side, "categorical"),
                sequential=self._layout.lookup(space, side, "sequential"),
                encoder=None if encoder is None else (_copy(encoder["W"]), _copy(encoder["b"])),
                layers=tuple((W.copy(), b.copy()) for W, b in self.network.layers(of_side["network"])),
            )
        return TwoTower(
            self.tasks, _copy(parameters["buckets"]), _copy(self._codes.rows), towers["user"], towers["item"]
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything that training changes as plain arrays: space, weights, optimiser, environments."""
        found = {f"space.{key}": array for key, array in self.space.to_arrays().items()}
        leaves = jax.tree_util.tree_leaves_with_path((self._state, self._codes))
        found |= {f"state{jax.tree_util.keystr(path)}": np.asarray(leaf) for path, leaf in leaves}
        if self._environments is not None:
            found |= {f"environments.{key}": array for key, array in self._environments.arrays().items()}
        return found | {"steps": np.array(self.steps, np.int64)}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take the place of the model of which :meth:`arrays` was called.

        Raises
        ------
        SnapshotError
            The arrays are of another configuration, or damaged.
        """
        try:
            self._begin(FieldSpace.from_arrays(_below(arrays, "space.")))
            leaves, tree = jax.tree_util.tree_flatten_with_path((self._state, self._codes))
            restored = []
            for path, leaf in leaves:
                array = arrays[f"state{jax.tree_util.keystr(path)}"]
                if array.shape != leaf.shape:
                    raise ValueError(f"state{jax.tree_util.keystr(path)} has shape {array.shape}, not {leaf.shape}")
                restored.append(jnp.asarray(array))
            self._state, self._codes = jax.tree_util.tree_unflatten(tree, restored)
            self.steps = int(arrays["steps"])
            if self._environments is not None:
                self._environments.restore(_below(arrays, "environments."))
        except (KeyError, ValueError) as error:
            raise SnapshotError(
                f"{self.name}: {error}; the checkpoint is of another configuration, or damaged; train with the "
                "configuration that it was made with, or begin in an empty directory"
            ) from error

    def _begin(self, space: FieldSpace) -> None:
        """Make tables, parameters and the compiled step for a space."""
        config = self.config
        self._space = space
        self._layout = Layout.of(space)
        sides = {side: side_fields(config, space, side) for side in SIDES}
        structure = Structure.of(config, self.network, len(self.tasks), sides["user"], sides["item"])
        self._step = compiled_step(structure)
        self._score = compiled_score(structure)
        self._weights = Weights(
            jnp.float32(config.learning_rate),
            jnp.float32(config.alpha),
            jnp.float32(config.penalty.weight if config.penalty else 0.0),
        )
        parameters = jax.tree.map(jnp.asarray, first_parameters(config, self.network, space, len(self.tasks)))
        rows = jnp.asarray(first_table(self._layout.codes, config.embedding, config.embedding_deviation, config.seed))
        self._codes = CodeTable(rows, jnp.zeros_like(rows), jnp.zeros_like(rows))
        self._state = State(parameters, optimiser().init(parameters), jnp.zeros(len(TOTALS), jnp.float32))


def first_parameters(config: ElboTdsConfig, network: TowerNetwork, space: FieldSpace, tasks: int) -> dict[str, Any]:
    """Return the parameters that training starts with, all but the table of codes."""
    layout = Layout.of(space)
    found: dict[str, Any] = {
        "buckets": first_table(layout.buckets, config.embedding, config.embedding_deviation, config.seed)
    }
    for number, side in enumerate(SIDES):
        rng = np.random.default_rng([config.seed, number])
        fields = space.fields(side)
        width = sum(field.length if field.kind == "dense" else config.embedding for field in fields)
        of_side: dict[str, Any] = {}
        # Always drawn, so that controls with a bottleneck start where the full model does.
        if config.bottleneck:
            of_side["encoder"] = linear(rng, width, config.latent)
        of_side["network"] = network.init(rng, config.latent if config.bottleneck else width, tasks)
        if config.self_supervised:
            of_side["decoder"] = linear(rng, config.latent, width)
        if config.variance == "learned":
            of_side["log_variance"] = linear(rng, width, config.latent)
        found[side] = of_side
    return found


def side_fields(config: ElboTdsConfig, space: FieldSpace, side: Side) -> tuple[tuple[int, ...], ...]:
    """Return what a structure says of a side's fields."""
    fields, chosen = space.fields(side), config.augmentation.fields
    names = [field.name for field in (*space.user, *space.item)]
    if unknown := sorted(set(chosen or ()) - set(names)):
        raise ConfigError(f"augmentation.fields: {unknown[0]!r} is no field; there are: {', '.join(names)}")
    return (
        tuple(Layout.of(space).lookup(space, side, "statistical").start.tolist()),
        tuple(space.filled(field) for field in fields if field.kind == "statistical"),
        *(
            tuple(int(chosen is None or field.name in chosen) for field in fields if field.kind == kind)
            for kind in ("statistical", "categorical", "sequential")
        ),
    )


def _below(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}


def _copy(array: jax.Array) -> Float32:
    """Return an array of its own: a step uses up the buffers of the state."""
    return np.array(array, np.float32)
