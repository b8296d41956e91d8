"""The ledger of generations as it grows: what it says of each decision point, for the metrics and for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.features import Encoder
from engine.records import Generation, GenerationStatistics
from engine.store import PolicyStore
from monitoring.generation_metrics import LineageMetrics
from monitoring.oscillation import LEAST
from streaming.config import Config
from streaming.intake import parsed
from streaming.log import Log
from streaming.topics import GENERATIONS
from training.config import DampingConfig
from training.generations import GenerationTable, table
from training.job import RetrainJob
from training.planning import loader
from training.reference_file import read_reference, reference_path


def lineage_table(
    config: Config, name: str, entries: Sequence[Generation], statistics: Sequence[GenerationStatistics]
) -> GenerationTable:
    """Put the ledger of a decision point together with the policies on disk.

    Parameters
    ----------
    config, name
        The configuration, and the decision point.
    entries, statistics
        What training wrote of it, and what the generations did while they acted.
    """
    if name in config.recommenders:
        # Lists are not compared on a frozen set of requests: whether they oscillate is judged by the rewards alone.
        return table(entries, statistics, DampingConfig(when="never"))
    point = config.decision_points[name]
    encoder = Encoder(point.engine())
    job = RetrainJob(name, point.engine(), point.retraining, config.data_dir)
    path = reference_path(config.data_dir, name)
    return table(
        entries,
        statistics,
        point.retraining.damping,
        loader(PolicyStore(config.policy_dir), job),
        read_reference(path, encoder.context.width, encoder.action.width),
    )


class Lineage:
    """Follows the ledger, entry by entry, into metrics.

    Whether generations oscillate is judged when one was promoted and there are enough of them: policies are compared,
    which takes a while.

    Parameters
    ----------
    config
        The configuration.
    metrics
        Where it is shown.
    statistics
        Returns what the generations of a decision point did while they acted; ``None`` while that is not known yet.
    """

    def __init__(
        self,
        config: Config,
        metrics: LineageMetrics,
        statistics: Callable[[str], Sequence[GenerationStatistics] | None],
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._statistics = statistics
        self._start = 0
        self._entries: dict[str, list[Generation]] = {}
        self._unjudged: set[str] = set()

    def follow(self, log: Log) -> None:
        """Read what is new; raises ``LogError``."""
        while records := log.read(GENERATIONS, 0, self._start):
            self._start = records[-1].offset + 1
            for record in records:
                entry = parsed(record, Generation)
                if entry is None:
                    continue
                self._metrics.observe(entry)
                self._entries.setdefault(entry.decision_point, []).append(entry)
                if entry.promoted:
                    self._unjudged.add(entry.decision_point)
        for point in self._unjudged & self._config.deciding.keys():
            statistics = self._statistics(point)
            # Who keeps them may start after us: judged without them, an oscillation would be untold until the next
            # promotion, which an operator who damps or stops retraining may never make.
            if statistics is not None:
                self._unjudged.discard(point)
                self._judge(point, statistics)

    def _judge(self, point: str, statistics: Sequence[GenerationStatistics]) -> None:
        entries = self._entries[point]
        if sum(entry.promoted for entry in entries) < LEAST:
            return
        state = lineage_table(self._config, point, entries, statistics).state
        self._metrics.observe_oscillation(point, state.judged, declared=state.declared is not None)
