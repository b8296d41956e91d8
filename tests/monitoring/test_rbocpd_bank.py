from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import SnapshotError
from monitoring.rbocpd import RBOCPD, RBOCPDBank
from monitoring.rbocpd.scan import Candidates
from monitoring.weights import ShapedWeight

EAGER = ShapedWeight(scale=0.05, exponent=0.5)


@pytest.mark.parametrize(("categories", "candidates"), [(2, "hull"), (2, "octaves"), (4, "octaves"), (4, "all")])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), data=st.data())
def test_each_stream_is_a_detector_of_its_own(
    categories: int, candidates: Candidates, seed: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    streams = rng.integers(0, 5, 400)
    xs = (rng.random(400) ** (1 + 4 * (np.arange(400) // 133 % 2)) * categories).astype(np.int64)
    cut = data.draw(st.integers(0, 400))
    bank = RBOCPDBank(5, EAGER, categories, candidates=candidates)
    found = bank.update_many(streams[:cut], xs[:cut])
    bank = RBOCPDBank.load(bank.save())
    found += [change._replace(position=change.position + cut) for change in bank.update_many(streams[cut:], xs[cut:])]
    assert [f.position for f in found] == sorted(f.position for f in found)
    for stream in range(5):
        alone = RBOCPD(EAGER, categories, candidates=candidates)
        mine = np.flatnonzero(streams == stream)
        assert [f.change for f in found if f.stream == stream] == alone.update_many(xs[mine])
        assert all(mine[f.change.detected] == f.position for f in found if f.stream == stream)
        assert bank.statistic(stream) == alone.statistic()
        assert list(bank.starts(stream)) == list(alone.starts)
        assert (bank.seen[stream], bank.run_starts[stream]) == (alone.seen, alone.run_start)
        assert bank.counts[stream].sum() == alone.run_length


def test_more_changes_than_one_call_of_the_kernel_reports() -> None:
    streams = np.tile(np.arange(600), 60)
    xs = np.repeat([0, 1], 30 * 600)
    found = RBOCPDBank(600, EAGER).update_many(streams, xs)
    assert sorted(f.stream for f in found) == list(range(600))
    assert {f.change.index for f in found} == {30}


def test_streams_can_be_added_and_begun_anew() -> None:
    bank = RBOCPDBank(1, EAGER, categories=3)
    xs = np.random.default_rng(0).integers(0, 3, 2_000)
    bank.update_many(np.zeros(2_000, np.int64), xs)  # rows have been added by now
    assert bank.add(2) == 1
    assert len(bank) == 3
    bank.reset(0)
    bank.update_many(np.tile([0, 1, 2], 50), np.repeat(xs[:50], 3))
    assert bank.statistic(0) == bank.statistic(1) == bank.statistic(2)
    assert list(bank.seen) == [50, 50, 50]


@pytest.mark.parametrize(
    ("streams", "xs", "named"),
    [([0, 2], [0, 1], r"streams must lie in 0..1"), ([0, -1], [0, 1], "streams"), ([0], [0, 1], "equally long")],
)
def test_impossible_batches_are_refused_and_change_nothing(streams: list[int], xs: list[int], named: str) -> None:
    bank = RBOCPDBank(2)
    with pytest.raises(ValueError, match=named):
        bank.update_many(streams, xs)
    with pytest.raises(ValueError, match="0 or 1"):
        bank.update_many([0, 1], [1, 2])
    assert list(bank.seen) == [0, 0]


def test_a_detector_is_no_bank() -> None:
    with pytest.raises(SnapshotError, match="rbocpd-bank"):
        RBOCPDBank.load(RBOCPD().save())
    with pytest.raises(ValueError, match="streams"):
        RBOCPDBank(-1)
