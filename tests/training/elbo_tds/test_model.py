"""The model over time, on a tiny shop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from engine.errors import ConfigError, SnapshotError
from engine.recommender.fields import SIDES
from engine.recommender.two_tower import TwoTower
from tests.training.elbo_tds.shop import TINY, Shop
from training.elbo_tds import draws
from training.elbo_tds.batches import Batch, Batcher, Encoded, padded
from training.elbo_tds.config import AugmentationConfig, ElboTdsConfig, PenaltyConfig
from training.elbo_tds.embeddings import rows_at
from training.elbo_tds.model import ElboTds, side_fields
from training.elbo_tds.towers import Parameters
from training.elbo_tds.train_step import Structure, loss
from training.sessions.metrics import auc

SHOP = Shop()
CONTROL = TINY.model_copy(update={"alpha": 0.0})


def model(config: ElboTdsConfig = TINY, days: int = 1) -> ElboTds:
    made = ElboTds(config, SHOP.user, SHOP.item, SHOP.tasks)
    for day in range(days):
        made.learn([SHOP.whole(day)])
    return made


@pytest.fixture(scope="module")
def learned() -> ElboTds:
    return model(days=2)


def gradients(config: ElboTdsConfig) -> Callable[[float], list[np.ndarray]]:
    """Return the gradients by alpha of a loss in which every term is computed, whatever its weight is."""
    made = model(days=0)
    made.extend([SHOP.whole(0)])
    batch, key = batch_of(made), jnp.asarray(draws.key_of(0, 0))
    structure = Structure.of(config, made.network, 2, *sides(made))
    active = rows_at(made._codes, batch.active).rows

    def total(parameters: dict[str, Any], active: jax.Array, alpha: float) -> jax.Array:
        return loss(structure, parameters, active, batch, key, alpha, 0.0)[0]

    of = jax.jit(jax.grad(total, argnums=(0, 1)))
    return lambda alpha: [np.asarray(leaf) for leaf in jax.tree.leaves(of(made._state.parameters, active, alpha))]


def sides(made: ElboTds) -> list[tuple[tuple[int, ...], ...]]:
    return [side_fields(made.config, made.space, side) for side in SIDES]


def batch_of(made: ElboTds) -> Batch:
    return Batcher(made.space, made._layout, 16).batch([Encoded.of(made.space, SHOP.whole(0)).part(0, 16)])


def test_alpha_0_gives_the_gradients_of_the_control() -> None:
    full, control = gradients(TINY), gradients(CONTROL)
    for with_terms, without in zip(full(0.0), control(0.0), strict=True):
        np.testing.assert_allclose(with_terms, without, atol=1e-7)
    assert all((a != b).any() for a, b in zip(full(1.0)[:3], full(0.0)[:3], strict=True))


def test_control_and_full_model_start_alike() -> None:
    full, control = (model(config, days=0) for config in (TINY, CONTROL))
    for made in (full, control):
        made.extend([SHOP.whole(0)])
    np.testing.assert_array_equal(full.score(SHOP.whole(0)), control.score(SHOP.whole(0)))


def test_the_served_model_scores_as_the_trained_one(learned: ElboTds) -> None:
    chunk = SHOP.whole(2)
    served = TwoTower.from_arrays(learned.two_tower().arrays())
    users = served.user_vectors(learned.space.encode("user", chunk.user))
    items = served.item_vectors(learned.space.encode("item", chunk.item))
    rows = [served.logits(users[s], items[[n]])[0] for n, s in enumerate(chunk.session)]
    np.testing.assert_allclose(rows, learned.score(chunk), atol=1e-5)


def test_scores_are_the_same_again_and_however_the_day_is_cut(learned: ElboTds) -> None:
    whole = learned.score(SHOP.whole(2))
    np.testing.assert_array_equal(whole, learned.score(SHOP.whole(2)))
    parts = np.concatenate([learned.score(chunk) for chunk in SHOP.read(2, 24)])
    np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_scoring_needs_neither_decoder_nor_draws(learned: ElboTds, monkeypatch: pytest.MonkeyPatch) -> None:
    served = learned.two_tower()
    assert not any("decoder" in name for name in served.arrays())

    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(draws, "bits", never)
    expected = learned.score(SHOP.whole(2))
    forget: Any = jax.clear_caches
    forget()
    np.testing.assert_allclose(learned.score(SHOP.whole(2)), expected, atol=1e-6)


def test_before_the_first_day_scores_are_0_and_there_is_nothing_to_serve() -> None:
    made = model(days=0)
    assert not made.score(SHOP.whole(0)).any()
    with pytest.raises(ConfigError, match="no day was learned"):
        made.two_tower()


def test_it_learns_what_decides_a_click() -> None:
    shop = Shop(days=2, sessions=512)
    made = ElboTds(CONTROL, shop.user, shop.item, shop.tasks)
    made.extend([shop.whole(0)])
    for _ in range(20):
        made.train(shop.whole(0))
    chunk = shop.whole(1)
    assert auc(chunk.labels[:, 0], made.score(chunk)[:, 0]) > 0.62


def test_the_same_seed_gives_the_same_model_and_another_seed_another(learned: ElboTds) -> None:
    again, other = model(days=2), model(TINY.model_copy(update={"seed": 1}), days=2)
    assert all(np.array_equal(array, again.arrays()[name]) for name, array in learned.arrays().items())
    assert not np.array_equal(again.two_tower().codes, other.two_tower().codes)


def test_new_categories_get_codes_and_old_ones_keep_their_embeddings() -> None:
    made = model(days=1)
    before = made.two_tower()
    scores = made.score(SHOP.whole(0))
    made.extend([SHOP.whole(1)])
    after = made.two_tower()
    assert len(made.space.vocabularies["item_id"]) > before.item.categorical.size[0] - 2
    assert after.item.categorical.size[0] > before.item.categorical.size[0]
    np.testing.assert_array_equal(scores, made.score(SHOP.whole(0)))


def spreads(config: ElboTdsConfig, steps: int = 300) -> tuple[float, float]:
    """Return the mean variance of mu over rows, and of mu over copies, after training without labels."""
    made = model(config, days=0)
    made.extend([SHOP.whole(0)])
    # Labels that ask for nothing but a logit of 0: what is learned is the self-supervised terms' doing.
    batch = batch_of(made)._replace(labels=jnp.full((64, 2), 0.5))
    for _ in range(steps):
        made.take_step(batch)
    losses = made.losses()
    served = made.two_tower()
    x = served.item.inputs(made.space.encode("item", SHOP.whole(0).item), served.buckets, served.codes)
    assert served.item.encoder is not None
    mean = x @ served.item.encoder[0] + served.item.encoder[1]
    return float(mean.var(axis=0).sum()), losses["item/prior"]


def test_reconstruction_keeps_latents_apart_and_without_it_they_collapse() -> None:
    base = TINY.model_copy(
        update={"alpha": 3.0, "noise": "expected", "augmentation": AugmentationConfig(p=0.5), "user_draws": "session"}
    )
    floor = 8 * (1 - 1 / 3)  # what the noise alone adds to the prior term
    kept, _ = spreads(base)
    fallen, prior = spreads(base.model_copy(update={"reconstruction": False}))
    assert kept > 0.3
    assert fallen < 0.1 * kept
    assert prior - floor < 0.2


@pytest.mark.parametrize(
    "changes",
    [
        {"variance": "learned", "user_draws": "session", "noise": "expected", "target": "clean"},
        {"alpha": 0.0, "predict": "copies"},
        {"alpha": 0.0, "bottleneck": False, "penalty": PenaltyConfig(kind="irm", sessions=32)},
        {"alpha": 0.0, "penalty": PenaltyConfig(kind="vrex", sessions=32)},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_every_variant_trains_and_is_served(changes: dict[str, object]) -> None:
    made = model(ElboTdsConfig.model_validate({**TINY.model_dump(), **changes}), days=2)
    losses = made.losses()
    assert all(np.isfinite(list(losses.values())))
    if made.config.penalty is not None:
        assert losses["penalty"] > 0.0
    if made.config.variance == "learned":
        assert losses["item/entropy"] != 0.0
    again = ElboTds(made.config, SHOP.user, SHOP.item, SHOP.tasks)
    again.restore(made.arrays())
    for each in (made, again):
        each.learn([SHOP.whole(2)])
    np.testing.assert_array_equal(made.score(SHOP.whole(1)), again.score(SHOP.whole(1)))


def test_the_expected_terms_are_the_mean_of_the_sampled_ones() -> None:
    made = model(days=0)
    made.extend([SHOP.whole(0)])
    batch, parameters = batch_of(made), made._state.parameters
    active = jnp.ones((len(batch.active), 4)) * 0.1
    still = AugmentationConfig(statistical="none", categorical="none", sequential="none")

    def terms(noise: str, keys: int) -> np.ndarray:
        config = TINY.model_copy(update={"noise": noise, "augmentation": still})
        structure = Structure.of(config, made.network, 2, *sides(made))
        of = jax.jit(jax.vmap(lambda key: loss(structure, parameters, active, batch, key, 1.0, 0.0)[1]))
        found = np.asarray(of(jnp.stack([jnp.asarray(draws.key_of(1, step)) for step in range(keys)])))
        return np.asarray(found.mean(axis=0))

    np.testing.assert_allclose(terms("sampled", 400), terms("expected", 1), rtol=0.02)


class Bilinear:
    """A network of one's own: a linear map without activation."""

    def init(self, rng: np.random.Generator, inputs: int, tasks: int) -> Parameters:
        return {"A": (0.1 * rng.normal(size=(inputs, tasks * 3))).astype(np.float32)}

    def apply(self, parameters: Parameters, mean: jax.Array, tasks: int) -> jax.Array:
        return jnp.reshape(mean @ parameters["A"], (*mean.shape[:-1], tasks, 3))


def test_any_network_can_be_plugged_in_but_only_layers_are_served() -> None:
    made = ElboTds(TINY, SHOP.user, SHOP.item, SHOP.tasks, network=Bilinear())
    made.learn([SHOP.whole(0)])
    assert made.score(SHOP.whole(1)).std() > 0.0
    with pytest.raises(ConfigError, match="Bilinear cannot be served"):
        made.two_tower()


def test_padding_changes_nothing() -> None:
    """A batch with room to spare gives the loss of one without."""
    made = model(days=0)
    made.extend([SHOP.whole(0)])
    part = Encoded.of(made.space, SHOP.whole(0)).part(0, 16)
    structure = Structure.of(CONTROL, made.network, 2, *sides(made))
    values = []
    for sessions in (16, 40):
        batch = Batcher(made.space, made._layout, sessions).batch([part])
        active = rows_at(made._codes, batch.active).rows
        key = jnp.zeros(2, jnp.uint32)
        total, _ = jax.jit(loss, static_argnums=0)(structure, made._state.parameters, active, batch, key, 0.0, 0.0)
        values.append(float(total))
    assert values[0] == pytest.approx(values[1], rel=1e-6)
    assert padded(len(part.session)) == 64


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"alpha": 0.1, "bottleneck": False}, "alpha is 0.1 but bottleneck is off"),
        ({"reconstruction": False, "prior": False}, "reconstruction and prior are both off"),
        ({"alpha": 0.0, "variance": "learned"}, "nothing would train it"),
        ({"copies": 1}, "greater than or equal to 2"),
        ({"alpha": 0.0, "predict": "copies", "penalty": {"kind": "irm"}}, "use predict: clean"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ElboTdsConfig.model_validate(settings)


def test_a_field_to_augment_that_is_not_there_is_refused() -> None:
    config = TINY.model_copy(update={"augmentation": AugmentationConfig(fields=("prise",))})
    with pytest.raises(ConfigError, match=r"'prise' is no field; there are: age, taste"):
        model(config)


def test_a_checkpoint_of_another_model_is_refused(learned: ElboTds) -> None:
    other = ElboTds(TINY.model_copy(update={"latent": 9}), SHOP.user, SHOP.item, SHOP.tasks)
    with pytest.raises(SnapshotError, match=r"shape .* not"):
        other.restore(learned.arrays())
