"""Work in threads: results in order, no more of them than asked for, and errors where they are waited for."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from training.ahead import ahead


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_results_come_in_order_and_no_more_than_a_few_wait(depth: int) -> None:
    asked: list[int] = []

    def items() -> Iterator[int]:
        for item in range(20):
            asked.append(item)
            yield item

    with ThreadPoolExecutor(2) as pool:
        for number, result in enumerate(ahead(pool, lambda item: item * item, items(), depth)):
            assert result == number * number
            assert len(asked) <= number + depth
    assert asked == list(range(20))


def test_an_error_is_raised_and_ends_the_work() -> None:
    done: list[int] = []

    def work(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        done.append(item)
        return item

    results: list[int] = []
    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="three"):
        results.extend(ahead(pool, work, range(1_000)))
    assert results == done[:3] == [0, 1, 2]
    assert len(done) < 10
