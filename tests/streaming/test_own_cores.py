"""Which cores are those of one of several serving processes."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.own_cores import keep_to_own_cores, part


@given(st.integers(1, 200), st.integers(2, 32))
def test_every_core_is_of_one_process_and_no_process_has_two_more_than_another(count: int, processes: int) -> None:
    cores = list(range(count))
    parts = [part(cores, number, processes) for number in range(1, processes + 1)]
    if count < processes:
        assert parts == [cores] * processes
    else:
        assert [core for its in parts for core in its] == cores
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_process_alone_keeps_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_setaffinity", None)  # called, it would fail
    keep_to_own_cores(1, 1)


def test_a_system_that_forbids_it_is_told_of_and_no_reason_not_to_serve(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def forbid(*_: object) -> None:
        raise PermissionError("not here")

    monkeypatch.setattr(os, "sched_setaffinity", forbid)
    keep_to_own_cores(2, 2)
    assert "serving process 2 has no cores of its own, and goes on without: not here" in caplog.text
