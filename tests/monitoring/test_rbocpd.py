from __future__ import annotations

import math
import os
import subprocess
import sys
from fractions import Fraction
from statistics import median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import SnapshotError
from monitoring.budget import Budget
from monitoring.rbocpd import RBOCPD
from monitoring.rbocpd.scan import Candidates, Predictor
from monitoring.state import encode
from monitoring.weights import AnytimeWeight, AnyWeight, InverseLengthWeight, ShapedWeight, TheoremWeight
from tests.monitoring.reference import SlowRBOCPD

#: So eager that random streams of a hundred observations restart several times.
EAGER = ShapedWeight(scale=0.05, exponent=0.5)
BITS = st.lists(st.integers(0, 1), min_size=1, max_size=120)
WEIGHTS = [
    EAGER,
    ShapedWeight(1e-4, 2.0),
    ShapedWeight(1e-3),
    ShapedWeight(1e-3, 0.5, knee=4.0, late_exponent=2.5, ceiling=12.0),
    InverseLengthWeight(),
    InverseLengthWeight(0.1),
    AnytimeWeight(0.999),
    AnytimeWeight(0.05),
    TheoremWeight(0.9),
]


def stream(seed: int, *pieces: tuple[float, int]) -> list[int]:
    """Zeros and ones of piecewise constant rate: (rate, length), ..."""
    rng = np.random.default_rng(seed)
    return [int(u < rate) for rate, length in pieces for u in rng.random(length)]


def symbols(seed: int, *pieces: tuple[list[float], int]) -> list[int]:
    """Categories of piecewise constant chances."""
    rng = np.random.default_rng(seed)
    return [int(x) for p, length in pieces for x in rng.choice(len(p), length, p=p)]


def follows(fast: RBOCPD, slow: SlowRBOCPD, xs: list[int]) -> None:
    for x in xs:
        change, expected = fast.update(x), slow.update(x)
        assert (change and change.index) == expected
        if change is None:
            assert fast.statistic() == pytest.approx(slow.statistic, abs=1e-10)
        else:
            assert change.evidence == pytest.approx(slow.statistic, abs=1e-10)
        assert fast.run_start == slow.start


@pytest.mark.parametrize("weight", WEIGHTS, ids=repr)
@pytest.mark.parametrize("categories", [2, 5])
@pytest.mark.parametrize("predictor", ["laplace", "kt"])
def test_statistic_and_restarts_are_those_of_the_definition(
    weight: AnyWeight, categories: int, predictor: Predictor
) -> None:
    if predictor == "kt" and isinstance(weight, AnytimeWeight | TheoremWeight):
        with pytest.raises(ValueError, match="laplace"):
            RBOCPD(weight, predictor=predictor)
        return
    rest = [0.05 / (categories - 1)] * (categories - 1)
    pieces = [([1 / categories] * categories, 40), ([0.95, *rest], 30), ([*rest, 0.95], 30)]
    for seed, reseed in ((0, True), (1, False)):
        fast = RBOCPD(weight, categories, predictor, "all", reseed=reseed)
        slow = SlowRBOCPD(weight, categories, 1.0 if predictor == "laplace" else 0.5, reseed)
        follows(fast, slow, symbols(seed, *pieces))


@settings(max_examples=40, deadline=None)
@given(BITS, st.sampled_from(WEIGHTS[:4]))
def test_definition_holds_for_any_stream(xs: list[int], weight: AnyWeight) -> None:
    fast, slow = RBOCPD(weight, candidates="all"), SlowRBOCPD(weight)
    assert [c and c.index for c in map(fast.update, xs)] == [slow.update(x) for x in xs]


def test_a_change_reports_both_sides() -> None:
    (change,) = RBOCPD().update_many([1] * 300 + [0] * 60)
    assert (change.index, change.count_before, change.mean_before, change.mean_after) == (300, 300, 1.0, 0.0)
    assert change.count_after == change.detected - change.index + 1
    assert (change.counts_before, change.counts_after) == ((0, 300), (change.count_after, 0))
    assert change.evidence > 0.0


def test_categories_are_counted_on_both_sides() -> None:
    (change,) = RBOCPD(categories=3).update_many(symbols(0, ([0.5, 0.4, 0.1], 800), ([0.1, 0.1, 0.8], 60)))
    assert abs(change.index - 800) <= 3
    before, after = np.array(change.counts_before), np.array(change.counts_after)
    assert (before.sum(), after.sum()) == (change.count_before, change.count_after)
    assert before / before.sum() == pytest.approx([0.5, 0.4, 0.1], abs=0.05)
    assert after.argmax() == 2
    assert change.mean_before == pytest.approx(before @ [0, 1, 2] / before.sum())


@pytest.mark.parametrize("candidates", ["all", "octaves"])
def test_new_segment_is_the_one_of_a_detector_that_began_at_the_change(candidates: Candidates) -> None:
    xs = stream(3, (0.9, 500), (0.3, 200))
    detector, fresh = RBOCPD(candidates=candidates), RBOCPD(candidates="all")
    change = next(c for c in map(detector.update, xs) if c is not None)
    assert fresh.update_many(xs[change.index : change.detected + 1]) == []
    assert detector.run_length == change.count_after == fresh.run_length
    assert detector.statistic() == pytest.approx(fresh.statistic(), abs=1e-12)
    for x in xs[change.detected + 1 :][:20]:
        assert detector.update(x) is fresh.update(x) is None
        assert detector.statistic() == pytest.approx(fresh.statistic(), abs=1e-12)


def test_without_re_seeding_the_new_segment_begins_empty() -> None:
    detector = RBOCPD(reseed=False)
    (change,) = detector.update_many([1] * 200 + [0] * 5)
    assert detector.run_start == change.detected + 1 > change.index
    assert detector.run_length == 205 - detector.run_start


@pytest.mark.parametrize(("rates", "length"), [((0.5, 0.9, 0.4), 700), ((0.01, 0.05, 0.01), 1500), ((0.5,), 3000)])
@pytest.mark.parametrize("weight", [None, InverseLengthWeight(), ShapedWeight(1e-6, 2.0)], ids=repr)
def test_hull_raises_the_alarms_of_the_exact_scan(
    rates: tuple[float, ...], length: int, weight: AnyWeight | None
) -> None:
    """As in the paper, without re-seeding: then the hull loses nothing."""
    for seed in range(3):
        xs = stream(seed, *((rate, length) for rate in rates))
        exact = RBOCPD(weight, candidates="all", reseed=False).update_many(xs)
        hull = RBOCPD(weight, candidates="hull", reseed=False).update_many(xs)
        assert [(c.index, c.detected) for c in hull] == [(c.index, c.detected) for c in exact]


def test_hull_with_re_seeding_misses_little() -> None:
    """Of the observations since a change only those on the old hull remain candidates."""
    same = 0
    for seed in range(12):
        xs = stream(seed, (0.5, 600), (0.8, 300), (0.3, 300))
        exact, hull = RBOCPD(candidates="all").update_many(xs), RBOCPD().update_many(xs)
        same += [c.detected for c in exact] == [c.detected for c in hull]
    assert same >= 11


@settings(max_examples=60, deadline=None)
@given(BITS, st.sampled_from(["hull", "octaves"]), st.booleans())
def test_bounded_detector_never_alarms_before_the_exact_one(
    xs: list[int], candidates: Candidates, narrow: bool
) -> None:
    exact = RBOCPD(EAGER, candidates="all")
    bounded = RBOCPD(EAGER, candidates=candidates, max_candidates=8 if narrow else 128, per_octave=2)
    for x in xs:
        early = bounded.update(x)
        if exact.update(x) is not None:
            return  # from here on the two look at different segments
        assert early is None
        assert bounded.statistic() <= exact.statistic() + 1e-12


@pytest.mark.parametrize("candidates", ["hull", "octaves"])
def test_memory_is_bounded_and_the_bounded_detector_still_finds_changes(candidates: Candidates) -> None:
    detector = RBOCPD(candidates=candidates, max_candidates=16, per_octave=4)
    for begin in range(0, 60_000, 20_000):
        assert detector.update_many(stream(begin, (0.9, 20_000))) == []
        assert detector.forecasters <= (detector.most_forecasters or 0) < 200
        assert detector.starts[0] == 0  # the anchor is never dropped
    assert detector.nbytes < 10_000
    (change,) = detector.update_many([0] * 40)
    assert abs(change.index - 60_000) <= 1


def test_thinning_sees_small_changes_nearly_as_soon() -> None:
    delays: dict[Candidates, list[int]] = {"all": [], "octaves": []}
    for seed in range(6):
        xs = stream(seed, (0.5, 1500), (0.65, 1500))
        for candidates, found in delays.items():
            found.append(RBOCPD(candidates=candidates).update_many(xs)[-1].detected - 1500)
    assert min(delays["all"]) > 64
    assert sum(delays["octaves"]) <= 1.1 * sum(delays["all"])


def test_distance_between_candidates_grows_with_their_age() -> None:
    detector = RBOCPD(candidates="octaves", per_octave=8)
    detector.update_many(stream(0, (0.5, 5000)))
    starts = detector.starts[1:]
    gaps, ages = np.diff(starts), 5000 - starts[:-1]
    assert np.all(gaps <= ages / 8 + 1)
    assert np.sum(ages > 2500) >= 4


def test_skipped_tests_change_no_alarm() -> None:
    """`statistic()` looks now; an alarm must come at the first observation at which it would be positive."""
    for seed in range(4):
        for categories, p, q in (
            (2, [0.5, 0.5], [0.2, 0.8]),
            (2, [0.99, 0.01], [0.9, 0.1]),
            (4, [0.25] * 4, [0.7, 0.1, 0.1, 0.1]),
        ):
            detector = RBOCPD(Budget(0.05, 1000), categories)
            for x in symbols(seed, (p, 400), (q, 150)):
                if detector.update(x) is None:
                    assert detector.statistic() <= 1e-9


def test_interpreter_and_machine_code_agree_to_the_last_bit() -> None:
    program = (
        "import numpy as np\n"
        "from monitoring.rbocpd import RBOCPD, tables\n"
        "tables.LENGTH = 256\n"  # so that both the table and the series are used
        "from monitoring.budget import Budget\n"
        "for k in (2, 4):\n"
        "    rng = np.random.default_rng(k)\n"
        "    xs = np.r_[rng.integers(0, k, 400), rng.integers(0, k, 150) // 2, rng.integers(0, k, 100)]\n"
        "    for candidates in ('all', 'octaves', *(['hull'] if k == 2 else [])):\n"
        "        d = RBOCPD(Budget(0.1, 500), k, candidates=candidates)\n"
        "        print([(c.index, c.detected, c.evidence.hex()) for c in d.update_many(xs)], d.statistic().hex())\n"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "NUMBA_DISABLE_JIT": disabled},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for disabled in ("0", "1")
    ]
    assert runs[0] == runs[1]
    assert runs[0].count("0x") > 8


def test_weight_can_be_changed_at_a_restore() -> None:
    detector = RBOCPD(AnytimeWeight(0.001))
    detector.update_many(stream(1, (0.5, 300)))
    eager = RBOCPD.load(detector.save(), weight=EAGER)
    always = RBOCPD(EAGER)
    always.update_many(stream(1, (0.5, 20)))
    assert eager.statistic() > detector.statistic()
    assert eager.scan.weight == EAGER
    assert RBOCPD.load(detector.save(), weight=Budget()).scan == RBOCPD().scan
    assert RBOCPD.load(RBOCPD().save(), weight=AnytimeWeight(0.001)).scan == detector.scan
    assert RBOCPD.load(RBOCPD(EAGER, predictor="kt").save(), weight=EAGER).scan.predictor == "kt"


def test_memory_can_be_changed_at_a_restore() -> None:
    xs = stream(1, (0.5, 3000))
    detector = RBOCPD()
    detector.update_many(xs)
    wide = RBOCPD.load(detector.save(), max_candidates=512)
    assert wide.statistic() == detector.statistic()
    assert list(wide.starts) == list(detector.starts)
    narrow = RBOCPD.load(detector.save(), max_candidates=16)
    assert narrow.forecasters <= 16 < detector.forecasters
    assert set(narrow.starts) < set(detector.starts)
    (change,) = narrow.update_many([1] * 60)
    assert abs(change.index - 3000) <= 3
    assert wide.update_many([1] * 60) == detector.update_many([1] * 60)


@pytest.mark.parametrize("damage", ["cut", "empty", "flip", "foreign", "other kind", "old kind", "incomplete"])
def test_damaged_bytes_are_refused(damage: str) -> None:
    detector = RBOCPD()
    detector.update_many(stream(1, (0.5, 200)))
    data = detector.save()
    middle = len(data) // 2
    broken = {
        "cut": data[:middle],
        "empty": b"",
        "flip": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "foreign": b"PK\x03\x04" + data,
        "other kind": encode("reward-monitor/1", {}, {}),
        "old kind": encode("rbocpd/2", {"seen": 0}, {}),
        "incomplete": encode("rbocpd/3", {"weight": "ShapedWeight"}, {}),
    }[damage]
    with pytest.raises(SnapshotError, match="start anew"):
        RBOCPD.load(broken)


def test_every_flipped_bit_is_noticed() -> None:
    data = bytearray(RBOCPD().save())
    for position in range(len(data) * 8):
        data[position // 8] ^= 1 << position % 8
        with pytest.raises(SnapshotError):
            RBOCPD.load(bytes(data))
        data[position // 8] ^= 1 << position % 8


def test_drop_is_found_soon_and_in_its_place() -> None:
    errors, again = [], 0
    for seed in range(30):
        detector = RBOCPD()
        assert detector.update_many(stream(seed, (0.9, 1000))) == []
        first, *more = detector.update_many(stream(seed + 100, (0.2, 100)))
        assert first.detected - 1000 < 60
        errors.append(abs(first.index - 1000))
        again += len(more)
    assert median(errors) <= 1
    assert sum(error > 10 for error in errors) <= 2
    assert again <= 2


def test_anytime_weight_keeps_its_bound_at_a_level_that_can_be_measured() -> None:
    """P(any alarm) <= 0.5 is proved; the union bound in it makes the real level far smaller."""
    for categories in (2, 4):
        rng = np.random.default_rng(categories)
        alarmed = sum(
            bool(RBOCPD(AnytimeWeight(0.5), categories).update_many(rng.integers(0, categories, 600)))
            for _ in range(60)
        )
        assert alarmed <= 6


def test_a_tie_of_two_explanations_is_no_alarm() -> None:
    """The weight is set to make the odds exactly 1 in rational numbers; a weight a millionth greater alarms."""
    for zeros in range(1, 15):
        for ones in range(1, 15):
            xs = [0] * zeros + [1] * ones
            odds = max(likelihood(xs[:s]) * likelihood(xs[s:]) / likelihood(xs) for s in range(1, len(xs)))
            assert RBOCPD(ShapedWeight(float(1 / odds), 0.0)).update_many(xs) == []
            (change,) = RBOCPD(ShapedWeight(float(1 / odds) * (1 + 1e-6), 0.0)).update_many(xs)
            assert change.detected == len(xs) - 1


def likelihood(xs: list[int]) -> Fraction:
    k, n = sum(xs), len(xs)
    return Fraction(math.factorial(k) * math.factorial(n - k), math.factorial(n + 1))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: ShapedWeight(scale=0.0), "scale"),
        (lambda: ShapedWeight(scale=math.nan), "scale"),
        (lambda: ShapedWeight(0.1, exponent=-1.0), "exponent"),
        (lambda: ShapedWeight(0.1, knee=0.5), "knee"),
        (lambda: ShapedWeight(0.1, knee=5.0, ceiling=4.0), "ceiling"),
        (lambda: InverseLengthWeight(0.0), "scale"),
        (lambda: AnytimeWeight(1.0), "delta"),
        (lambda: TheoremWeight(0.1, 1.0), "alpha"),
        (lambda: Budget(rate=1.5), "rate"),
        (lambda: Budget(horizon=10), "horizon"),
        (lambda: RBOCPD(max_candidates=7), "max_candidates"),
        (lambda: RBOCPD(per_octave=1), "per_octave"),
        (lambda: RBOCPD(categories=1), "categories"),
        (lambda: RBOCPD(categories=3, candidates="hull"), "octaves"),
        (lambda: RBOCPD(TheoremWeight(0.1), categories=11), "AnytimeWeight"),
    ],
)
def test_impossible_parameters_are_named(make: object, named: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=named):
        make()
