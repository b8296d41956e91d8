"""No request, however it was mutated, ends otherwise than with words for its caller."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.samples import request
from tests.engine.serving.world import REQUESTS, served
from tests.fuzz.attack import Attack
from tests.fuzz.attacked import attacked, resident_mib

#: What a server may grow by: its caches, and what the allocator keeps.
MOST_MIB = 200.0


def test_mutated_requests_are_refused_in_words_and_good_ones_answered(tmp_path: Path) -> None:
    with served(tmp_path) as world:
        attack = Attack(world.target, None, REQUESTS, request())
        for _ in attack.run(400):
            pass
        assert attack.tally.wrong == []
        assert attack.tally.ends["good right"] == 9
        assert attack.tally.ends.total() == 409


@pytest.mark.slow
def test_a_served_process_outlives_five_thousand_mutated_requests(tmp_path: Path) -> None:
    with attacked(tmp_path) as (service, begin):
        pid, before = service.pid("serve"), resident_mib(service.pid("serve"))
        attack = begin(2)
        for _ in attack.run(5_000):
            pass
        assert attack.tally.wrong == []
        assert attack.tally.ends["good right"] == 101
        assert service.pid("serve") == pid, "it was started again"
        assert resident_mib(pid) - before < MOST_MIB
        assert "request failed" not in service.messages()
