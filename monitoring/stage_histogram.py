"""The histogram of the stages of a decision, from tallies that serving keeps by itself.

A histogram of the Prometheus client takes a lock and half a microsecond for each value, of which a decision has six.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class Tallies(Protocol):
    """What serving has counted."""

    def cumulative(self, stage: str) -> list[int]:
        """Return how many decisions took less than each bound, and at last how many there were."""

    def seconds(self, stage: str) -> float:
        """Return the time that a stage took in all."""


class StageHistogram(Collector):
    """Shows the tallies when it is scraped.

    Parameters
    ----------
    tallies
        What serving has counted.
    stages
        Their names.
    bounds
        In seconds.
    """

    def __init__(self, tallies: Tallies, stages: Sequence[str], bounds: Sequence[float]) -> None:
        self._tallies = tallies
        self._stages = stages
        self._bounds = [*(f"{bound:g}" for bound in bounds), "+Inf"]

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """Say what it shows, without a look at the tallies."""
        yield self._family()

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Show every stage, also one that was never counted."""
        family = self._family()
        for stage in self._stages:
            counts = self._tallies.cumulative(stage)
            family.add_metric([stage], list(zip(self._bounds, counts, strict=True)), self._tallies.seconds(stage))
        yield family

    @staticmethod
    def _family() -> HistogramMetricFamily:
        return HistogramMetricFamily(
            "leeway_decision_stage_seconds",
            "Time of one decision by stage: encode, score, explore, draw, record, wait (until the log has it).",
            labels=["stage"],
        )
