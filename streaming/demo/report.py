"""The demo's report: one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from streaming.demo.figures import Series

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

#: Decisions over which the curves are averaged.
SMOOTH = 200
# Colours that differ in lightness too, and marks that differ in dash: readable without colour.
REWARD, CHANGE, ALARM, PROMOTION = "#1b6ca8", "#555555", "#c0392b", "#1e8449"


def write_report(path: Path, figures: dict[str, Any], series: Series) -> None:
    """Write the page."""
    sections = [
        _section(
            "Reward",
            "Mean reward of the last 200 decisions. The grey line is the change of the world, which nothing told the "
            "server; red lines are alarms that called for retraining; green ones are promotions.",
            _plot("Mean reward over the decisions", lambda axes: _reward(axes, series)),
        ),
        _section(
            "Exploration",
            "Mean probability of the chosen action, and mean entropy of the whole vector. Exploration rises after the "
            "alarm, by the share of the reward that was lost, and falls with the promotion.",
            _plot("Propensity and entropy over the decisions", lambda axes: _exploration(axes, series)),
        ),
        _section(
            "Join",
            "How long after its decision the outcome came. Decisions without an outcome in their window of one second "
            "got the default reward, once each.",
            _plot("Histogram of the outcomes' delays", lambda axes: _delays(axes, series)) + _accounting(figures),
        ),
        _section("Alarms", "", _alarms(figures)),
        _section("Generations", "", _generations(figures)),
        _section("What was promised", "", _goals(figures)),
    ]
    path.write_text(_PAGE.format(data=html.escape(str(figures["data"])), body="\n".join(sections)))


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(values) < SMOOTH:
        return np.full(len(values), np.nan)
    means = np.convolve(values, np.full(SMOOTH, 1.0 / SMOOTH), "valid")
    return np.concatenate([np.full(SMOOTH - 1, np.nan), means])


def _marks(axes: Axes, series: Series) -> None:
    axes.axvline(series.change_at, color=CHANGE, linewidth=2, label="the world changes")
    calls = [at for at, alarm in series.alarms if alarm.calls_for_retraining]
    for number, at in enumerate(calls):
        axes.axvline(at, color=ALARM, linestyle="--", label=None if number else "alarm that calls for retraining")
    for number, (at, _) in enumerate(series.promotions):
        axes.axvline(at, color=PROMOTION, linestyle=":", linewidth=2, label=None if number else "generation promoted")
    axes.set_xlabel("decision")
    axes.set_xlim(0, len(series.reward))


def _reward(axes: Axes, series: Series) -> None:
    axes.plot(_smooth(series.reward), color=REWARD, label=f"reward, mean of {SMOOTH}")
    _marks(axes, series)
    axes.set_ylabel("reward")
    axes.set_ylim(0, 1)
    axes.legend(loc="lower center", ncols=4, bbox_to_anchor=(0.5, 1.0), frameon=False)


def _exploration(axes: Axes, series: Series) -> None:
    axes.plot(_smooth(series.propensity), color=REWARD, label="propensity of the chosen action")
    axes.set_ylabel("probability")
    axes.set_ylim(0, 1)
    _marks(axes, series)
    right = axes.twinx()
    right.plot(_smooth(series.entropy), color="#b9770e", linestyle="-.", label="entropy (right)")
    right.set_ylabel("nats")
    right.set_ylim(0, None)
    handles = [*axes.get_lines()[:1], *right.get_lines()]
    axes.legend(
        handles,
        [str(handle.get_label()) for handle in handles],
        loc="lower center",
        ncols=2,
        bbox_to_anchor=(0.5, 1.0),
        frameon=False,
    )


def _delays(axes: Axes, series: Series) -> None:
    axes.hist(series.delay_ms[~np.isnan(series.delay_ms)], bins=60, color=REWARD)
    axes.set_xlabel("delay of the outcome, ms")
    axes.set_ylabel("decisions")


def _plot(title: str, draw: Callable[[Axes], None]) -> str:
    figure, axes = plt.subplots(figsize=(10, 3.4), layout="constrained")
    axes.grid(alpha=0.25)
    draw(axes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return (
        f'<img alt="{html.escape(title)}" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
    )


def _section(title: str, words: str, body: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2><p>{html.escape(words)}</p>{body}</section>"


def _table(head: list[str], rows: list[list[Any]]) -> str:
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    lines = ["".join(f"<td>{html.escape(str(value))}</td>" for value in row) for row in rows]
    return f"<table><tr>{cells}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _accounting(figures: dict[str, Any]) -> str:
    names = {
        "decisions": "decisions",
        "feedback": "feedback, defaulted included",
        "defaulted": "feedback with the default reward",
        "pending": "pending",
        "duplicate_outcomes": "outcomes sent twice, counted once",
        "late_outcomes": "outcomes after the window, kept apart",
        "dead_letters": "dead letters (outcomes of no decision)",
        "replay_mismatches": "decisions that a replay contradicts",
    }
    return _table(["count", "of"], [[figures[key], words] for key, words in names.items()])


def _alarms(figures: dict[str, Any]) -> str:
    rows = [
        [
            f"{alarm['joined_after_change']:+d}",
            f"{alarm['estimated_change']:+d}",
            alarm["direction"],
            "yes" if alarm["calls_for_retraining"] else "no",
            alarm["explanation"],
        ]
        for alarm in figures["alarms"]
    ]
    head = ["found, decisions after the change", "change estimated at", "direction", "calls for retraining", "in words"]
    return _table(head, rows)


def _generations(figures: dict[str, Any]) -> str:
    acted = {entry["generation"]: entry for entry in figures["acted"]}
    trained = [
        [g["generation"], g["oracle"], g["reason"], g["rows"], g["estimate"], g["champion_estimate"], g["verdict"]]
        for g in figures["generations"]
    ]
    head = ["generation", "oracle", "reason", "rows", "estimate", "champion's", "verdict"]
    table = _table(head, trained)
    rows = [[e["generation"], e["feedback"], e["reward"], e["entropy"], e["positives"]] for e in acted.values()]
    return table + _table(["generation", "feedback while acting", "mean reward", "entropy", "positives"], rows)


def _goals(figures: dict[str, Any]) -> str:
    rows = [[g["name"], g["value"], g["bound"], "yes" if g["holds"] else "NO"] for g in figures["goals"]]
    return _table(["figure", "value", "bound", "holds"], rows)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Leeway demo: {data}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }}
img {{ width: 100%; background: white; border-radius: 4px; }}
table {{ border-collapse: collapse; margin: 1rem 0; font-size: .9rem; }}
th, td {{ text-align: left; padding: .25rem .75rem; border-bottom: 1px solid #8886; vertical-align: top; }}
</style></head><body>
<h1>Leeway demo: {data}</h1>
<p>What a server is for: decide, log every propensity, join the delayed outcomes, learn, notice that the world has
changed, retrain, and promote only what off-policy evaluation proves better. All figures are read from its log.</p>
{body}
</body></html>
"""
