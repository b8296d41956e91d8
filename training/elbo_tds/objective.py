"""The terms of ELBO_TDS for one side, as the authors' released code weighs them.

For copies x^m of a row with latents z^m ~ N(mu(x^m), v I), decoder f, M copies and rows of weights w that sum to 1:

    L = sum_b w_b (1/M) sum_m { ||f(z^m) - x^m||^2  +  ||z^m - zbar||^2  -  1/2 sum log v^m }
              reconstruction        prior              entropy, where v is learned

Squared errors are summed over dimensions, reconstruction and prior weigh 1 : 1, and nothing stops a gradient. The prior
term is minus the logarithm of the exact marginal of z^1, ..., z^M around a common centre with a flat law, up to a
constant; with v = 1 the entropy is one too. (SimVAE, arXiv 2402.01399, has the same three.)
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Terms(NamedTuple):
    """The terms of one side: scalars, 0 where a term is switched off."""

    reconstruction: jax.Array
    prior: jax.Array
    entropy: jax.Array

    def total(self) -> jax.Array:
        """Return what is minimised."""
        return self.reconstruction + self.prior - self.entropy


def reconstruction(z: jax.Array, W: jax.Array, b: jax.Array, x: jax.Array, weight: jax.Array) -> jax.Array:
    """Return sum_b w_b (1/M) sum_m ||z^m W + b - x||^2; z is (M, n, d_z), x (M, n, D) or, for clean rows, (n, D)."""
    return _mean(jnp.square(z @ W + b - x), weight)


def spread(W: jax.Array, variance: jax.Array, weight: jax.Array) -> jax.Array:
    """Return what noise of a variance (M, n, d_z) adds to the expected reconstruction: sum_k v_k ||W_k||^2."""
    return _mean(variance * jnp.square(W).sum(axis=1), weight)


def prior(z: jax.Array, weight: jax.Array) -> jax.Array:
    """Return sum_b w_b (1/M) sum_m ||z^m - zbar||^2, zbar the mean over the copies; z is (M, n, d_z)."""
    return _mean(jnp.square(z - z.mean(axis=0)), weight)


def entropy(log_variance: jax.Array, weight: jax.Array) -> jax.Array:
    """Return sum_b w_b (1/M) sum_m 1/2 sum_k log v^m_k, the entropy of q(z|x) up to a constant."""
    return _mean(0.5 * log_variance, weight)


def predictive(logits: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
    """Return the binary cross-entropy, the mean over the tasks and, for logits (M, n, T), over the copies."""
    losses = jax.nn.softplus(logits) - labels * logits
    return jnp.einsum("...nt,n->", losses, weight) / (logits.size // len(weight))


def _mean(values: jax.Array, weight: jax.Array) -> jax.Array:
    return jnp.einsum("mnk,n->", values, weight) / values.shape[0]
