"""Copies of rows: their laws, and their numbers."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from training.elbo_tds import draws
from training.elbo_tds.augment import SideFields, copies, jittered, kept
from training.elbo_tds.config import AugmentationConfig
from training.elbo_tds.inputs import SideRows, embedded

M, N, E = 5, 400, 4
RNG = np.random.default_rng(1)
FILLED = np.array([50, 7], np.int32)
OF = SideFields(np.array([0, 51], np.int32), FILLED, *(np.ones(n, np.bool_) for n in (2, 2, 1)))
BUCKETS = jnp.asarray(RNG.normal(size=(59, E)).astype(np.float32))
ACTIVE = jnp.asarray(RNG.normal(size=(30, E)).astype(np.float32))
BUCKET = np.stack([RNG.integers(0, 50, N), RNG.integers(0, 7, N)], axis=1).astype(np.int32)
THERE = (np.arange(6) < RNG.integers(0, 7, (N, 1)))[:, None].astype(np.float32)
ROWS = SideRows(
    jnp.asarray(BUCKET),
    jnp.asarray(RNG.integers(0, 30, (N, 2)).astype(np.int32)),
    jnp.asarray(RNG.integers(0, 30, (N, 1, 6)).astype(np.int32)),
    jnp.asarray(THERE),
    jnp.asarray(RNG.normal(size=(N, 3)).astype(np.float32)),
)
KEY = jnp.asarray(draws.key_of(3, 0))


def drawn(config: AugmentationConfig, step: int = 0, of: SideFields = OF) -> np.ndarray:
    key = jnp.asarray(draws.key_of(3, step))
    found = jax.jit(lambda key: copies(config, M, ROWS, of, BUCKETS, ACTIVE, key).joined())(key)
    return np.asarray(found)


CLEAN = np.asarray(embedded(ROWS, OF.start, BUCKETS, ACTIVE).joined())


def test_with_p_0_copies_are_the_clean_row() -> None:
    found = drawn(AugmentationConfig(p=0.0))
    # Not to the bit: compiled in one piece, the mean of a list may be summed in another order on some processors.
    np.testing.assert_allclose(found, np.broadcast_to(CLEAN, found.shape), rtol=0, atol=1e-6)


@pytest.mark.parametrize("width", [1, 2, 5])
def test_the_jitter_stays_near_and_inside(width: int) -> None:
    moved = np.asarray(jittered(ROWS.statistical, FILLED, M, AugmentationConfig(p=0.9, jitter=width), KEY))
    assert (np.abs(moved - BUCKET) <= width).all()
    assert (moved >= 0).all()
    assert (moved < FILLED).all()
    assert np.abs(moved - BUCKET).max() == width


def test_a_bucket_changes_with_probability_0_8_p_and_to_either_side_alike() -> None:
    middle = jnp.full((20_000, 1), 25, jnp.int32)
    delta = np.asarray(jittered(middle, FILLED[:1], 1, AugmentationConfig(), KEY)) - 25
    assert np.mean(delta != 0) == pytest.approx(0.16, abs=0.01)  # 4 standard deviations
    for step in (-2, -1, 1, 2):
        assert np.mean(delta == step) == pytest.approx(0.04, abs=0.006)


def test_a_missing_value_stays_missing() -> None:
    missing = jnp.asarray(np.array([[50, 7]], np.int32))
    moved = jittered(missing, FILLED, 64, AugmentationConfig(p=0.9), KEY)
    np.testing.assert_array_equal(np.asarray(moved), np.broadcast_to([[[50, 7]]], moved.shape))


def test_element_dropout_zeroes_p_squared_and_scales_what_a_hit_field_keeps() -> None:
    factor = np.asarray(kept(AugmentationConfig(), (4, 2_000, 3, 8), KEY, draws.stream(KEY, 9)))
    assert np.mean(factor == 0.0) == pytest.approx(0.04, abs=0.003)
    assert set(np.unique(factor)) == {np.float32(0.0), np.float32(1.0), np.float32(1.25)}
    assert factor.mean() == pytest.approx(1.0, abs=0.005)
    hit = (factor != 1.0).all(axis=-1)
    assert hit.mean() == pytest.approx(0.2, abs=0.01)
    assert (factor[~hit] == 1.0).all()


def test_the_whole_field_form_blanks_fields() -> None:
    factor = np.asarray(kept(AugmentationConfig(categorical="field"), (4, 5_000, 3, 8), KEY, KEY))
    assert factor.shape == (4, 5_000, 3, 1)
    assert np.mean(factor == 0.0) == pytest.approx(0.2, abs=0.01)


def test_a_mask_leaves_the_mean_of_the_other_entries() -> None:
    config = AugmentationConfig(statistical="none", categorical="none", p=0.5)
    found = drawn(config)[:, :, 4 * E : 5 * E]
    entries = np.asarray(ACTIVE)[np.asarray(ROWS.sequential)[:, 0]]
    for row in range(5):
        length = int(THERE[row].sum())
        choices = [np.zeros(E)] + [
            entries[row, :length][[bool(mask >> i & 1) for i in range(length)]].mean(axis=0)
            for mask in range(1, 1 << length)
        ]
        for m in range(M):
            assert min(np.abs(choice - found[m, row]).max() for choice in choices) < 1e-5


def test_every_switch_touches_its_own_kind_alone() -> None:
    parts = {"statistical": slice(0, 2 * E), "categorical": slice(2 * E, 4 * E), "sequential": slice(4 * E, 5 * E)}
    off = {"statistical": "none", "categorical": "none", "sequential": "none"}
    for kind, law in (("statistical", "jitter"), ("categorical", "element"), ("sequential", "mask")):
        changed = drawn(AugmentationConfig.model_validate({**off, kind: law})) != CLEAN
        assert changed[..., parts[kind]].any()
        changed[..., parts[kind]] = False
        assert not changed.any()


def test_only_the_chosen_fields_are_augmented() -> None:
    chosen = replace(
        OF, statistical=np.array([False, True]), categorical=np.array([True, False]), sequential=np.zeros(1, bool)
    )
    changed = (drawn(AugmentationConfig(p=0.5), of=chosen) != CLEAN).any(axis=(0, 1))
    assert changed.reshape(-1)[: 5 * E].reshape(5, E).any(axis=1).tolist() == [False, True, True, False, False]


def test_copies_rows_and_steps_draw_alone() -> None:
    first, second = drawn(AugmentationConfig()), drawn(AugmentationConfig(), step=1)
    assert (first[0] != first[1]).any()
    assert (first != second).any()
    np.testing.assert_array_equal(first, drawn(AugmentationConfig()))


def test_the_numbers_behind_it_look_random() -> None:
    words = np.asarray(draws.bits(KEY, (200_000,)))
    halves = np.stack([words >> 16, words & 0xFFFF]) / 65_536
    assert halves.mean(axis=1) == pytest.approx(0.5, abs=0.003)
    assert halves.var(axis=1) == pytest.approx(1 / 12, abs=0.002)
    other = np.asarray(draws.bits(draws.stream(KEY, 1), (200_000,))) / 2**32
    for pair in ((halves[0], halves[1]), (halves[0][1:], halves[0][:-1]), (halves[0], other)):
        assert abs(np.corrcoef(*pair)[0, 1]) < 0.01
    normal = np.asarray(draws.normals(KEY, (99_999,)), np.float64)
    assert normal.mean() == pytest.approx(0.0, abs=0.015)
    assert normal.var() == pytest.approx(1.0, abs=0.02)
    assert (normal**4).mean() == pytest.approx(3.0, abs=0.15)
