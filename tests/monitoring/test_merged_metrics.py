from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from monitoring.merged_metrics import LEAST, SUMMED, MergedCollector
from monitoring.metric_page import register_all


class Process:
    """The metrics of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("leeway_requests_total", "Requests.", ["method"], registry=self.registry)
        self.in_flight = Gauge("leeway_requests_in_flight", "Requests under way.", registry=self.registry)
        self.age = Gauge("leeway_spool_oldest_age_seconds", "Age.", registry=self.registry)
        self.generation = Gauge("leeway_policy_generation", "Generation.", ["decision_point"], registry=self.registry)
        self.durations = Histogram("leeway_durations_seconds", "Time.", buckets=[0.1, 1.0], registry=self.registry)

    def text(self) -> str:
        return generate_latest(self.registry).decode()


class Crew:
    """Processes by number and pid, and what Prometheus would get of them all."""

    def __init__(self) -> None:
        self.living: dict[tuple[int, int], Process] = {(1, 11): Process(), (2, 12): Process()}
        self.registry = CollectorRegistry()
        self.registry.register(MergedCollector(lambda: {life: p.text() for life, p in self.living.items()}))

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def crew() -> Crew:
    return Crew()


def test_what_is_counted_is_summed_and_gauges_are_what_says_most(crew: Crew) -> None:
    for count, process in enumerate(crew.living.values(), 1):
        process.requests.labels("Decide").inc(count)
        process.in_flight.set(count)
        process.age.set(count)
        process.generation.labels("offers").set(count)
        process.durations.observe(0.05)
        process.durations.observe(0.5)
    assert crew.value("leeway_requests_total", method="Decide") == 3
    assert crew.value("leeway_requests_in_flight") == 3
    assert crew.value("leeway_spool_oldest_age_seconds") == 2
    assert crew.value("leeway_policy_generation", decision_point="offers") == 1, "the process that is behind"
    assert crew.value("leeway_durations_seconds_bucket", le="0.1") == 2
    assert crew.value("leeway_durations_seconds_count") == 4
    assert crew.value("leeway_durations_seconds_sum") == pytest.approx(1.1)


def test_a_series_that_one_process_has_is_shown(crew: Crew) -> None:
    crew.living[2, 12].requests.labels("Report").inc(5)
    assert crew.value("leeway_requests_total", method="Report") == 5


def test_no_counter_falls_when_processes_are_started_again(crew: Crew) -> None:
    for process in crew.living.values():
        process.requests.labels("Decide").inc(10)
        process.in_flight.set(1)
    assert crew.value("leeway_requests_total", method="Decide") == 20
    for pid in range(20, 25):
        del crew.living[min(life for life in crew.living if life[0] == 2)]
        # Before it is there again, and after that.
        before = crew.value("leeway_requests_total", method="Decide")
        assert before == 20 + pid - 20
        assert crew.value("leeway_requests_in_flight") == 1
        crew.living[2, pid] = Process()
        crew.living[2, pid].requests.labels("Decide").inc()
        assert crew.value("leeway_requests_total", method="Decide") == before + 1


def test_one_that_does_not_answer_keeps_what_it_had_counted(crew: Crew) -> None:
    slow = crew.living[1, 11]
    slow.requests.labels("Decide").inc(7)
    assert crew.value("leeway_requests_total", method="Decide") == 7
    del crew.living[1, 11]
    assert crew.value("leeway_requests_total", method="Decide") == 7
    slow.requests.labels("Decide").inc()
    crew.living[1, 11] = slow
    assert crew.value("leeway_requests_total", method="Decide") == 8


def test_the_exposition_of_the_merged_is_that_of_one(crew: Crew) -> None:
    for process in crew.living.values():
        process.requests.labels("Decide").inc()
    merged = generate_latest(crew.registry).decode()
    alone = crew.living[1, 11].text()
    names = [line for line in merged.splitlines() if line.startswith(("# TYPE", "# HELP"))]
    assert sorted(names) == sorted(line for line in alone.splitlines() if line.startswith(("# TYPE", "# HELP")))


def test_the_gauges_that_are_named_exist() -> None:
    registry = CollectorRegistry()
    register_all(registry)
    assert {metric.name for metric in registry.collect()} >= SUMMED | LEAST
