"""Measure how great the evidence of R-BOCPD becomes on stationary streams: the table behind ``monitoring.budget``.

    python -m monitoring.calibrate [--quick] [--out FILE]

For each number of categories K and each of several distributions, streams are drawn and the greatest evidence that the
default shape with scale 1 has up to each horizon is recorded, and in as many observations each later on. The quantiles
are the -log scale with which that share of streams raises an alarm. The table keeps the greatest over the
distributions. What too few streams tell is continued from the larger shares by the limit law of maxima, that of Gumbel:
a line in -log(-log(1 - share)). Seeds are fixed. It takes about ten minutes of one core; ``--quick`` one, and is less
exact.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from monitoring.budget import PREDICTOR, TABLE, gumbel, settled, shaped
from monitoring.detector import FloatArray
from monitoring.rbocpd.scan import Scan
from monitoring.weights import FALLEN

RATES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)
#: Horizons with the number of streams, for K = 2 and for more.
BINARY = {
    100: 4_000,
    300: 4_000,
    1_000: 4_000,
    3_000: 4_000,
    10_000: 4_000,
    30_000: 2_000,
    100_000: 1_000,
    1_000_000: 200,
}
CATEGORICAL = {100: 2_000, 1_000: 2_000, 10_000: 800, 100_000: 100}
CATEGORIES = (2, 3, 4, 6, 10, 20)
#: Later windows: so many of each stream, of a share of the streams.
WINDOWS, FEWER = 16, 20
MEANING = "-log scale at which a share of stationary streams alarms by the horizon, and within as many later"
#: A share is taken from the streams themselves if so many of them exceed it, or if it is no less than this.
ENOUGH, LINE = 20, 0.05


def distributions(categories: int) -> list[FloatArray]:
    """Return the distributions that the table is the worst of."""
    if categories == 2:
        return [np.array([1 - p, p]) for p in (0.5, 0.3, 0.1, 0.01)]
    uniform = np.full(categories, 1 / categories)
    zipf = 1 / np.arange(1, categories + 1)
    heavy = np.r_[0.9, np.full(categories - 1, 0.1 / (categories - 1))]
    return [uniform, zipf / zipf.sum(), heavy]


def maxima(p: FloatArray, horizon: int, streams: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Return the greatest evidence up to the horizon in each stream, and in windows as long when it is far behind."""
    categories = len(p)
    # The exponent (K - 1)/2 raises all evidence; what stays below half the streams' maxima need not be known.
    floor = 3.0 + 1.5 * (categories - 1)
    scan = Scan.of(shaped(categories, horizon, -floor, 0.0), categories, PREDICTOR, None, 128, 16, True)
    rng = np.random.default_rng([seed, categories, horizon])
    cuts = np.cumsum(p)[:-1]

    def stream(windows: list[int]) -> list[float]:
        xs = np.searchsorted(cuts, rng.random(windows[-1]), side="right").astype(np.int64)
        return scan.greatest(xs, windows)

    begin = round(FALLEN * settled(horizon))
    later = [begin + place * horizon for place in range(WINDOWS + 1)]
    first = [stream([0, horizon]) for _ in range(streams)]
    return np.ravel(first), np.ravel([stream(later) for _ in range(max(1, streams // FEWER))])


def quantiles(found: FloatArray) -> FloatArray:
    """Return what is exceeded by each share of what was found."""
    rates = np.array(RATES)
    direct = np.quantile(found, 1.0 - rates)
    known = (rates * len(found) >= ENOUGH) | (rates >= LINE)
    slope, level = np.polyfit(gumbel(rates[known]), direct[known], 1)
    return np.where(known, direct, slope * gumbel(rates) + level)


def entry(categories: int, efforts: dict[int, int]) -> dict[str, Any]:
    """Measure one number of categories."""
    table = []
    for horizon, streams in efforts.items():
        worst = np.full((2, len(RATES)), -np.inf)
        for number, p in enumerate(distributions(categories)):
            found = np.array([quantiles(part) for part in maxima(p, horizon, streams, number)])
            worst = np.maximum(worst, found)
            told = f"K={categories} n={horizon} p={p.round(3)[:3]}: {found[0].round(2)}, later {found[1].round(2)}"
            print(told, file=sys.stderr, flush=True)
        table.append(worst.round(3).tolist())
    return {
        "categories": categories,
        "rates": list(RATES),
        "horizons": list(efforts),
        "quantiles": [first for first, _ in table],
        "later": [later for _, later in table],
    }


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the streams")
    parser.add_argument("--categories", type=int, nargs="*", default=CATEGORIES)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name(TABLE))
    arguments = parser.parse_args()
    entries = []
    for categories in arguments.categories:
        efforts = BINARY if categories == 2 else CATEGORICAL
        if arguments.quick:
            efforts = {horizon: streams // 10 for horizon, streams in efforts.items()}
        entries.append(entry(categories, efforts))
    told = {"meaning": MEANING, "entries": entries}
    arguments.out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
