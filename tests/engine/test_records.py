from __future__ import annotations

import math
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.records import FallbackReason, entropy, fallback_name, generation_of, new_id, policy_version


def test_ids_are_128_random_bits() -> None:
    ids = {new_id() for _ in range(1_000)}
    assert len(ids) == 1_000
    assert all(re.fullmatch(r"[0-9a-f]{32}", identity) for identity in ids)


@given(st.integers(0, 10**6), st.integers(0, 10**9), st.text("0123456789abcdef", min_size=8, max_size=64))
def test_the_generation_can_be_read_from_a_version(generation: int, update: int, digest: str) -> None:
    assert generation_of(policy_version(generation, update, digest)) == generation


@pytest.mark.parametrize(
    "text", ["", "g1", "g1.2", "g1.2-3fa9c1d", "g1.2-3fa9c1de0", "G1.2-3fa9c1de", "g-1.2-3fa9c1de", " g1.2-3fa9c1de"]
)
def test_another_text_is_no_version(text: str) -> None:
    with pytest.raises(ValueError, match="is no policy version"):
        generation_of(text)


@given(st.integers(1, 1_000))
def test_entropy_of_the_uniform_vector_is_the_logarithm_of_its_length(count: int) -> None:
    assert entropy([1.0 / count] * count) == pytest.approx(math.log(count), abs=1e-12)


def test_entropy_of_certainty_is_a_positive_zero() -> None:
    assert math.copysign(1.0, entropy([0.0, 1.0, 0.0])) == 1.0
    assert entropy([0.5, 0.5, 0.0]) == pytest.approx(math.log(2.0))


def test_every_fallback_reason_has_a_short_name() -> None:
    names = [fallback_name(reason) for reason in FallbackReason.values()]
    assert names == ["none", "oracle_failed", "deadline", "client", "overload"]


def test_a_process_that_was_forked_gives_other_ids() -> None:
    new_id()
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(sending, new_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(receiving, 32).decode()
    os.close(receiving)
    os.close(sending)
    assert theirs not in {new_id() for _ in range(600)}
