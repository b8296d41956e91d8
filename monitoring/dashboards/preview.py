"""Draws dashboards from a live Prometheus: a preview for documents and reviews, and not what Grafana draws.

``python -m monitoring.dashboards.preview --url http://127.0.0.1:9090 --minutes 10 --out DIRECTORY``
"""

from __future__ import annotations

import json
import math
import re
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, TypeVar

import click
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from monitoring.dashboards.expressions import interpolated

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards"
#: Points on the time axis, and inches of a unit of the grid.
POINTS = 200
_UNIT_X, _UNIT_Y = 0.62, 0.42
#: Of the legend no more lines than these.
_LINES = 6
#: How a number of a unit is written.
_FORMATS = {"s": "{:.3g} s", "percentunit": "{:.1%}", "reqps": "{:.3g}/s", "bytes": "{:.3g} B"}
_COLOURS = {"Alarms": "tab:red", "Generations": "tab:blue"}

Floats = NDArray[np.float64]
T = TypeVar("T", float, Floats)


class Prometheus:
    """Answers ranges of time.

    Parameters
    ----------
    url
        Of the server, such as ``http://127.0.0.1:9090``.
    start, end
        Seconds since 1970.
    interval
        In place of ``$__rate_interval``.
    """

    def __init__(self, url: str, start: float, end: float, interval: str) -> None:
        self._url, self._interval = url.rstrip("/"), interval
        self.start, self.end = start, end

    def minutes(self, at: T) -> T:
        """Return a time, or times, in minutes from the end of the range."""
        return (at - self.end) / 60.0

    def series(self, expr: str) -> list[tuple[dict[str, str], Floats, Floats]]:
        """Return labels, times and values of each series of an expression."""
        step = max((self.end - self.start) / POINTS, 1.0)
        filled = interpolated(expr, self._interval, {"job": "leeway.*"})
        asked = {"query": filled, "start": self.start, "end": self.end, "step": step}
        address = f"{self._url}/api/v1/query_range?{urllib.parse.urlencode(asked)}"
        with urllib.request.urlopen(address, timeout=60.0) as answer:
            found = json.load(answer)["data"]["result"]
        return [
            (each["metric"], *np.array([[float(t), float(v)] for t, v in each["values"]], np.float64).T)
            for each in found
        ]


def draw(board: dict[str, Any], prometheus: Prometheus, path: Path) -> None:
    """Draw a dashboard in Grafana's JSON on its grid into a PNG."""
    deep = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    head = 2.0
    figure = Figure(figsize=(24 * _UNIT_X, (deep + head) * _UNIT_Y))
    marks = _marks(board, prometheus)
    figure.text(0.012, 1 - 0.7 / (deep + head), board["title"], fontsize=15, weight="bold", va="center")
    figure.text(
        *(0.012, 1 - 1.5 / (deep + head)),
        "Preview from live Prometheus data, drawn by matplotlib: not a picture of Grafana. "
        "Red: alarms. Blue: another generation serves.",
        fontsize=9,
        color="0.35",
        va="center",
    )
    for panel in board["panels"]:
        place = panel["gridPos"]
        top = 1 - (place["y"] + head) / (deep + head)
        if panel["type"] == "row":
            figure.text(0.012, top - 0.55 / (deep + head), panel["title"], fontsize=11, weight="bold", va="center")
            continue
        tall, wide = place["h"] / (deep + head), place["w"] / 24
        box = (place["x"] / 24 + 0.045, top - tall + 0.9 / (deep + head), wide - 0.06, tall - 2.0 / (deep + head))
        axes = figure.add_axes(box)
        axes.set_title(panel["title"], fontsize=9, loc="left")
        {"timeseries": _lines, "stat": _number, "heatmap": _heat}[panel["type"]](axes, panel, prometheus)
        if panel["type"] != "stat":
            for colour, at in marks:
                axes.axvline(at, color=colour, linewidth=0.7, alpha=0.6)
            axes.set_xlim(prometheus.minutes(prometheus.start), 0.0)
            axes.xaxis.set_major_formatter(lambda value, _place: f"{value:g} min" if value else "now")
            axes.tick_params(labelsize=7)
    figure.savefig(path, dpi=75)


def _marks(board: dict[str, Any], prometheus: Prometheus) -> list[tuple[str, float]]:
    """Return colour and time of every annotation: where its expression begins to have a value."""
    found = []
    for annotation in board["annotations"]["list"]:
        for _, times, _ in prometheus.series(annotation["expr"]):
            begins = np.diff(times, prepend=-math.inf) > 1.5 * (prometheus.end - prometheus.start) / POINTS
            found += [(_COLOURS[annotation["name"]], prometheus.minutes(at)) for at in times[begins].tolist()]
    return found


def _lines(axes: Axes, panel: dict[str, Any], prometheus: Prometheus) -> None:
    count = 0
    for target in panel["targets"]:
        for labels, times, values in prometheus.series(target["expr"]):
            label = _legend(target["legendFormat"], labels)
            bound = label.endswith((" low", " high"))
            style = {"linewidth": 0.8, "linestyle": ":"} if bound else {"linewidth": 1.1}
            axes.plot(prometheus.minutes(times), values, label=label if count < _LINES else None, **style)
            count += 1
    field = panel["fieldConfig"]["defaults"]
    low, high = field.get("min"), field.get("max")
    # A line on the bound itself would not be seen.
    room = 0.03 * ((axes.get_ylim()[1] if high is None else high) - (low or 0.0))
    axes.set_ylim(bottom=None if low is None else low - room, top=None if high is None else high + room)
    for step in field.get("thresholds", {}).get("steps", []):
        if step["value"] is not None and axes.get_ylim()[1] >= 0.3 * step["value"]:
            axes.axhline(step["value"], color="tab:red", linestyle="--", linewidth=0.8)
    form = _FORMATS.get(field["unit"], "{:.3g}")
    axes.yaxis.set_major_formatter(lambda value, _place: form.format(value))
    axes.grid(alpha=0.25)
    if count:
        more = f" (+{count - _LINES})" if count > _LINES else ""
        axes.legend(fontsize=6, loc="best", ncols=2, framealpha=0.6, title=more or None, title_fontsize=6)


def _legend(form: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), form)


def _number(axes: Axes, panel: dict[str, Any], prometheus: Prometheus) -> None:
    (target,) = panel["targets"]
    axes.axis("off")
    found = prometheus.series(target["expr"])
    if found:
        _, times, values = found[0]
        form = _FORMATS.get(panel["fieldConfig"]["defaults"]["unit"], "{:.3g}")
        axes.text(0.0, 0.5, form.format(values[-1]), fontsize=14, transform=axes.transAxes, va="center")
        graph = axes.inset_axes((0.55, 0.1, 0.45, 0.8))
        graph.plot(times, values, linewidth=0.9)
        graph.axis("off")


def _heat(axes: Axes, panel: dict[str, Any], prometheus: Prometheus) -> None:
    (target,) = panel["targets"]
    found = sorted(prometheus.series(target["expr"]), key=lambda each: float(each[0]["le"]))
    if not found:
        return
    times = found[0][1]
    counts = np.diff(np.array([values for _, _, values in found]), axis=0, prepend=0.0)
    axes.pcolormesh(prometheus.minutes(times), np.arange(len(found)), counts, cmap="viridis", shading="nearest")
    axes.set_yticks(np.arange(len(found)), [labels["le"] for labels, _, _ in found], fontsize=6)


@click.command()
@click.option("--url", default="http://127.0.0.1:9090", show_default=True, help="Of Prometheus.")
@click.option("--minutes", type=click.FloatRange(min=0.5), default=10.0, show_default=True, help="How far back.")
@click.option("--interval", default="1m", show_default=True, help="Of rates: at least four scrapes.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False, exists=True), required=True)
def main(url: str, minutes: float, interval: str, out: Path) -> None:
    """Draw every dashboard, a PNG each."""
    mpl.use("agg")
    end = time.time()
    prometheus = Prometheus(url, end - 60.0 * minutes, end, interval)
    for source in sorted(FOLDER.glob("*.json")):
        draw(json.loads(source.read_text(encoding="utf-8")), prometheus, out / f"{source.stem}.png")
        click.echo(out / f"{source.stem}.png")


if __name__ == "__main__":
    main()
