"""Predictions to hold explorations to: any scores, with everything that an exploration may need beside them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.prediction import Prediction

Float64 = NDArray[np.float64]

learned_counts = st.one_of(st.integers(0, 3), st.integers(0, 10**18))


@st.composite
def random_scores(draw_: st.DrawFn) -> Float64:
    """Draw up to 10,000 scores of any magnitude, with and without ties."""
    count = draw_(st.sampled_from([1, 2, 3, 10, 100, 10_000]))
    rng = np.random.default_rng(draw_(st.integers(0, 2**32 - 1)))
    shape = draw_(st.sampled_from(["normal", "ties", "equal", "one stands out"]))
    scores: Float64
    match shape:
        case "normal":
            scores = rng.normal(size=count)
        case "ties":
            scores = rng.integers(-1, 2, size=count).astype(np.float64)
        case "equal":
            scores = np.full(count, rng.normal())
        case _:
            scores = np.zeros(count)
            scores[rng.integers(count)] = rng.choice([-1.0, 1.0])
    return scores * draw_(st.sampled_from([1e-300, 1e-6, 1.0, 1e6, 1e300]))


any_scores = st.one_of(
    random_scores(),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=12).map(np.array),
)


def complete(scores: Float64, seed: int = 0, *, equal: bool = False) -> Prediction:
    """Return a prediction with all parts.

    Std and members have the magnitude of the scores. ``equal``: actions that tie in score tie in std and members too.
    """
    rng = np.random.default_rng(seed)
    count = len(scores)
    magnitude = float(min(np.abs(scores).max(), 1e300)) or 1.0
    if equal:
        std = np.full(count, 0.1 * magnitude)
        members = np.tile(scores, (3, 1))
    else:
        # Some know their value to the last digit.
        std = magnitude * rng.choice([0.0, 1e-9, 0.01, 0.1, 1.0], size=count)
        members = 0.5 * scores + 0.5 * magnitude * rng.normal(size=(5, count)).clip(-1.0, 1.0).round(1)
    return Prediction(scores, std, members, rng.normal(size=(count, 4)).astype(np.float32))


@st.composite
def any_prediction(draw_: st.DrawFn) -> Prediction:
    """Draw a prediction with all parts."""
    return complete(draw_(any_scores), draw_(st.integers(0, 2**32 - 1)))
