"""The worlds of the temporal benchmark: what shifts in them, and what must not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks._temporal_diginetica import STATISTICS, DigineticaSessions
from benchmarks._temporal_generator import DAILY, ITEM_STATISTICS, SLOW, STILL, GeneratedSessions, World
from training.sessions import Sessions, SessionSource
from training.sessions.metrics import auc
from training.sessions.shift import analyse

DATA = Path(__file__).parents[4] / "shared" / "data" / "temporal" / "diginetica.npz"


def joined(source: SessionSource, day: int, sessions: int) -> dict[str, list[object]]:
    """Return every column of a day, user columns by row."""
    columns: dict[str, list[object]] = {}
    for chunk in source.read(day, sessions):
        assert 0 <= chunk.session.max() < sessions
        for name, column in chunk.user.items():
            columns.setdefault(name, []).extend(column[chunk.session].tolist())
        for name, column in [*chunk.item.items(), ("label", chunk.labels[:, 0])]:
            columns.setdefault(name, []).extend(np.nan_to_num(column, nan=-1.0).tolist())
    return columns


def only(source: GeneratedSessions, day: int) -> Sessions:
    return next(source.read(day, source.world.sessions))


def test_a_generated_day_is_the_same_however_often_and_in_whatever_parts_it_is_read() -> None:
    source, again = (GeneratedSessions(3, World(sessions=100)) for _ in range(2))
    assert joined(source, 5, 7) == joined(source, 5, 100) == joined(again, 5, 100)
    assert joined(source, 5, 100) != joined(GeneratedSessions(4, World(sessions=100)), 5, 100)


def test_labels_depend_on_the_stable_content_alone_and_statistics_only_seem_to_tell() -> None:
    source = GeneratedSessions(0)
    known, seeming = [], []
    for day in source.days():
        truth, y = source.truth(day), only(source, day).labels[:, 0]
        # Given the probability, which is of c alone, neither e nor the day tells anything of the label.
        residual = y - truth.probability
        deviation = np.sqrt((truth.probability * (1.0 - truth.probability)).sum())
        known += [residual.sum() / deviation]
        for e in (truth.user_factor, truth.item_factor):
            variance = (e**2 * truth.probability * (1.0 - truth.probability)).sum()
            known.append((residual * e).sum() / np.sqrt(variance))
        seeming.append(auc(y, truth.item_factor) - 0.5)
    assert np.abs(known).max() < 4.0  # 60 standard normal scores
    assert np.corrcoef(seeming, source.rho[:, 1])[0, 1] > 0.95
    assert max(seeming) > 0.08
    assert min(seeming) < -0.08


def test_shifting_statistics_move_and_jump_on_sale_days_and_stable_ones_stay() -> None:
    source = GeneratedSessions(1)
    medians = {
        name: np.array([np.median(np.log(only(source, day).item[name])) for day in source.days()])
        for name in ITEM_STATISTICS
    }
    for name, shifts in ITEM_STATISTICS.items():
        moved = np.ptp(medians[name])
        assert (moved > 1.0) if shifts else (moved < 0.3), name
        if shifts:
            for day in source.world.sale_days:
                assert medians[name][day] - medians[name][[day - 1, day + 1]].mean() > 0.8, name


def test_what_a_shifting_statistic_tells_is_an_accident_of_the_day_or_lasts() -> None:
    neighbours = {}
    for name, world in (("daily", DAILY), ("slow", SLOW)):
        rho = np.concatenate([GeneratedSessions(seed, replace(world, sale_days=())).rho for seed in range(20)], axis=1)
        neighbours[name] = float((rho[1:] * rho[:-1]).mean() / (rho**2).mean())
    assert neighbours["daily"] == pytest.approx(0.0, abs=0.15)  # at least 760 pairs: 4 standard deviations
    assert neighbours["slow"] > 0.5


def test_content_is_how_much_of_a_shifting_statistic_is_stable() -> None:
    def variances(content: float) -> dict[str, float]:
        day = only(GeneratedSessions(1, replace(STILL, content=content, noise=0.0)), 5)
        first = np.unique(day.item["item_id"], return_index=True)[1]
        return {name: float(np.log(day.item[name][first]).var()) for name in ITEM_STATISTICS}

    whole, part = variances(1.0), variances(0.3)
    for name, shifts in ITEM_STATISTICS.items():
        assert part[name] == pytest.approx(whole[name] * (0.09 if shifts else 1.0)), name


def test_what_is_proposed_for_augmentation_is_what_shifts() -> None:
    source = GeneratedSessions(0, replace(DAILY, days=8, sale_days=(6,)))
    assert set(analyse(source, reference="previous").augment) == set(source.shifting)


def test_a_world_at_rest_does_not_shift() -> None:
    rest = World(drift=0.0, wave=0.0, spread=0.0, sale_jump=0.0, trend=0.0, churn=0.0)
    source = GeneratedSessions(1, rest)
    medians = [np.median(np.log(only(source, day).item["views_7d"])) for day in (0, 11, 19)]
    assert np.ptp(medians) < 0.1


@pytest.fixture(scope="module")
def diginetica() -> DigineticaSessions:
    if not DATA.exists():
        pytest.skip(f"no {DATA}: the log is not given")
    return DigineticaSessions(seed=0, share=0.02, path=DATA)


def test_a_group_has_the_next_item_eleven_others_and_the_session_so_far(diginetica: DigineticaSessions) -> None:
    with np.load(DATA) as log:
        session, item, period = log["session"], log["item"], log["period"]
    steps: set[tuple[tuple[int, ...], int]] = set()
    for number in np.unique(session[period == 4]):
        views = item[(period == 4) & (session == number)].tolist()
        steps |= {(tuple(views[max(0, i - 20) : i]), views[i]) for i in range(1, len(views))}
    for chunk in diginetica.read(4, 50):
        shown = chunk.item["item_id"].reshape(-1, 12)
        label = chunk.labels.reshape(-1, 12)
        assert (label.sum(axis=1) == 1.0).all()
        positive = shown[label == 1.0]
        assert (shown == positive[:, None]).sum() == len(shown)
        for recent, position, target in zip(chunk.user["recent"], chunk.user["position"], positive, strict=True):
            assert (tuple(recent[recent >= 0].tolist()), int(target)) in steps
            assert (recent >= 0).sum() == min(position, 20)


def test_statistics_are_of_earlier_periods_alone(diginetica: DigineticaSessions, tmp_path: Path) -> None:
    with np.load(DATA) as log:
        arrays = dict(log)
    views = np.zeros((17, arrays["item"].max() + 1))
    np.add.at(views, (arrays["period"], arrays["item"]), 1.0)
    chunk = next(diginetica.read(5, 200))
    ids = chunk.item["item_id"]
    assert chunk.item["views_1"].tolist() == views[4, ids].tolist()
    assert chunk.item["views_3"].tolist() == pytest.approx(views[2:5, ids].mean(axis=0).tolist())
    assert chunk.item["views_7"].tolist() == pytest.approx(views[:5, ids].mean(axis=0).tolist())
    first = np.argmax(views[:5] > 0.0, axis=0)[ids]
    assert chunk.item["age"].tolist() == pytest.approx(
        np.where(views[:5, ids].any(axis=0), 5.0 - first, np.nan).tolist(), nan_ok=True
    )
    # Without the periods from 5 on, what is known of a period-4 row is the same.
    kept = arrays["period"] <= 4
    np.savez(tmp_path / "cut.npz", **{name: column[kept] for name, column in arrays.items()})
    cut = DigineticaSessions(seed=0, share=0.02, path=tmp_path / "cut.npz")
    table, whole = cut._statistics(4), diginetica._statistics(4)
    assert np.array_equal(table, whole[: len(table)], equal_nan=True)


def test_negatives_are_half_uniform_and_half_popular(diginetica: DigineticaSessions) -> None:
    columns = [(chunk.item["views_7"], chunk.labels[:, 0]) for chunk in diginetica.read(9, 500)]
    views, label = (np.concatenate(column) for column in zip(*columns, strict=True))
    assert len(STATISTICS) == len(diginetica.item) - 1
    # Views of a popular draw are weighted by views: E[v^2] / E[v]; of a uniform one E[v].
    table = diginetica._views[2:9].mean(axis=0)[1:]
    total = diginetica._views[:9].sum(axis=0)[1:]
    expected = 0.5 * table.mean() + 0.5 * (table * total).sum() / total.sum()
    assert views[label == 0.0].mean() == pytest.approx(expected, rel=0.03)
