"""The network of a tower: what stands on the encoder's mean. Any network may be plugged in."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from engine.recommender.two_tower import LEAK, Float32, Layer

Parameters = Mapping[str, Any]


class TowerNetwork(Protocol):
    """A network from one side's encoder to one vector for each task; the towers of both sides are of one kind.

    The method needs no more of it than these two, so that it can be put before any model with two towers.
    """

    def init(self, rng: np.random.Generator, inputs: int, tasks: int) -> Parameters:
        """Return first parameters: arrays of float32, in mappings of names of any depth."""

    def apply(self, parameters: Parameters, mean: jax.Array, tasks: int) -> jax.Array:
        """Return the vectors of shape (..., tasks, d) for inputs of shape (..., inputs)."""


@runtime_checkable
class ServedNetwork(TowerNetwork, Protocol):
    """A network that is a chain of layers with LeakyReLU, the form that ``engine.recommender.two_tower`` serves."""

    def layers(self, parameters: Parameters) -> tuple[Layer, ...]:
        """Return the layers."""


@dataclass(frozen=True)
class MLP:
    """Layers of these widths with LeakyReLU after each; the last layer is a head of its own for each task."""

    hidden: tuple[int, ...] = (128, 64, 32)

    def init(self, rng: np.random.Generator, inputs: int, tasks: int) -> Parameters:
        """Return weights and biases, uniform on +-1/sqrt(inputs of the layer)."""
        widths = (inputs, *self.hidden[:-1], tasks * self.hidden[-1])
        return {
            f"layer{number}": linear(rng, into, out) for number, (into, out) in enumerate(itertools.pairwise(widths))
        }

    def apply(self, parameters: Parameters, mean: jax.Array, tasks: int) -> jax.Array:
        """Return the vectors of the tasks."""
        x = mean
        for number in range(len(self.hidden)):
            layer = parameters[f"layer{number}"]
            x = jax.nn.leaky_relu(x @ layer["W"] + layer["b"], float(LEAK))
        return x.reshape(*x.shape[:-1], tasks, self.hidden[-1])

    def layers(self, parameters: Parameters) -> tuple[Layer, ...]:
        """Return the layers."""
        found = (parameters[f"layer{number}"] for number in range(len(self.hidden)))
        return tuple((np.asarray(layer["W"], np.float32), np.asarray(layer["b"], np.float32)) for layer in found)


def linear(rng: np.random.Generator, inputs: int, outputs: int) -> dict[str, Float32]:
    """Return a linear layer, uniform on +-1/sqrt(inputs)."""
    bound = 1.0 / np.sqrt(inputs)
    return {
        "W": rng.uniform(-bound, bound, (inputs, outputs)).astype(np.float32),
        "b": rng.uniform(-bound, bound, outputs).astype(np.float32),
    }


def mean_of(encoder: Parameters | None, x: jax.Array) -> jax.Array:
    """Return the mean of q(z|x), or x itself where there is no encoder."""
    return x if encoder is None else x @ encoder["W"] + jnp.asarray(encoder["b"])
