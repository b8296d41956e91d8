"""A histogram of ours shows what one of the client does."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from monitoring.tallied_histogram import TalliedHistogram

BUCKETS = (0.001, 0.1, 0.5, 1.0)


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, 7.0])))))
def test_it_shows_the_same(seen: list[tuple[str, list[float]]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tallied = TalliedHistogram("share_ratio", "A share.", ["of"], buckets=BUCKETS, registry=ours)
    reference = Histogram("share_ratio", "A share.", ["of"], buckets=BUCKETS, registry=theirs)
    for label, values in seen:
        tallied.labels(label).observe(*values)
        series = reference.labels(label)
        for value in values:
            series.observe(value)
    expected = [line for line in generate_latest(theirs).decode().splitlines() if "_created" not in line]
    assert generate_latest(ours).decode().splitlines() == expected


def test_no_value_is_lost_between_threads() -> None:
    registry = CollectorRegistry()
    tallied = TalliedHistogram("share_ratio", "A share.", ["of"], buckets=BUCKETS, registry=registry)

    def count() -> None:
        for _ in range(2_000):
            tallied.labels("a").observe(0.25, 0.75)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert registry.get_sample_value("share_ratio_count", {"of": "a"}) == 16_000.0
    assert registry.get_sample_value("share_ratio_sum", {"of": "a"}) == 8_000.0
