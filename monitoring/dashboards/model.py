"""What a dashboard is made of, without Grafana: rows of panels, each with its expressions in PromQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Selects the processes that the variables of a dashboard name, and with POINT a decision point too.
SCOPE = 'job=~"$job",instance=~"$instance"'
POINT = f'{SCOPE},decision_point=~"$decision_point"'

Kind = Literal["timeseries", "stat", "heatmap"]


@dataclass(frozen=True, slots=True)
class Query:
    """One expression, and how its series are called in the legend (``{{label}}`` stands for a label)."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Parameters
    ----------
    title, description
        What it shows; what a reader can conclude from it.
    unit
        Of Grafana: ``s``, ``bytes``, ``percentunit``, ``reqps``, ``short`` ...
    queries
        At least one; of a heatmap one, whose series are the buckets of a histogram.
    kind
        How it is drawn.
    width, height
        In units of Grafana's grid, which is 24 wide.
    alerts
        Alerts that are about this panel: it links to their runbooks, and they to it.
    low, high
        Fixed bounds of the axis.
    limit
        A value from which on something is wrong; drawn as a line.
    """

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 7
    alerts: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Panels below a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard.

    Parameters
    ----------
    uid
        Its address in Grafana, for ever.
    title, description
        As people read them.
    rows
        From top to bottom.
    """

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]


def panel_id(row: int, place: int) -> int:
    """Return the number of a panel by its row and its place in it, both from 0: alerts link to it.

    >>> panel_id(0, 0), panel_id(2, 3)
    (10, 33)
    """
    return 10 * (row + 1) + place


def stat(title: str, description: str, unit: str, expr: str, **more: object) -> Panel:
    """Return a small panel that shows one number."""
    return Panel(title, description, unit, (Query(expr, ""),), "stat", **{"width": 4, "height": 4, **more})  # type: ignore[arg-type]


def rate(metric: str, extra: str = "", scope: str = POINT) -> str:
    """Return the growth a second of a counter.

    >>> rate("leeway_reports_total", scope=SCOPE)
    'rate(leeway_reports_total{job=~"$job",instance=~"$instance"}[$__rate_interval])'
    """
    return f"rate({metric}{{{scope}{extra}}}[$__rate_interval])"


def quantile(share: float, histogram: str) -> str:
    """Return a quantile of a histogram, by decision point."""
    return f"histogram_quantile({share}, sum by (decision_point, le) ({rate(f'{histogram}_bucket')}))"


def buckets(histogram: str) -> str:
    """Return how many observations fell into each bucket of a histogram, for a heatmap."""
    return f"sum by (le) (increase({histogram}_bucket{{{POINT}}}[$__rate_interval]))"


def grown(counter: str, by: str) -> str:
    """Return by how much a counter has grown in the time of a point on the screen, by some labels."""
    return f"sum by ({by}) (increase({counter}{{{POINT}}}[$__rate_interval]))"


def gauge(metric: str, extra: str = "", scope: str = POINT) -> str:
    """Return a gauge in the scope of the dashboard."""
    return f"{metric}{{{scope}{extra}}}"
