"""JAX compiles these tiny models without optimising them: that would take most of the tests' time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import pytest

_CONFIG: Any = jax.config


@pytest.fixture(scope="package", autouse=True)
def _compiled_fast() -> Iterator[None]:
    _CONFIG.update("jax_disable_most_optimizations", True)
    yield
    _CONFIG.update("jax_disable_most_optimizations", False)
