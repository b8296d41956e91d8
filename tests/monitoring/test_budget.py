from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from monitoring import calibrate
from monitoring.budget import TABLE, Budget
from monitoring.rbocpd import RBOCPD, RBOCPDBank


def alarmed(budget: Budget, p: list[float], streams: int, horizon: int, seed: int) -> int:
    """How many of the streams raise an alarm within the horizon."""
    rng = np.random.default_rng(seed)
    bank = RBOCPDBank(streams, budget, len(p))
    found = set()
    for _ in range(0, horizon, 500):
        xs = rng.choice(len(p), 500 * streams, p=p)
        found |= {change.stream for change in bank.update_many(np.tile(np.arange(streams), 500), xs)}
    return len(found)


@pytest.mark.parametrize("p", [[0.5, 0.5], [0.9, 0.1], [0.25] * 4, [0.4, 0.3, 0.2, 0.1]], ids=str)
def test_a_budget_is_kept(p: list[float]) -> None:
    """5 % of 400 streams by 1 000 observations: 20 are expected at most, more than 34 has chance 0.1 %."""
    assert alarmed(Budget(0.05, 1_000), p, 400, 1_000, 1) <= 34


def test_a_budget_is_used() -> None:
    """A level far below what is allowed would pay in delay for nothing."""
    assert alarmed(Budget(0.2, 1_000), [0.5, 0.5], 300, 1_000, 2) >= 30


@pytest.mark.slow
@pytest.mark.parametrize("p", [[0.5, 0.5], [0.1, 0.9], [0.99, 0.01], [0.1] * 10], ids=str)
def test_the_default_budget_is_kept(p: list[float]) -> None:
    """1 % of 1 000 streams by 10 000 observations: more than 20 has chance 0.2 %."""
    found = alarmed(Budget(), p, 1_000, 10_000, 3)
    print(f"\n{p}: {found} of 1,000 stationary streams of 10,000 raised an alarm")
    assert found <= 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "delay"), [(0.9, 0.2, 13), (0.5, 0.9, 40), (0.5, 0.7, 190), (0.5, 0.6, 1_000)]
)
def test_stated_delay(before: float, after: float, delay: int) -> None:
    delays, errors, again = [], [], 0
    for seed in range(200):
        rng = np.random.default_rng([5, seed])
        xs = np.r_[rng.random(1_000) < before, rng.random(5_000) < after].astype(np.int64)
        found = [change for change in RBOCPD().update_many(xs) if change.detected >= 1_000]
        delays.append(found[0].detected - 999 if found else math.inf)
        errors.append(abs(found[0].index - 1_000) if found else math.inf)
        again += len(found) > 1
    quantiles = [np.quantile(values, [0.5, 0.95], method="lower").tolist() for values in (delays, errors)]
    print(f"\n{before} to {after}: delay {quantiles[0]}, error {quantiles[1]}, reported twice {again} of 200")
    assert quantiles[0][0] <= delay


def test_scale_falls_with_what_is_allowed_and_with_the_horizon() -> None:
    for categories in (2, 3, 5, 7, 10, 15, 30):
        rates = [Budget(rate, 1_000).weight(categories).scale for rate in (1e-4, 0.004, 0.01, 0.03, 0.2, 0.6)]
        assert rates == sorted(rates)
        horizons = [Budget(0.02, n).weight(categories).scale for n in (100, 500, 2_000, 10**5, 10**6, 10**7)]
        assert horizons == sorted(horizons, reverse=True)
    by_categories = [Budget().weight(categories).scale for categories in range(2, 30)]
    assert by_categories == sorted(by_categories, reverse=True)


def test_the_program_that_makes_the_table_makes_one_like_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "table.json"
    monkeypatch.setattr(calibrate, "BINARY", {100: 4_000, 300: 4_000})
    monkeypatch.setattr(sys, "argv", ["calibrate", "--quick", "--categories", "2", "--out", str(out)])
    calibrate.main()
    (made,) = json.loads(out.read_text())["entries"]
    shipped = json.loads(Path(calibrate.__file__).with_name(TABLE).read_text())["entries"][0]
    assert made["rates"] == shipped["rates"]
    assert made["horizons"] == shipped["horizons"][:2]
    # The rates of 1/2 to 1/20, which 400 streams tell to about 0.4.
    found, expected = (np.array(entry["quantiles"])[:2, :4] for entry in (made, shipped))
    assert np.abs(found - expected).max() < 0.8
    assert "n=300" in capsys.readouterr().err
