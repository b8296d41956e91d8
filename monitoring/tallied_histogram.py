"""A histogram that takes many values at once.

One of the Prometheus client takes a microsecond and a half for each value, which is as much as a decision of a batch
takes to be written.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Tally:
    """The values of one series. Safe for threads.

    Parameters
    ----------
    bounds
        Upper bounds of the buckets, rising.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, *values: float) -> None:
        """Count values, each in the first bucket that it is not greater than."""
        with self._lock:
            for value in values:
                self._counts[bisect_left(self._bounds, value)] += 1
                self._sum += value

    def seen(self) -> tuple[list[int], float]:
        """Return how many values were at most each bound, how many there were at last, and their sum."""
        with self._lock:
            return list(accumulate(self._counts)), self._sum


class TalliedHistogram(Collector):
    """What ``prometheus_client.Histogram`` shows, of values that come many at once.

    Parameters
    ----------
    name, documentation
        Of the metric.
    labelnames
        Of its series.
    buckets
        Upper bounds, rising; what is greater counts too.
    registry
        Where it is registered.

    Examples
    --------
    >>> registry = CollectorRegistry()
    >>> share = TalliedHistogram("share_ratio", "A share.", ["of"], buckets=[0.5], registry=registry)
    >>> share.labels("a").observe(0.25, 0.5, 0.75)
    >>> registry.get_sample_value("share_ratio_bucket", {"of": "a", "le": "0.5"}), registry.get_sample_value(
    ...     "share_ratio_sum", {"of": "a"}
    ... )
    (2, 1.5)
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Sequence[str],
        *,
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._labelnames = list(labelnames)
        self._buckets = list(buckets)
        self._shown = [*map(floatToGoString, buckets), "+Inf"]
        self._series: dict[tuple[str, ...], Tally] = {}
        self._lock = threading.Lock()
        registry.register(self)

    def labels(self, *values: str) -> Tally:
        """Return one series; it is shown from now on."""
        with self._lock:
            return self._series.setdefault(values, Tally(self._buckets))

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """Say what it shows, without its values."""
        yield HistogramMetricFamily(self._name, self._documentation, labels=self._labelnames)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Show every series."""
        [family] = self.describe()
        with self._lock:
            series = list(self._series.items())
        for values, tally in series:
            counts, total = tally.seen()
            family.add_metric(list(values), list(zip(self._shown, counts, strict=True)), total)
        yield family
