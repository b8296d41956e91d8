"""Penalties of invariant learning on the risks of environments: the baselines IRM and V-REx."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def irm(logits: jax.Array, labels: jax.Array, environments: jax.Array) -> jax.Array:
    """Return the penalty IRMv1: the mean over environments of the squared slope of the risk in a common scale.

    The scale w multiplies the logits s; at w = 1 the slope of the binary cross-entropy is the mean of
    (sigmoid(s) - y) s. Source: M. Arjovsky et al., "Invariant Risk Minimization", arXiv 1907.02893, IRMv1.

    Parameters
    ----------
    logits, labels : shape (n, T)
    environments : shape (K, n)
        Weights of the rows in each environment, of sum 1; of sum 0 where the environment is not there yet.
    """
    slopes = environments @ ((jax.nn.sigmoid(logits) - labels) * logits).mean(axis=1)
    return jnp.square(slopes).sum() / _present(environments).sum()


def vrex(logits: jax.Array, labels: jax.Array, environments: jax.Array) -> jax.Array:
    """Return the variance of the risks of the environments.

    Source: D. Krueger et al., "Out-of-Distribution Generalization via Risk Extrapolation (REx)", ICML 2021, V-REx.
    Parameters as of :func:`irm`.
    """
    risks = environments @ (jax.nn.softplus(logits) - labels * logits).mean(axis=1)
    present = _present(environments)
    mean = (risks * present).sum() / present.sum()
    return (jnp.square(risks - mean) * present).sum() / present.sum()


def _present(environments: jax.Array) -> jax.Array:
    return (environments.sum(axis=1) > 0.5).astype(jnp.float32)
