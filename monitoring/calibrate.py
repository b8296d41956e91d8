"""Measure how great the evidence of R-BOCPD becomes on stationary streams: the table behind ``monitoring.budget``.

    python -m monitoring.calibrate [--quick] [--out FILE]

For each number of categories K and each of several distributions, streams are drawn and the greatest evidence that the
default shape with scale 1 has up to each horizon is recorded. Its quantiles are the -log scale with which that share of
streams raises an alarm. The table keeps the greatest over the distributions. Seeds are fixed. It takes about ten
minutes of one core; ``--quick`` half a minute, and is less exact.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from monitoring.budget import PREDICTOR, TABLE, shaped
from monitoring.detector import FloatArray
from monitoring.rbocpd.scan import Scan

RATES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)
#: Horizons with the number of streams, for K = 2 and for more.
BINARY = {
    100: 4_000,
    300: 4_000,
    1_000: 4_000,
    3_000: 4_000,
    10_000: 3_000,
    30_000: 1_000,
    100_000: 400,
    1_000_000: 100,
}
CATEGORICAL = {100: 2_000, 1_000: 2_000, 10_000: 1_200}
CATEGORIES = (2, 3, 4, 6, 10, 20)


def distributions(categories: int) -> list[FloatArray]:
    """Return the distributions that the table is the worst of."""
    if categories == 2:
        return [np.array([1 - p, p]) for p in (0.5, 0.3, 0.1, 0.01)]
    uniform = np.full(categories, 1 / categories)
    zipf = 1 / np.arange(1, categories + 1)
    heavy = np.r_[0.9, np.full(categories - 1, 0.1 / (categories - 1))]
    return [uniform, zipf / zipf.sum(), heavy]


def maxima(p: FloatArray, horizon: int, streams: int, seed: int) -> FloatArray:
    """Return the greatest evidence up to the horizon in each stream."""
    categories = len(p)
    # The exponent (K - 1)/2 raises all evidence; what stays below half the streams' maxima need not be known.
    floor = 3.0 + 1.5 * (categories - 1)
    scan = Scan.of(shaped(categories, horizon, -floor), categories, PREDICTOR, None, 128, 16, True)
    rng = np.random.default_rng([seed, categories, horizon])
    cuts = np.cumsum(p)[:-1]
    found = np.empty(streams)
    for stream in range(streams):
        xs = np.searchsorted(cuts, rng.random(horizon), side="right").astype(np.int64)
        found[stream] = scan.greatest(xs)
    return found


def entry(categories: int, efforts: dict[int, int]) -> dict[str, Any]:
    """Measure one number of categories."""
    table = []
    for horizon, streams in efforts.items():
        worst = np.full(len(RATES), -np.inf)
        for number, p in enumerate(distributions(categories)):
            quantiles = np.quantile(maxima(p, horizon, streams, number), 1.0 - np.array(RATES))
            worst = np.maximum(worst, quantiles)
            print(f"K={categories} n={horizon} p={p.round(3)[:3]}: {quantiles.round(2)}", file=sys.stderr, flush=True)
        table.append(worst)
    return {
        "categories": categories,
        "rates": list(RATES),
        "horizons": list(efforts),
        "quantiles": [[round(value, 3) for value in row] for row in np.array(table).tolist()],
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
    told = {"meaning": "-log scale at which a share of stationary streams alarms by the horizon", "entries": entries}
    arguments.out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
