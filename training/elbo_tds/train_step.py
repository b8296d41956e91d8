"""The loss and one step of the optimiser, compiled once for a structure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from training.elbo_tds import draws, objective, penalties
from training.elbo_tds.augment import SideFields, copies
from training.elbo_tds.batches import Batch
from training.elbo_tds.config import ElboTdsConfig
from training.elbo_tds.embeddings import CodeTable, adam_rows
from training.elbo_tds.inputs import SideRows, embedded
from training.elbo_tds.towers import Parameters, TowerNetwork, mean_of

#: What is summed over steps, in the order of ``State.totals``; each but the last two for the user and the item side.
TOTALS = (
    "predictive",
    "user/reconstruction",
    "user/prior",
    "user/entropy",
    "item/reconstruction",
    "item/prior",
    "item/entropy",
    "penalty",
    "steps",
)


@dataclass(frozen=True)
class Structure:
    """All that the compiled step depends on beside the shapes of its arguments.

    Parameters
    ----------
    config
        With what is an argument of the step (seed, learning rate, size of alpha) set to fixed values.
    network
        Of both towers.
    tasks
        Number of tasks.
    user, item
        Of each side: first rows and filled buckets of the statistical fields; and which statistical, categorical and
        sequential fields are augmented.
    """

    config: ElboTdsConfig
    network: TowerNetwork
    tasks: int
    user: tuple[tuple[int, ...], ...]
    item: tuple[tuple[int, ...], ...]

    @classmethod
    def of(
        cls,
        config: ElboTdsConfig,
        network: TowerNetwork,
        tasks: int,
        user: tuple[tuple[int, ...], ...],
        item: tuple[tuple[int, ...], ...],
    ) -> Structure:
        """Return the structure; two runs that differ in seed, rates or sizes of batches alone share it."""
        same: dict[str, Any] = {
            "seed": 0,
            "learning_rate": 1.0,
            "alpha": float(config.self_supervised),
            "batch_sessions": 1,
            "passes": 1,
            "min_count": 1,
            "embedding_deviation": 1.0,
        }
        if config.augmentation.fields is not None:
            same["augmentation"] = config.augmentation.model_copy(update={"fields": ()})
        if config.penalty is not None:
            same["penalty"] = config.penalty.model_copy(update={"weight": 1.0, "days": 1, "sessions": 1})
        return cls(config.model_copy(update=same), network, tasks, user, item)

    def fields(self, side: str) -> SideFields:
        """Return the fields of a side."""
        start, filled, *augmented = self.user if side == "user" else self.item
        return SideFields(
            np.array(start, np.int32), np.array(filled, np.int32), *(np.array(which, np.bool_) for which in augmented)
        )


class Weights(NamedTuple):
    """Numbers of the configuration that the step takes as arguments."""

    learning_rate: jax.Array
    alpha: jax.Array
    penalty: jax.Array


class State(NamedTuple):
    """Everything that training changes but the table of codes.

    Attributes
    ----------
    parameters
        ``buckets``, and for each side ``network`` and, with the bottleneck, ``encoder``, ``decoder`` and, where the
        variance is learned, ``log_variance``.
    moments
        Optax's state for them.
    totals : float32
        Sums over the steps of a day, named by ``TOTALS``.
    """

    parameters: dict[str, Any]
    moments: Any
    totals: jax.Array


def optimiser() -> optax.GradientTransformation:
    """Return Adam with its usual constants, before the learning rate."""
    return optax.scale_by_adam()


def loss(
    structure: Structure,
    parameters: dict[str, Any],
    active: jax.Array,
    batch: Batch,
    key: jax.Array,
    alpha: jax.Array | float,
    penalty: jax.Array | float,
) -> tuple[jax.Array, jax.Array]:
    """Return what is minimised, and its terms in the order of ``TOTALS`` without the steps.

    loss = BCE(clean rows, at the posterior's mean) + alpha (L_user + L_item) / 2 + penalty

    Parameters
    ----------
    structure
        What to compute.
    parameters
        As in :class:`State`.
    active : float32, shape (U, E)
        Embeddings of the batch's active codes.
    batch
        The rows.
    key : uint32, shape (2,)
        Of the step's draws.
    alpha, penalty
        Weights.
    """
    config = structure.config
    terms: dict[str, jax.Array] = dict.fromkeys(TOTALS[:-1], jnp.float32(0.0))
    total = jnp.float32(0.0)
    copied = {}
    if config.self_supervised or config.predict == "copies":
        by_row = config.user_draws == "row" or config.predict == "copies"
        users = batch.user.take(batch.session) if by_row else batch.user
        for number, (side, rows) in enumerate((("user", users), ("item", batch.item))):
            drawn = copies(
                config.augmentation,
                config.copies,
                rows,
                structure.fields(side),
                parameters["buckets"],
                active,
                draws.stream(key, number),
            )
            copied[side] = drawn.joined()
    if config.predict == "clean":
        user = _clean(structure, parameters, "user", batch.user, active)
        item = _clean(structure, parameters, "item", batch.item, active)
        of_users = _vectors(structure, parameters["user"], user)[batch.session]
        logits = (of_users * _vectors(structure, parameters["item"], item)).sum(-1)
    else:
        of_users = _vectors(structure, parameters["user"], copied["user"])
        logits = (of_users * _vectors(structure, parameters["item"], copied["item"])).sum(-1)
    terms["predictive"] = objective.predictive(logits, batch.labels, batch.weight)
    total += terms["predictive"]
    if config.self_supervised:
        for number, side in enumerate(("user", "item")):
            weight = batch.weight
            if side == "user" and config.user_draws == "session":
                weight = jax.ops.segment_sum(weight, batch.session, len(batch.user.dense))
            clean = None
            if config.target == "clean":
                rows = users if side == "user" else batch.item
                clean = _clean(structure, parameters, side, rows, active)
            found = _terms(config, parameters[side], copied[side], clean, weight, draws.stream(key, 2 + number))
            for name, value in found._asdict().items():
                terms[f"{side}/{name}"] = value
            total += 0.5 * alpha * found.total()
    if config.penalty is not None:
        form = penalties.irm if config.penalty.kind == "irm" else penalties.vrex
        terms["penalty"] = form(logits, batch.labels, batch.environments)
        total += penalty * terms["penalty"]
    return total, jnp.stack([terms[name] for name in TOTALS[:-1]])


def _clean(structure: Structure, parameters: dict[str, Any], side: str, rows: SideRows, active: jax.Array) -> jax.Array:
    return embedded(rows, structure.fields(side).start, parameters["buckets"], active).joined()


def _vectors(structure: Structure, side: Parameters, x: jax.Array) -> jax.Array:
    return structure.network.apply(side["network"], mean_of(side.get("encoder"), x), structure.tasks)


def _terms(
    config: ElboTdsConfig, side: Parameters, x: jax.Array, clean: jax.Array | None, weight: jax.Array, key: jax.Array
) -> objective.Terms:
    """Return the terms of one side for copies x of shape (M, n, D)."""
    zero = jnp.float32(0.0)
    mean = mean_of(side["encoder"], x)
    learned = config.variance == "learned"
    log_variance = mean_of(side["log_variance"], x) if learned else jnp.zeros_like(mean)
    sampled = config.noise == "sampled"
    z = mean
    if sampled:
        noise = draws.normals(key, mean.shape)
        z = mean + (noise * jnp.exp(0.5 * log_variance) if learned else noise)
    W, b = side["decoder"]["W"], side["decoder"]["b"]
    found = objective.Terms(zero, zero, zero)
    if config.reconstruction:
        term = objective.reconstruction(z, W, b, x if clean is None else clean, weight)
        if not sampled:
            term += objective.spread(W, jnp.exp(log_variance), weight)
        found = found._replace(reconstruction=term)
    if config.prior:
        term = objective.prior(z, weight)
        if not sampled:
            # Each copy's noise is in the common mean with 1/M of it.
            around = jnp.exp(log_variance) * (1.0 - 1.0 / config.copies)
            term += jnp.einsum("mnk,n->", around, weight) / config.copies
        found = found._replace(prior=term)
    if learned:
        found = found._replace(entropy=objective.entropy(log_variance, weight))
    return found


StepFunction = Callable[[State, CodeTable, Batch, Any, Any, Weights], tuple[State, CodeTable]]


@lru_cache(maxsize=64)
def compiled_step(structure: Structure) -> StepFunction:
    """Return the step of a structure: (state, active rows, batch, key, number from 1, weights) to the next two.

    The state and the rows that are passed in are used up.
    """
    adam = optimiser()

    def step(
        state: State, rows: CodeTable, batch: Batch, key: jax.Array, number: jax.Array, weights: Weights
    ) -> tuple[State, CodeTable]:
        def of(parameters: dict[str, Any], active: jax.Array) -> tuple[jax.Array, jax.Array]:
            return loss(structure, parameters, active, batch, key, weights.alpha, weights.penalty)

        (of_parameters, of_active), terms = jax.grad(of, argnums=(0, 1), has_aux=True)(state.parameters, rows.rows)
        moves, moments = adam.update(of_parameters, state.moments)
        parameters = jax.tree.map(lambda p, move: p - weights.learning_rate * move, state.parameters, moves)
        changed = adam_rows(rows, of_active, number, weights.learning_rate)
        return State(parameters, moments, state.totals + jnp.append(terms, 1.0)), changed

    return jax.jit(step, donate_argnums=(0, 1))


ScoreFunction = Callable[[dict[str, Any], jax.Array, Batch], jax.Array]


@lru_cache(maxsize=64)
def compiled_score(structure: Structure) -> ScoreFunction:
    """Return the logits (n, T) of a batch's clean rows: parameters, active embeddings, batch."""

    def score(parameters: dict[str, Any], active: jax.Array, batch: Batch) -> jax.Array:
        user, item = (
            _vectors(structure, parameters[side], _clean(structure, parameters, side, rows, active))
            for side, rows in (("user", batch.user), ("item", batch.item))
        )
        return (user[batch.session] * item).sum(-1)

    return jax.jit(score)
