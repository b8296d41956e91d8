"""The plots of a retraining, as matplotlib figures: drawn without a display and without global state."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from training.evaluation import Estimate, Interval, LoggedRows
from training.evaluation.base import Float64
from training.stored import Feedbacks

_POINTS = 60  # of a curve over time
_DECILES = 10
_LEAST = 1e-4  # probability on the axes of the overlap
_CURVE = 500  # points of the curve of weights


def reward_over_time(dataset: Feedbacks, held_back: int) -> Figure:
    """Mean reward over the window in equal numbers of feedbacks; the held-back part is shaded."""
    figure, axes = _figure("Reward over the window", "decision time (hours since the first)", "mean reward")
    times, reward = dataset.time_ms, dataset.reward
    hours = (times - times[0]) / 3_600_000
    parts = np.array_split(np.arange(len(dataset)), min(_POINTS, len(dataset)))
    axes.plot([hours[part].mean() for part in parts], [reward[part].mean() for part in parts], marker=".")
    if 0 < held_back <= len(dataset):
        axes.axvspan(hours[-held_back], hours[-1], alpha=0.15, label="held back")
        axes.legend()
    return figure


def propensities(dataset: Feedbacks) -> Figure:
    """Histogram of the logged propensities: how much was explored."""
    figure, axes = _figure("Propensity of the action taken", "logged probability", "feedbacks")
    axes.hist(dataset.propensity, bins=40, range=(0.0, 1.0))
    return figure


def calibration(predicted: Mapping[str, Float64], reward: Float64) -> Figure:
    """Mean reward against mean prediction of the actions taken, in tenths by prediction, for each policy."""
    figure, axes = _figure("Calibration on held-back feedback", "mean predicted reward", "mean observed reward")
    for name, scores in predicted.items():
        parts = np.array_split(np.argsort(scores, kind="stable"), min(_DECILES, len(scores)))
        axes.plot(
            [scores[part].mean() for part in parts], [reward[part].mean() for part in parts], marker="o", label=name
        )
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], linestyle=":", color="grey")
    if predicted:
        axes.legend()
    return figure


def estimates(by_policy: Mapping[str, Mapping[str, Estimate]]) -> Figure:
    """Every estimate with its interval, for each policy and estimator."""
    figure, axes = _figure("Off-policy estimates, 95 % intervals", "estimator", "mean reward")
    for number, (policy, found) in enumerate(by_policy.items()):
        places = np.arange(len(found)) + 0.12 * (number - (len(by_policy) - 1) / 2)
        values = np.array([e.value for e in found.values()])
        reach = [_reach(e) for e in found.values()]
        axes.errorbar(places, values, yerr=np.array(reach).T, fmt="o", capsize=3, label=policy)
        axes.set_xticks(np.arange(len(found)), list(found), rotation=30)
    axes.legend()
    return figure


def overlap(rows: LoggedRows, policy: str) -> Figure:
    """Whether the log has tried what the policy would do.

    Left, every offered action by its logged and its target probability: what lies far above the diagonal the policy
    wants and the log has hardly tried. Right, the share of all weight that the rows with the greatest weights have: on
    the diagonal all rows count alike, and what rises at once stands on few of them.
    """
    figure = Figure(figsize=(10.0, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    logged, target = (np.maximum(p, _LEAST) for p in (rows.logged, rows.target))
    # A rounding above 1 belongs to the last bin, not to none.
    bins = np.geomspace(_LEAST, 1.0 + 1e-9, 41)
    counts, _, _ = np.histogram2d(logged, target, bins=[bins, bins])
    picture = left.pcolormesh(bins, bins, np.where(counts > 0, counts, np.nan).T, norm=LogNorm(), cmap="viridis")
    figure.colorbar(picture, ax=left, label="offered actions")
    for weight in (1.0, 10.0, 100.0):
        left.plot([_LEAST, 1.0], [_LEAST * weight, weight], linestyle=":", color="grey")
        left.annotate(f"w = {weight:g}", (1.5 * _LEAST, 1.8 * _LEAST * weight), color="grey", fontsize="small")
    left.set(
        title=f"Overlap: {policy}",
        xlabel=f"logged probability (at least {_LEAST:g} is shown)",
        ylabel="target probability",
        xscale="log",
        yscale="log",
        xlim=(_LEAST, 1.0),
        ylim=(_LEAST, 1.0),
    )
    greatest = np.sort(rows.weights)[::-1]
    shares = np.concatenate([[0.0], np.cumsum(greatest)]) / max(float(greatest.sum()), 1e-300)
    places = np.linspace(0, len(rows), min(len(rows), _CURVE) + 1).round().astype(np.int64)
    right.plot(places / len(rows), shares[places])
    right.plot([0.0, 1.0], [0.0, 1.0], linestyle=":", color="grey")
    right.set(
        title="Rows by their weight", xlabel="share of the rows, greatest weights first", ylabel="share of weight"
    )
    return figure


def differences(verdicts: Mapping[str, tuple[Interval, float]]) -> Figure:
    """Each candidate's difference to the champion with its bounds, and the margin that the lower one must reach."""
    figure, axes = _figure("Difference to the champion", "candidate", "mean reward")
    for place, (interval, margin) in enumerate(verdicts.values()):
        axes.errorbar([place], [interval.value], yerr=np.array([_reach(interval)]).T, fmt="o", capsize=4)
        axes.plot([place - 0.3, place + 0.3], [margin, margin], linestyle=":", color="grey")
    axes.set_xticks(np.arange(len(verdicts)), list(verdicts))
    axes.set_xlim(-0.6, len(verdicts) - 0.4)
    return figure


def _reach(found: Estimate | Interval) -> tuple[float, float]:
    """Return how far the bounds are from the value; one beyond it, as a sequence's can be, or infinite, is at it."""
    reach = (found.value - found.low, found.high - found.value)
    low, high = (max(end, 0.0) if np.isfinite(end) else 0.0 for end in reach)
    return low, high


def _figure(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8.0, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    return figure, axes
