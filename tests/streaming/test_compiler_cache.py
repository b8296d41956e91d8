from __future__ import annotations

from pathlib import Path

import pytest

from streaming.compiler_cache import warn_of_open_cache


@pytest.mark.parametrize(("mode", "warned"), [(0o700, 0), (0o755, 0), (0o775, 1), (0o777, 1), (0o1777, 1)])
def test_a_cache_that_others_may_write_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: int
) -> None:
    tmp_path.chmod(mode)
    warn_of_open_cache({"NUMBA_CACHE_DIR": str(tmp_path)})
    assert [str(tmp_path) in record.message for record in caplog.records] == [True] * warned


def test_without_the_variable_or_the_directory_nothing_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_open_cache({})
    warn_of_open_cache({"NUMBA_CACHE_DIR": str(tmp_path / "none")})
    assert not caplog.records
