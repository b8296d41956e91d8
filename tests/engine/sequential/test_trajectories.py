from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.sequential.trajectories import Trajectories, Transition, Visit

END = 9
IDLE, PATIENCE = 1_000, 50


def trajectories(max_units: int = 100, patience: int = 0) -> Trajectories:
    return Trajectories(END, frozenset({3}), IDLE, patience, max_units)


def visit(time_ms: int, unit: str, state: int, action: int = 0, reward: float = 0.0) -> Visit:
    return Visit(time_ms, f"{unit}{time_ms}", unit, state, action, reward)


def steps_of(found: Trajectories, *visits: Visit, source: int = 0) -> list[Transition]:
    steps = []
    for each in visits:
        found.add(each, source)
        steps += list(found.steps())
    return steps


def led(steps: list[Transition]) -> list[tuple[str, int]]:
    """Return which decisions led where."""
    return [(step.decision_id, step.next_state) for step in steps if step.decision_id]


def test_a_decision_leads_to_the_state_of_the_next_one_of_its_unit() -> None:
    visits = visit(1, "u", 0, 4, 0.5), visit(2, "v", 2), visit(3, "u", 1, 5, 1.0), visit(4, "u", 2), visit(5, "v", 2)
    assert steps_of(trajectories(), *visits) == [
        Transition("", END, 0, 0.0, 0),  # a unit comes
        Transition("u1", 0, 4, 0.5, 1),
        Transition("", END, 0, 0.0, 2),
        Transition("v2", 2, 0, 0.0, 2),
        Transition("u3", 1, 5, 1.0, 2),
    ]


def test_a_decision_in_a_terminal_state_leads_to_the_end_and_the_unit_begins_anew() -> None:
    steps = steps_of(trajectories(), visit(1, "u", 0), visit(2, "u", 3, 1, 1.0), visit(3, "u", 0))
    assert steps[1:] == [
        Transition("u1", 0, 0, 0.0, 3),
        Transition("u2", 3, 1, 1.0, END),
        Transition("", END, 0, 0.0, 0),
    ]


def test_a_unit_that_falls_silent_is_at_its_end() -> None:
    found = trajectories()
    assert led(steps_of(found, visit(0, "u", 0, 2, 0.5), visit(IDLE, "v", 1))) == []
    assert steps_of(found, visit(IDLE + 1, "w", 1))[0] == Transition("u0", 0, 2, 0.5, END)
    # What it does later is a new beginning.
    steps = steps_of(found, visit(IDLE + 2, "u", 2), visit(9_000, "x", 0))
    assert steps[-4:] == [
        Transition("w1001", 1, 0, 0.0, END),
        Transition("", END, 0, 0.0, 2),
        Transition("u1002", 2, 0, 0.0, END),
        Transition("", END, 0, 0.0, 0),
    ]


def test_who_leaves_is_not_told_of_later_than_who_goes_on() -> None:
    found = trajectories()
    visits = [visit(time, f"u{time}", 0) for time in range(10)]  # each of its own unit
    back = [visit(20 + time, f"u{time}", 1) for time in range(1, 10)]  # all go on but the first
    assert led(steps_of(found, *visits, *back)) == []
    steps = steps_of(found, visit(IDLE + 1, "other", 0))
    assert led(steps)[:10] == [("u00", END), *((f"u{time}{time}", 1) for time in range(1, 10))]


def test_what_is_not_known_breaks_the_trajectory_and_nothing_else() -> None:
    found = trajectories()
    visits = visit(1, "u", 0), visit(2, "u", -1), visit(3, "u", 1), visit(4, "u", 2, -1), visit(5, "u", 0)
    steps = steps_of(found, *visits)
    assert steps == [Transition("", END, 0, 0.0, 0), Transition("u3", 1, 0, 0.0, 2)]
    assert led(steps_of(found, visit(9_000, "v", 0))) == [("u5", END)]


def test_the_unit_that_is_silent_longest_is_forgotten_beyond_the_bound() -> None:
    found = trajectories(max_units=2)
    steps = steps_of(found, visit(1, "a", 0), visit(2, "b", 0), visit(3, "a", 1), visit(4, "c", 0), visit(5, "b", 1))
    assert found.forgotten == 2  # b, and then a
    assert led(steps) == [("a1", 1)]


def test_feedback_waits_for_the_slowest_source() -> None:
    found = trajectories(patience=PATIENCE)
    found.add(visit(100, "u", 0), 0)
    found.add(visit(90, "v", 0), 1)
    assert list(found.steps()) == []
    found.add(visit(900, "u", 1), 0)
    assert led(list(found.steps())) == []  # source 1 may still have one of u in between
    found.add(visit(890, "u", 2), 1)
    assert led(list(found.steps())) == []
    found.add(visit(960, "v", 2), 0)
    found.add(visit(1_020, "v", 2), 1)
    found.add(visit(1_020, "w", 2), 0)
    assert led(list(found.steps())) == [("v90", 2), ("u100", 2), ("u890", 1)]


def test_a_source_that_is_silent_is_not_waited_for() -> None:
    found = trajectories(patience=PATIENCE)
    found.add(visit(0, "u", 0), 1)
    visits = visit(100, "v", 0), visit(200, "v", 1), visit(IDLE + 100, "v", 2), visit(IDLE + 200, "v", 0)
    assert led(steps_of(found, *visits, source=0)) == [("u0", END), ("v100", 1), ("v200", 2)]


def test_what_comes_after_its_unit_has_gone_on_is_passed_over_and_counted() -> None:
    found = trajectories()
    visits = visit(10, "u", 0), visit(30, "u", 1), visit(20, "u", 2), visit(25, "v", 0), visit(40, "u", 2)
    steps = steps_of(found, *visits, visit(45, "v", 1))
    assert found.late == 1
    assert set(led(steps)) == {("u10", 1), ("u30", 2), ("v25", 1)}  # v is its own unit, and not late


def random_visits(seed: int, silence: int) -> list[Visit]:
    rng = random.Random(seed)
    time_ms, visits = 0, []
    for _ in range(120):
        time_ms += silence if rng.random() < 0.03 else rng.choice([1, 5, 20])
        visits.append(visit(time_ms, rng.choice("abcde"), rng.randrange(-1, 4), rng.randrange(-1, 2), rng.random()))
    return visits


@given(seed=st.integers(0, 10**6), sources=st.integers(1, 4))
def test_the_order_between_sources_does_not_matter(seed: int, sources: int) -> None:
    rng = random.Random(seed)
    visits = random_visits(seed, silence=1)
    queues: list[list[Visit]] = [[] for _ in range(sources)]
    for number, each in enumerate(visits):
        queues[number if number < sources else rng.randrange(sources)].append(each)
    # A source further behind than ``idle`` is taken for silent: here none is.
    mixed, straight = (Trajectories(END, frozenset({3}), 10_000, 0, 100) for _ in range(2))
    for source, queue in enumerate(queues):  # each is waited for from its first on
        mixed.add(queue.pop(0), source)
    found = []
    while any(queues):
        source = rng.choice([source for source in range(sources) if queues[source]])
        mixed.add(queues[source].pop(0), source)
        found += list(mixed.steps())
    last = [visit(10**6, f"last{source}", 0) for source in range(sources)]
    for source, each in enumerate(last):
        mixed.add(each, source)
    found += list(mixed.steps())
    assert found == steps_of(straight, *visits, *last)
    assert mixed.late == 0


@given(seed=st.integers(0, 10**6), cut=st.integers(0, 120))
def test_a_restart_changes_nothing(seed: int, cut: int) -> None:
    visits = random_visits(seed, silence=2_000)
    through, stopped, again = (trajectories(max_units=3, patience=PATIENCE) for _ in range(3))
    expected = steps_of(through, *visits)
    found = steps_of(stopped, *visits[:cut])
    again.restore(stopped.arrays()["trajectories"])
    found += steps_of(again, *visits[cut:])
    assert found == expected
    assert again.arrays()["trajectories"].tobytes() == through.arrays()["trajectories"].tobytes()


def test_a_damaged_state_is_refused() -> None:
    found = trajectories()
    steps_of(found, visit(1, "u", 0))
    with pytest.raises(ValueError, match="damaged"):
        trajectories().restore(found.arrays()["trajectories"][:-2])
