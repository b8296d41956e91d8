"""The analysis of shift for people: two plots, a page, and a run in MLflow."""

from __future__ import annotations

import base64
import html
import io
import json
from pathlib import Path

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.registry import Registry
from training.sessions.shift import FactorShift, ShiftReport

#: Most factors drawn; least index that is told from 0 in colour.
_ROWS = 30
_CURVES = 8
_LEAST = 1e-3


def draw_map(report: ShiftReport) -> Figure:
    """Draw the population stability index of each factor and day, those that shift most on top."""
    shown = report.factors[:_ROWS]
    figure = Figure(figsize=(9.0, 1.6 + 0.24 * len(shown)), layout="constrained")
    axes = figure.subplots()
    values = np.maximum(np.array([factor.psi for factor in shown]), _LEAST)
    greatest = max(float(np.nanmax(values, initial=1.0)), 1.0)
    image = axes.imshow(values, aspect="auto", cmap="viridis", norm=LogNorm(_LEAST, greatest), interpolation="nearest")
    figure.colorbar(image, ax=axes, label="population stability index")
    axes.set_yticks(range(len(shown)), [f"{factor.name}{' *' if factor.augment else ''}" for factor in shown])
    places = np.unique(np.linspace(0, len(report.days) - 1, min(len(report.days), 15)).round().astype(int))
    axes.set_xticks(places, [str(report.days[place]) for place in places])
    axes.set(title="Shift of the features (*: proposed for augmentation)", xlabel="day")
    return figure


def draw_curves(report: ShiftReport) -> Figure:
    """Draw the index of the factors that shift most, day by day, with the threshold."""
    figure = Figure(figsize=(9.0, 4.5), layout="constrained")
    axes = figure.subplots()
    for factor in report.factors[:_CURVES]:
        axes.plot(report.days, np.maximum(factor.psi, _LEAST), marker=".", label=factor.name)
    axes.axhline(report.threshold, linestyle=":", color="grey", label="threshold")
    axes.set(title=f"Shift against {_against(report)}", xlabel="day", ylabel="population stability index", yscale="log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize="small", ncols=2)
    return figure


def render(report: ShiftReport, title: str) -> str:
    """Return the analysis as an HTML page that needs no other file."""
    rows = "\n".join(_row(report, number, factor) for number, factor in enumerate(report.factors, start=1))
    names = ", ".join(map(html.escape, report.augment)) or "none"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Shift: {html.escape(title)}</title>
<style>body{{font-family:sans-serif;max-width:60em;margin:2em auto}}td,th{{padding:.2em .8em;text-align:right}}
td:nth-child(2),th:nth-child(2){{text-align:left}}tr.augment{{font-weight:bold}}img{{max-width:100%}}</style></head><body>
<h1>Shift of the features: {html.escape(title)}</h1>
<p>{len(report.days)} days, {report.days[0]} to {report.days[-1]}, each against {_against(report)}.</p>
<p>Proposed for augmentation (mean index at least {report.threshold:g} above chance): <b>{names}</b></p>
<table><tr><th>rank</th><th>feature</th><th>side</th><th>kind</th><th>mean PSI</th><th>by chance</th><th>shift</th>
<th>greatest PSI</th><th>on day</th><th>mean JS (bits)</th></tr>
{rows}
</table>
{_image(draw_map(report), "index of each feature and day")}
{_image(draw_curves(report), "index of the features that shift most")}
</body></html>
"""


def write_report(report: ShiftReport, directory: Path, title: str) -> None:
    """Write ``shift.json``, ``shift.html`` and both plots; raises ``OSError``."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in _texts(report, title).items():
        (directory / name).write_text(text, encoding="utf-8")
    for name, figure in _figures(report).items():
        figure.savefig(directory / f"{name}.png", dpi=120)


def log_to_mlflow(report: ShiftReport, registry: Registry, title: str, now_ms: int) -> str:
    """Write the analysis as a run of its own: settings, the shift of each feature, plots, page and JSON.

    Returns the run's id; raises ``RegistryError``.
    """
    run_id = registry.start_run(
        f"shift-{title}-{now_ms}",
        params={
            "reference": report.reference,
            "reference_days": ",".join(map(str, report.reference_days)),
            "threshold": report.threshold,
        },
        tags={"analysis": "shift", "source": title, "augment": ",".join(report.augment)[:5_000]},
    )
    metrics = {f"shift/{factor.name}": factor.shift for factor in report.factors}
    registry.log_metrics(run_id, metrics, time_ms=now_ms)
    registry.log_figures(run_id, _figures(report))
    registry.log_texts(run_id, _texts(report, title))
    registry.end_run(run_id, "FINISHED")
    return run_id


def _figures(report: ShiftReport) -> dict[str, Figure]:
    return {"shift_map": draw_map(report), "shift_curves": draw_curves(report)}


def _texts(report: ShiftReport, title: str) -> dict[str, str]:
    told = {"source": title, **report.to_json()}
    return {"shift.json": json.dumps(told, indent=2) + "\n", "shift.html": render(report, title)}


def _against(report: ShiftReport) -> str:
    if report.reference == "previous":
        return "the day before"
    first = report.reference_days
    return f"day {first[0]}" if len(first) == 1 else f"days {first[0]} to {first[-1]} together"


def _row(report: ShiftReport, number: int, factor: FactorShift) -> str:
    known = ~np.isnan(factor.psi)
    if known.any():
        day = str(report.days[int(np.nanargmax(factor.psi))])
        figures = [factor.psi[known].mean(), factor.chance[known].mean(), factor.shift, factor.psi[known].max()]
        numbers = [*(f"{figure:.3f}" for figure in figures), day, f"{factor.js[known].mean():.3f}"]
    else:
        numbers = ["no values"] * 6
    cells = [str(number), html.escape(factor.name), factor.side, factor.kind, *numbers]
    mark = ' class="augment"' if factor.augment else ""
    return f"<tr{mark}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _image(figure: Figure, what: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<p><img alt="{html.escape(what)}" src="data:image/png;base64,{data}"></p>'
