"""A ranked list slot by slot: any exploration over the actions that are left."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engine.exploration import Exploration
from engine.prediction import Prediction
from engine.sampling import draw
from engine.slates.slate import Slate

#: What the oracle says of all actions, given those that stand in the list so far.
Rescore = Callable[[tuple[int, ...]], Prediction]


def cascade(
    exploration: Exploration,
    prediction: Prediction | Rescore,
    learned: int,
    slots: int,
    *,
    decision_id: str,
    salt: str,
) -> Slate:
    """Draw a list slot by slot, each from the exploration's vector over the actions that are left.

    Unlike Plackett-Luce the exploration weighs anew for each slot: after the best action is placed, the second is the
    best of the rest, and gets what a best one gets.

    Parameters
    ----------
    exploration
        Any.
    prediction
        Of all actions, in units of the reward's range; or a function from the list so far to that, where what stands
        above changes what an action is worth.
    learned : int
        Number of feedbacks that the oracle has learned from.
    slots : int
        At most the number of actions; ``ValueError`` is raised otherwise.
    decision_id, salt
        Decide the draw: slot j is drawn with the salt ``salt/j``.

    Examples
    --------
    >>> import numpy as np
    >>> from engine.exploration import SquareCB
    >>> prediction = Prediction(np.array([0.8, 0.5, 0.1]))
    >>> slate = cascade(SquareCB(), prediction, 100, 2, decision_id="d1", salt="leeway")
    >>> slate.vectors.round(3).tolist()
    [[0.956, 0.03, 0.014], [0.0, 0.976, 0.024]]
    """
    so_far: tuple[int, ...] = ()
    vectors: list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = []
    while len(so_far) < slots:
        scored = prediction if isinstance(prediction, Prediction) else prediction(so_far)
        count = len(scored.mean)
        if not slots <= count:
            raise ValueError(f"{slots} slots for {count} actions; ask for 1 to {count}")
        left = np.ones(count, dtype=np.bool_)
        left[list(so_far)] = False
        vector = np.zeros(count)
        vector[left] = exploration.pmf(scored.take(left), learned)
        so_far = (*so_far, draw(decision_id, f"{salt}/{len(so_far)}", vector.tolist()))
        vectors.append(vector)
    if not vectors:
        raise ValueError(f"{slots} slots; ask for at least 1")
    return Slate(so_far, np.array(vectors))
