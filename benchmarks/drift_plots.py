"""Pictures of the detectors: alarms over the Elec2 series, and the delays that `benchmarks.drift` measured.

    python -m benchmarks.drift_plots --data FOLDER --out FOLDER [--result FILE]

`--data` is a folder with `elec2.npz` (New South Wales electricity market, half-hourly, May 1996 to December 1998);
`--result` is what `python -m benchmarks.drift --json FILE` wrote.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

from benchmarks._drift_streams import ABRUPT
from benchmarks.drift import OURS
from monitoring.budget import Budget
from monitoring.observations import binned, quantile_edges
from monitoring.rbocpd import RBOCPD

#: Half-hours of a day, and days whose deciles are the bins.
DAY, REFERENCE = 48, 120
SERIES = {"price in New South Wales": 1, "demand in New South Wales": 2, "transfer to Victoria": 5}
BINS = 5


def elec2(data: Path, out: Path) -> dict[str, list[int]]:
    """Draw the daily means with the alarms on them; return the days of the alarms.

    Half-hours depend on each other, and a detector of independent observations would alarm at each of their swings; so
    days are observed, in five bins of the first days.
    """
    rows = np.load(data / "elec2.npz", allow_pickle=False)["X_raw"]
    days = rows[: len(rows) // DAY * DAY].reshape(-1, DAY, rows.shape[1]).mean(axis=1)
    figure, axes = plt.subplots(len(SERIES), 1, figsize=(9, 6.5), sharex=True, layout="constrained")
    found = {}
    for axis, (name, column) in zip(axes, SERIES.items(), strict=True):
        values = days[:, column]
        edges = quantile_edges(values[:REFERENCE], BINS)
        detector = RBOCPD(Budget(rate=0.01, horizon=1_000), categories=len(edges) + 2)
        changes = detector.update_many(binned(values, edges))
        found[name] = [change.detected for change in changes]
        axis.plot(values, color="0.35", linewidth=0.8)
        for number, change in enumerate(changes):
            axis.axvline(change.index, color="tab:blue", linestyle=":", label=None if number else "estimated change")
            axis.axvline(change.detected, color="tab:red", linewidth=1.0, label=None if number else "alarm")
        axis.set_ylabel(name.replace(" in ", "\nin ").replace(" to ", "\nto "))
    axes[0].legend(loc="upper left", fontsize="small")
    axes[-1].set_xlabel("day since 7 May 1996")
    figure.suptitle(f"R-BOCPD on daily means in {BINS} bins of the first {REFERENCE} days, 1 % each 1 000 days")
    figure.savefig(out / "drift-elec2.png", dpi=110)
    return found


def delays(result: dict[str, Any], out: Path) -> None:
    """Draw median and 95 % of the delays at equal false alarms, row by row."""
    rows = result["delay"]["rows"]
    figure, axes = plt.subplots(2, 4, figsize=(13, 6), layout="constrained")
    for axis, row in zip(axes.flat, ABRUPT, strict=True):
        entries = {name: e for name, e in rows[row.name].items() if isinstance(e, dict) and e["median"] is not None}
        names = [OURS, *sorted((n for n in entries if not n.startswith("R-BOCPD")), key=lambda n: entries[n]["median"])]
        for place, name in enumerate(reversed(names)):
            late = entries[name]["p95"] or row.length
            colour = "tab:blue" if name == OURS else "0.6"
            axis.plot([entries[name]["median"], late], [place, place], color=colour)
            axis.plot(entries[name]["median"], place, "o", color=colour)
        axis.set_yticks(range(len(names)), [name.split(",")[0] for name in reversed(names)], fontsize="small")
        axis.set_xlim(0, None)
        axis.locator_params(axis="x", nbins=5)
        axis.set_title(row.name, fontsize="medium")
    figure.suptitle("Observations from the change to the alarm, median and 95 %, at equal false alarms")
    figure.savefig(out / "drift-delay.png", dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with elec2.npz")
    parser.add_argument("--out", type=Path, required=True, help="write the pictures here")
    parser.add_argument("--result", type=Path, help="result of benchmarks.drift")
    arguments = parser.parse_args()
    print(json.dumps(elec2(arguments.data, arguments.out)))
    if arguments.result:
        delays(json.loads(arguments.result.read_text()), arguments.out)


if __name__ == "__main__":
    main()
