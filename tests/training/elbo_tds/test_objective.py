"""The terms of the objective against what they stand for."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from training.elbo_tds import objective, penalties

M, N, D = 4, 6, 5
RNG = np.random.default_rng(0)
Z = RNG.normal(size=(M, N, D)).astype(np.float32)
WEIGHT = (np.arange(1, N + 1) / np.arange(1, N + 1).sum()).astype(np.float32)


def prior(z: np.ndarray) -> float:
    return float(objective.prior(jnp.asarray(z), jnp.asarray(WEIGHT)))


def test_the_prior_is_0_for_equal_latents() -> None:
    assert prior(np.broadcast_to(Z[:1], Z.shape)) == pytest.approx(0.0, abs=1e-10)


def test_the_prior_ignores_a_common_shift() -> None:
    assert prior(Z + RNG.normal(size=(1, N, D)).astype(np.float32)) == pytest.approx(prior(Z), rel=1e-5)


def test_the_prior_is_the_mean_of_pairwise_distances() -> None:
    pairs = sum(np.square(Z[m] - Z[k]).sum(axis=-1) for m in range(M) for k in range(m + 1, M)) / M
    assert prior(Z) == pytest.approx(float((pairs * WEIGHT).sum()) / M, rel=1e-5)


def test_the_prior_is_the_exact_marginal_around_a_common_centre() -> None:
    """-log of the integral over c of prod N(z^m; c, s^2), up to the constant that the derivation states."""
    s = 0.7
    z = np.array([0.3, -1.1, 0.8])

    def joint(c: float) -> float:
        return float(np.prod(np.exp(-((z - c) ** 2) / (2 * s**2)) / np.sqrt(2 * np.pi * s**2)))

    found = integrate.quad(joint, -30, 30, epsabs=1e-13)[0]
    constant = (2 * np.pi * s**2) ** (-(len(z) - 1) / 2) * len(z) ** -0.5
    term = len(z) * float(objective.prior(jnp.asarray(z[:, None, None]), jnp.ones(1)))
    assert constant * np.exp(-term / (2 * s**2)) == pytest.approx(found, rel=1e-5)


def test_the_reconstruction_sums_over_dimensions_and_averages_over_copies_and_rows() -> None:
    W, b = RNG.normal(size=(D, 3)).astype(np.float32), RNG.normal(size=3).astype(np.float32)
    x = RNG.normal(size=(M, N, 3)).astype(np.float32)
    each = np.square(Z @ W + b - x).sum(axis=2).mean(axis=0)
    found = objective.reconstruction(*map(jnp.asarray, (Z, W, b, x, WEIGHT)))
    assert float(found) == pytest.approx(float((each * WEIGHT).sum()), rel=1e-5)


def test_the_predictive_term_is_the_mean_cross_entropy_over_tasks_and_copies() -> None:
    logits, labels = RNG.normal(size=(M, N, 2)), (RNG.random((N, 2)) < 0.5).astype(np.float32)
    p = 1.0 / (1.0 + np.exp(-logits))
    losses = -(labels * np.log(p) + (1 - labels) * np.log(1 - p))
    expected = float((losses.mean(axis=(0, 2)) * WEIGHT).sum())
    args = jnp.asarray(labels), jnp.asarray(WEIGHT)
    assert float(objective.predictive(jnp.asarray(logits), *args)) == pytest.approx(expected, rel=1e-5)
    one = float((losses[0].mean(axis=1) * WEIGHT).sum())
    assert float(objective.predictive(jnp.asarray(logits[0]), *args)) == pytest.approx(one, rel=1e-5)


LOGITS = RNG.normal(size=(N, 1))
LABELS = np.array([[1], [0], [0], [1], [1], [0]], np.float32)
ENVIRONMENTS = np.zeros((3, N), np.float32)  # the third day is not there yet
ENVIRONMENTS[0, :2], ENVIRONMENTS[1, 2:] = 1 / 2, 1 / 4


def risk(rows: slice, scale: float = 1.0) -> float:
    s = scale * LOGITS[rows]
    return float((np.logaddexp(0, s) - LABELS[rows] * s).mean())


def test_irm_is_the_squared_slope_of_each_risk_in_a_common_scale() -> None:
    step = 1e-5
    slopes = [(risk(e, 1 + step) - risk(e, 1 - step)) / (2 * step) for e in (slice(0, 2), slice(2, N))]
    found = penalties.irm(*map(jnp.asarray, (LOGITS, LABELS, ENVIRONMENTS)))
    assert float(found) == pytest.approx(float(np.mean(np.square(slopes))), rel=1e-4)


def test_vrex_is_the_variance_of_the_risks_of_the_days_that_are_there() -> None:
    found = penalties.vrex(*map(jnp.asarray, (LOGITS, LABELS, ENVIRONMENTS)))
    assert float(found) == pytest.approx(float(np.var([risk(slice(0, 2)), risk(slice(2, N))])), rel=1e-4)
