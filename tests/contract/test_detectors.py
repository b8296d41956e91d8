"""What every change detector owes, whichever it is. A new one is found by itself."""

from __future__ import annotations

import importlib
import importlib.util
import math
import pkgutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import monitoring
from engine.errors import SnapshotError
from monitoring.bocpd import BOCPD
from monitoring.detector import Change, Detector, SavedDetector
from monitoring.detectors import DETECTORS
from monitoring.rbocpd import RBOCPD
from monitoring.weights import AnytimeWeight, InverseLengthWeight, ShapedWeight

#: So eager that short random streams restart several times.
EAGER = ShapedWeight(scale=0.05, exponent=0.5)
#: Detectors of each kind: as they are by default, and eager or bounded ones for streams of a hundred observations.
FORMS: dict[str, dict[str, Callable[[Any], Detector]]] = {
    "rbocpd": {
        "default": lambda kind: kind(),
        "hull": lambda kind: kind(EAGER, max_candidates=8),
        "octaves": lambda kind: kind(EAGER, candidates="octaves", per_octave=2),
        "all": lambda kind: kind(InverseLengthWeight(), candidates="all", reseed=False),
        "kt": lambda kind: kind(EAGER, predictor="kt"),
        "anytime": lambda kind: kind(AnytimeWeight(0.9)),
        "K=4": lambda kind: kind(ShapedWeight(0.02, 1.5), categories=4),
    },
    "bocpd": {
        "default": lambda kind: kind(),
        "eager": lambda kind: kind(0.1, max_runs=8),
        "K=4": lambda kind: kind(0.1, categories=4, max_runs=16),
    },
    "adwin": {"default": lambda kind: kind(), "eager": lambda kind: kind(0.9, clock=1)},
    "page_hinkley": {"default": lambda kind: kind(), "eager": lambda kind: kind(0.0, 3.0)},
}
NEED_RIVER = {"adwin", "page_hinkley"}
RIVER = importlib.util.find_spec("river") is not None


def cases(*kinds: str) -> pytest.MarkDecorator:
    """The forms of detectors of these kinds, as a parameter ``make``."""
    skipped = pytest.mark.skipif(not RIVER, reason="river is not installed: the extra drift-peers")
    return pytest.mark.parametrize(
        "make",
        [
            pytest.param(
                lambda kind=kind, form=form: FORMS[kind][form](DETECTORS[kind]),
                id=f"{kind}-{form}",
                marks=[skipped] if kind in NEED_RIVER else [],
            )
            for kind in kinds
            for form in FORMS.get(kind, {"default": lambda kind: kind()})
        ],
    )


every_detector = cases(*DETECTORS)
every_saved_detector = cases(*(kind for kind in DETECTORS if kind not in NEED_RIVER))
#: A stream in [0, 1) that each detector reads in its own way, with changes of level.
streams = st.builds(
    lambda seed, lengths: np.concatenate(
        [np.random.default_rng([seed, n]).random(length) ** (1 + 5 * (n % 2)) for n, length in enumerate(lengths)]
    ),
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 60), min_size=1, max_size=3),
)


def read(detector: Detector, stream: NDArray[np.float64]) -> list[float]:
    k = detector.categories
    values: list[float] = (np.round(stream, 3) if k is None else np.floor(stream * k)).tolist()
    return values


def state(detector: Detector) -> object:
    """What can be seen of a detector: all of it where it can be saved."""
    if isinstance(detector, SavedDetector):
        return detector.save()
    return (detector.seen, detector.run_start, detector.run_length, detector.forecasters, list(detector.starts))


def one_by_one(detector: Detector, xs: list[float]) -> list[Change]:
    return [change for x in xs if (change := detector.update(x)) is not None]


def test_every_detector_of_the_package_is_in_the_table_under_its_name() -> None:
    found = set()
    for module in pkgutil.walk_packages(monitoring.__path__, "monitoring."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and "kind" in vars(value) and "update" in dir(value):
                found.add(value)
    assert found == set(DETECTORS.values())
    assert all(detector.kind == kind for kind, detector in DETECTORS.items())
    assert set(DETECTORS) > NEED_RIVER


@every_detector
def test_it_speaks_the_protocol_from_the_first_moment(make: Callable[[], Detector]) -> None:
    detector = make()
    assert isinstance(detector, Detector)
    assert (detector.seen, detector.run_start, detector.run_length) == (0, 0, 0)
    assert detector.update_many([]) == []


@every_saved_detector
def test_it_can_be_saved_from_the_first_moment(make: Callable[[], SavedDetector]) -> None:
    detector = make()
    assert isinstance(detector, SavedDetector)
    again = type(detector).load(detector.save())
    assert again.save() == detector.save()


@every_detector
@settings(max_examples=12, deadline=None)
@given(stream=streams, data=st.data())
def test_a_batch_in_any_split_is_one_by_one(
    make: Callable[[], Detector], stream: NDArray[np.float64], data: st.DataObject
) -> None:
    single, batch = make(), make()
    xs = read(single, stream)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(xs)), max_size=4)))
    found = [c for a, b in zip([0, *cuts], [*cuts, len(xs)], strict=True) for c in batch.update_many(xs[a:b])]
    assert found == one_by_one(single, xs)
    assert state(batch) == state(single)


@every_saved_detector
@settings(max_examples=12, deadline=None)
@given(stream=streams, data=st.data())
def test_a_restore_in_mid_stream_changes_nothing(
    make: Callable[[], SavedDetector], stream: NDArray[np.float64], data: st.DataObject
) -> None:
    kept = make()
    xs = read(kept, stream)
    cut = data.draw(st.integers(0, len(xs)))
    one_by_one(kept, xs[:cut])
    restored = type(kept).load(kept.save())
    assert restored.save() == kept.save()
    assert one_by_one(restored, xs[cut:]) == one_by_one(kept, xs[cut:])
    assert restored.save() == kept.save()
    assert (restored.seen, restored.run_start, restored.forecasters) == (kept.seen, kept.run_start, kept.forecasters)


@every_detector
@settings(max_examples=12, deadline=None)
@given(stream=streams)
def test_the_same_stream_gives_the_same_changes_and_they_are_sound(
    make: Callable[[], Detector], stream: NDArray[np.float64]
) -> None:
    detector, again = make(), make()
    xs = read(detector, stream)
    for position, x in enumerate(xs):
        start = detector.run_start
        change = detector.update(x)
        assert change == again.update(x)
        assert detector.seen == position + 1
        assert detector.starts[0] == detector.run_start
        assert list(detector.starts) == sorted(set(detector.starts))
        assert detector.forecasters == len(detector.starts)
        assert detector.most_forecasters is None or detector.forecasters <= detector.most_forecasters
        if change is None:
            assert detector.run_start == start
            continue
        assert 0.0 < change.evidence < math.inf
        assert start < change.index <= change.detected == position
        assert change.count_before == change.index - start
        assert change.count_after == position - change.index + 1
        assert change.mean_before == pytest.approx(np.mean(xs[start : change.index]))
        assert change.mean_after == pytest.approx(np.mean(xs[change.index : position + 1]))
        assert detector.run_start in (change.index, position + 1)
        if change.counts_before:
            assert sum(change.counts_before) == change.count_before
            assert sum(change.counts_after) == change.count_after


@every_detector
def test_a_plain_change_is_found_and_a_constant_stream_is_none(make: Callable[[], Detector]) -> None:
    detector = make()
    top = 1 if detector.categories is None else detector.categories - 1
    assert detector.update_many([0] * 400) == []
    change = detector.update_many([top] * 400)[0]
    assert 400 <= change.detected < 480
    if detector.categories is not None:  # ADWIN cuts where a bucket ends
        assert abs(change.index - 400) <= 3
    assert change.mean_before < change.mean_after


@every_detector
@pytest.mark.parametrize("wrong", [-1, 7, 0.5, math.nan, math.inf])
def test_what_is_no_observation_is_refused_and_changes_nothing(make: Callable[[], Detector], wrong: float) -> None:
    detector = make()
    if detector.categories is None and wrong == 0.5:
        return
    detector.update_many([0, 1, 1, 0])
    before = state(detector)
    with pytest.raises(ValueError, match=r"observation must be .*, got"):
        detector.update(wrong)
    with pytest.raises(ValueError, match=r"observation must be .*, got"):
        detector.update_many([1, 0, wrong, 1])
    assert state(detector) == before


@every_saved_detector
def test_damaged_and_foreign_states_are_refused(make: Callable[[], SavedDetector]) -> None:
    detector = make()
    detector.update_many([0, 1] * 30)
    data = detector.save()
    for broken in (b"", data[:-3], data[:20] + bytes([data[20] ^ 1]) + data[21:]):
        with pytest.raises(SnapshotError, match="start anew"):
            type(detector).load(broken)
    other = BOCPD() if isinstance(detector, RBOCPD) else RBOCPD()
    with pytest.raises(SnapshotError, match="start anew"):
        type(detector).load(other.save())


@pytest.mark.skipif(not RIVER, reason="river is not installed: the extra drift-peers")
@pytest.mark.parametrize("kind", sorted(NEED_RIVER))
def test_what_only_a_pickle_could_keep_is_not_saved(kind: str) -> None:
    detector = DETECTORS[kind]()
    assert not isinstance(detector, SavedDetector)
    assert not hasattr(detector, "save")


@pytest.mark.skipif(RIVER, reason="river is installed")
@pytest.mark.parametrize("kind", sorted(NEED_RIVER))
def test_without_river_its_detectors_say_what_to_install(kind: str) -> None:
    with pytest.raises(ImportError, match="drift-peers"):
        DETECTORS[kind]()
