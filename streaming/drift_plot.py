"""The plot of a change: the stream with its segments, what the detector believed, and the divergence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engine.errors import LeewayError
from engine.records import Alarm
from monitoring.detector import FloatArray
from monitoring.equilibrium import fit
from monitoring.run_lengths import posterior
from monitoring.stream_bank import BLOCK
from monitoring.watch import StreamHistory

#: Points of a curve, categories drawn, observations of a posterior.
_BLOCKS = 50
_CURVES = 4
_MOST = 4_000


def draw(path: Path, alarm: Alarm, history: StreamHistory, divergences: FloatArray | None) -> None:
    """Write the plot of an alarm as a PNG; raises ``LeewayError`` where the file cannot be written."""
    rows = 2 if divergences is None or not len(divergences) else 3
    figure = Figure(figsize=(9.0, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, 1, squeeze=False)[:, 0]
    name = f"{alarm.monitor} {alarm.stream}".strip()
    _shares(axes[0], alarm, history)
    axes[0].set_title(f"{alarm.decision_point}: {name}")
    _run_lengths(axes[1], alarm, history)
    if rows == 3 and divergences is not None:
        _divergence(axes[2], divergences)
    try:
        figure.savefig(path, format="png", dpi=110)
    except OSError as error:
        raise LeewayError(f"{path}: cannot be written ({error.strerror}); name another file with --png") from error


def _shares(axes: Axes, alarm: Alarm, history: StreamHistory) -> None:
    """The shares of the categories that moved most, in blocks, with those of the segments."""
    seconds = (history.time_ms - alarm.change_ms) / 1_000.0
    k = len(history.names)
    ones = history.categories[:, None] == np.arange(k)
    after = history.time_ms >= alarm.change_ms
    means = [ones[part].mean(axis=0) if part.any() else np.zeros(k) for part in (~after, after)]
    moved = [1] if k == 2 else np.argsort(-np.abs(means[1] - means[0]))[:_CURVES].tolist()
    blocks = np.array_split(np.arange(len(seconds)), min(_BLOCKS, len(seconds)))
    at = [float(seconds[block].mean()) for block in blocks]
    for number, place in enumerate(moved):
        colour = f"C{number}"
        label = history.names[place] if k > 2 or alarm.monitor != "reward" else "reward, as a share of its range"
        axes.plot(at, [float(ones[block, place].mean()) for block in blocks], ".-", color=colour, label=label, lw=0.8)
        for mean, ends in zip(means, ((seconds[0], 0.0), (0.0, seconds[-1])), strict=True):
            axes.plot(ends, [mean[place]] * 2, color=colour, lw=2.5, alpha=0.5)
    axes.axvline(0.0, color="black", linestyle="--", label="change, as estimated")
    axes.axvline((alarm.detected_ms - alarm.change_ms) / 1_000.0, color="red", linestyle=":", label="found")
    axes.set(xlabel="seconds since the change", ylabel="share")
    axes.legend(fontsize="small", loc="upper left")


def _run_lengths(axes: Axes, alarm: Alarm, history: StreamHistory) -> None:
    """What the detector believed at each time about when the segment began."""
    middle = int(np.searchsorted(history.time_ms, alarm.change_ms))
    begin = max(0, min(middle - _MOST // 2, len(history.categories) - _MOST))
    categories = history.categories[begin : begin + _MOST]
    times, belief = posterior(categories, len(history.names), history.weight)
    shown = np.log10(np.maximum(belief.T, 1e-4))
    mesh = axes.pcolormesh(times, times, shown, shading="nearest", cmap="Greys")
    axes.figure.colorbar(mesh, ax=axes, label="log10 probability")
    axes.axhline(middle - begin, color="black", linestyle="--", lw=0.8)
    axes.set(xlabel="observations", ylabel="segment began at", title="posterior of the run length")


def _divergence(axes: Axes, divergences: FloatArray) -> None:
    """The latest blocks against the equilibrium that is fitted to them."""
    found = fit(divergences)
    axes.plot(divergences, ".-", lw=0.8)
    if np.isfinite(found.level):
        axes.axhline(found.level, color="green", label=f"{found.course.value}: level {found.level:.2f}")
        axes.axhspan(found.low, found.high, color="green", alpha=0.15)
        axes.legend(fontsize="small")
    axes.set(
        xlabel=f"blocks of {BLOCK} observations, the latest last",
        ylabel="divergence",
        title="distance from the reference",
    )
