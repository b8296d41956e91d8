from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.errors import SnapshotError
from monitoring.state import decode, encode


@given(
    st.dictionaries(
        st.text(), st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text() | st.none()
    ),
    hnp.arrays(np.int64, st.integers(0, 20)),
    hnp.arrays(np.float64, st.integers(0, 20)),
    hnp.arrays(np.uint8, st.integers(0, 20)),
)
def test_everything_comes_back_bit_for_bit(
    fields: dict[str, float | int | str | None],
    integers: np.ndarray[tuple[int], np.dtype[np.int64]],
    floats: np.ndarray[tuple[int], np.dtype[np.float64]],
    raw: np.ndarray[tuple[int], np.dtype[np.uint8]],
) -> None:
    back, arrays = decode("a/1", encode("a/1", fields, {"integers": integers, "floats": floats, "raw": raw}))
    assert back == fields
    for name, dtype, expected in (
        ("integers", integers.dtype, integers.tobytes()),
        ("floats", floats.dtype, floats.tobytes()),
        ("raw", raw.dtype, raw.tobytes()),
    ):
        assert arrays[name].dtype == dtype
        assert arrays[name].tobytes() == expected


def test_another_kind_is_refused() -> None:
    with pytest.raises(SnapshotError, match="a/1"):
        decode("b/1", encode("a/1", {}, {}))


def test_what_has_no_form_is_refused_when_it_is_saved() -> None:
    with pytest.raises(TypeError, match="words"):
        encode("a/1", {}, {"words": np.array(["x"])})
    with pytest.raises(ValueError):
        encode("a/1", {"x": float("nan")}, {})
