"""The plots of a retraining, as matplotlib figures: drawn without a display and without global state."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.dataset import Dataset
from training.evaluation import Estimate
from training.evaluation.base import Float64

_POINTS = 60  # of a curve over time
_DECILES = 10


def reward_over_time(dataset: Dataset, held_back: int) -> Figure:
    """Mean reward over the window in equal numbers of feedbacks; the held-back part is shaded."""
    figure, axes = _figure("Reward over the window", "decision time (hours since the first)", "mean reward")
    hours = (dataset.time_ms - dataset.time_ms[0]) / 3_600_000
    parts = np.array_split(np.arange(len(dataset)), min(_POINTS, len(dataset)))
    axes.plot([hours[part].mean() for part in parts], [dataset.reward[part].mean() for part in parts], marker=".")
    if 0 < held_back <= len(dataset):
        axes.axvspan(hours[-held_back], hours[-1], alpha=0.15, label="held back")
        axes.legend()
    return figure


def propensities(dataset: Dataset) -> Figure:
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
        reach = [[e.value - e.low for e in found.values()], [e.high - e.value for e in found.values()]]
        axes.errorbar(places, values, yerr=reach, fmt="o", capsize=3, label=policy)
        axes.set_xticks(np.arange(len(found)), list(found))
    axes.legend()
    return figure


def _figure(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8.0, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    return figure, axes
