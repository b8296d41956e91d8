"""Random numbers of the augmentation: a hash of a counter, so that they are cheap and any step's can be made again.

The generators of JAX cost 20 times as much on a CPU, more than the arithmetic that the numbers are for. Nothing here
is fit for secrets, and nothing needs it: a mask and a jitter need bits that look independent.

Source of the mixer: the finaliser of MurmurHash3 (A. Appleby), here two rounds with a word of the key in each.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1


def key_of(seed: int, step: int) -> NDArray[np.uint32]:
    """Return the two words of the key of a training step, by splitmix64."""
    z = (seed * _GOLDEN + (step + 1) * 0xD1342543DE82EF95) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    z ^= z >> 31
    return np.array([z & 0xFFFFFFFF, z >> 32], np.uint32)


def stream(key: jax.Array, number: int) -> jax.Array:
    """Return the key of one of several independent streams."""
    return _mixed(key + jnp.uint32((number + 1) * 0x9E3779B9 & 0xFFFFFFFF))


def bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return 32 random bits for each place: uint32."""
    counter = jax.lax.iota(jnp.uint32, math.prod(shape)) * jnp.uint32(0x9E3779B9) + key[0]
    return _mixed(_mixed(counter) ^ key[1]).reshape(shape)


def hits(word: jax.Array, p: float) -> jax.Array:
    """Return which words fall below p, by their lower 16 bits: p is exact to 2^-16. The upper bits stay unused."""
    return jnp.less(word & jnp.uint32(0xFFFF), jnp.uint32(round(p * 65_536)))


def below(word: jax.Array, n: int) -> jax.Array:
    """Return a number from 0 to n - 1 by the upper 16 bits of each word: int32."""
    return jnp.asarray((word >> 16) * jnp.uint32(n) >> 16, jnp.int32)


def halves(key: jax.Array, shape: tuple[int, ...], p: float) -> jax.Array:
    """Return independent hits of probability p, two out of each word: bool."""
    count = math.prod(shape)
    word = bits(key, ((count + 1) // 2,))
    return jnp.concatenate([hits(word, p), hits(word >> 16, p)])[:count].reshape(shape)


def normals(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return standard normal numbers, by Box and Muller (1958): float32."""
    count = math.prod(shape)
    pairs = (count + 1) // 2
    word = bits(key, (2, pairs))
    # In (0, 1], so that the logarithm is finite.
    uniform = ((word >> 8).astype(jnp.float32) + 1.0) * jnp.float32(2.0**-24)
    radius = jnp.sqrt(-2.0 * jnp.log(uniform[0]))
    angle = jnp.float32(2.0 * math.pi) * uniform[1]
    return jnp.concatenate([radius * jnp.cos(angle), radius * jnp.sin(angle)])[:count].reshape(shape)


def _mixed(x: jax.Array) -> jax.Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
