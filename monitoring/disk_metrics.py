"""The disk that the data lie on.

The conventions are those of :mod:`monitoring.metrics`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class DiskCollector(Collector):
    """Room on the disk of a directory, asked of the system at every scrape.

    Parameters
    ----------
    directory
        Where the data are; before it is made, the disk of the one that it will be made in.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()

    def describe(self) -> list[Metric]:
        """Return the metrics without samples."""
        return list[Metric](self._families())

    def collect(self) -> list[Metric]:
        """Return the metrics of now."""
        size, free = self._families()
        usage = shutil.disk_usage(next(path for path in (self._directory, *self._directory.parents) if path.exists()))
        size.add_metric([], usage.total)
        free.add_metric([], usage.free)
        return [size, free]

    def _families(self) -> list[GaugeMetricFamily]:
        return [
            GaugeMetricFamily("leeway_disk_size_bytes", "Size of the disk that holds the data directory."),
            GaugeMetricFamily("leeway_disk_free_bytes", "What is free of it to this process."),
        ]
