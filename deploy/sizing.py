"""How much of everything a rate of decisions needs: ``python -m deploy.sizing``, from ``unit_costs.json``.

What is measured stands in that file, each figure with the command that measures it; all else is derived here, and
docs/scaling.md says how. Put the figures of your own machines and decisions there, and print the tables again.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

UNIT_COSTS = Path(__file__).with_name("unit_costs.json")
RATES = (1_000, 100_000, 1_000_000)
#: Share of a core that is planned for; the rest is for peaks, and for a member whose work others take over.
USED = 0.6
#: Most partitions that a configuration may have (`log.partitions`).
MOST_PARTITIONS = 256
REPLICAS = 3
DAY_S = 86_400
#: Who reads feedback: learner, monitors and archive.
READERS = 3


@dataclass(frozen=True)
class UnitCosts:
    """What one decision with one outcome costs.

    Attributes
    ----------
    serve_us, join_us, work_us, broker_us : float
        CPU microseconds: of serving, of the join on librdkafka, of learner, monitors and archive together, and of the
        broker for the join alone.
    decision_bytes, outcome_bytes, feedback_bytes : float
        On the disk of one broker.
    archive_bytes : float
        Of Parquet.
    pending_bytes : float
        Memory of the join for a decision whose window is open.
    """

    serve_us: float
    join_us: float
    work_us: float
    broker_us: float
    decision_bytes: float
    outcome_bytes: float
    feedback_bytes: float
    archive_bytes: float
    pending_bytes: float

    @property
    def log_bytes(self) -> float:
        """Of the three topics that grow with every decision, before replication."""
        return self.decision_bytes + self.outcome_bytes + self.feedback_bytes


def read(path: Path = UNIT_COSTS) -> UnitCosts:
    """Return the measured unit costs."""
    return UnitCosts(**{name: float(entry["value"]) for name, entry in json.loads(path.read_text()).items()})


@dataclass(frozen=True)
class Plan:
    """What a rate needs.

    Attributes
    ----------
    rate : int
        Decisions a second, each with one outcome.
    serve_cores, join_cores, broker_cores : int
        At ``USED`` of each.
    installations : int
        So many `leeway work`, of which each installation has one, at ``USED`` of a core.
    partitions : int
        Of each installation: twice its members of the join, as a power of two, at least 8.
    disk_tb_a_day : float
        On all brokers together, with ``REPLICAS`` copies.
    archive_gb_a_day : float
        Of Parquet.
    state_gb_a_minute : float
        Of decisions that wait, for each minute of reward window, with all members of the join.
    broker_in_mb, broker_out_mb : float
        Megabytes a second over the network into and out of all brokers, copies included.
    """

    rate: int
    serve_cores: int
    join_cores: int
    broker_cores: int
    installations: int
    partitions: int
    disk_tb_a_day: float
    archive_gb_a_day: float
    state_gb_a_minute: float
    broker_in_mb: float
    broker_out_mb: float


def plan(rate: int, costs: UnitCosts) -> Plan:
    """Return what a rate of decisions needs."""

    def cores(microseconds: float) -> int:
        return math.ceil(rate * microseconds / 1e6 / USED)

    installations = cores(costs.work_us)
    members = math.ceil(cores(costs.join_us) / installations)
    written = rate * costs.log_bytes
    # The join reads decisions and outcomes once; feedback is read by each of its readers.
    read_out = rate * (costs.decision_bytes + costs.outcome_bytes + READERS * costs.feedback_bytes)
    copied = (REPLICAS - 1) * written
    return Plan(
        rate=rate,
        serve_cores=cores(costs.serve_us),
        join_cores=cores(costs.join_us),
        broker_cores=cores(costs.broker_us),
        installations=installations,
        partitions=max(8, 2 ** math.ceil(math.log2(2 * members))),
        disk_tb_a_day=REPLICAS * written * DAY_S / 1e12,
        archive_gb_a_day=rate * costs.archive_bytes * DAY_S / 1e9,
        state_gb_a_minute=rate * 60 * costs.pending_bytes / 1e9,
        broker_in_mb=(written + copied) / 1e6,
        broker_out_mb=(read_out + copied) / 1e6,
    )


def rounded(value: float) -> str:
    """Return a figure with two digits that count: more would be a promise.

    >>> rounded(0.2345), rounded(12345), rounded(7)
    ('0.23', '12,000', '7')
    """
    if value == 0:
        return "0"
    digits = 1 - math.floor(math.log10(abs(value)))
    return (
        f"{round(value, digits):,.{max(digits, 0)}f}".rstrip("0").rstrip(".")
        if digits > 0
        else f"{round(value, digits):,.0f}"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def needs(costs: UnitCosts) -> str:
    """Return the table of what each rate needs."""
    plans = [plan(rate, costs) for rate in RATES]
    rows: Mapping[str, Sequence[float]] = {
        "cores that serve": [p.serve_cores for p in plans],
        "cores that join (librdkafka)": [p.join_cores for p in plans],
        "cores of brokers, for the join alone": [p.broker_cores for p in plans],
        "installations, each with one `leeway work`": [p.installations for p in plans],
        "partitions of each": [p.partitions for p in plans],
        "TB a day on the brokers' disks, three copies": [p.disk_tb_a_day for p in plans],
        "GB a day of archive": [p.archive_gb_a_day for p in plans],
        "GB of open decisions in the join, for each minute of window": [p.state_gb_a_minute for p in plans],
        "MB/s into the brokers": [p.broker_in_mb for p in plans],
        "MB/s out of them": [p.broker_out_mb for p in plans],
    }
    head = ["decisions a second", *(f"{rate:,}" for rate in RATES)]
    return table(head, [[name, *map(rounded, values)] for name, values in rows.items()])


def per_million(costs: UnitCosts) -> str:
    """Return the table of what a million decisions cost: microseconds each are core-seconds a million."""
    cpu = {
        "serving": costs.serve_us,
        "the join": costs.join_us,
        "work": costs.work_us,
        "broker, for the join": costs.broker_us,
    }
    disk = {"topics, one copy": costs.log_bytes, "archive": costs.archive_bytes}
    rows = [[name, rounded(us), ""] for name, us in cpu.items()]
    rows.append(["all of these", rounded(sum(cpu.values())), ""])
    rows += [[name, "", rounded(size / 1e3)] for name, size in disk.items()]
    return table(["of a million decisions", "core-seconds", "GB"], rows)


if __name__ == "__main__":
    found = read(Path(sys.argv[1])) if len(sys.argv) > 1 else read()
    print(needs(found), per_million(found), sep="\n\n")
