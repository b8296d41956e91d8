"""What an oracle says of the actions of one request: the seam between oracles and explorations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

#: What an exploration may need beside the mean.
Part = Literal["std", "members", "rows"]


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Expected reward of each action, and how sure of it the oracle is.

    Attributes
    ----------
    mean : ndarray of float64, shape (n_actions,)
        Expected reward.
    std : ndarray of float64, shape (n_actions,), optional
        One standard deviation of what the oracle does not know about ``mean`` (of the estimate, not of the reward).
    members : ndarray of float64, shape (n_members, n_actions), optional
        What each member of an ensemble expects.
    rows : ndarray of float32, shape (n_actions, width), optional
        The encoded (context, action) pairs, for explorations that look at where actions lie.
    """

    mean: Float64
    std: Float64 | None = None
    members: Float64 | None = None
    rows: NDArray[np.float32] | None = None

    def take(self, index: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Prediction:
        """Return the same of some actions.

        >>> import numpy as np
        >>> Prediction(np.array([0.1, 0.2, 0.3])).take(np.array([True, False, True])).mean.tolist()
        [0.1, 0.3]
        """
        return Prediction(
            self.mean[index],
            None if self.std is None else self.std[index],
            None if self.members is None else self.members[:, index],
            None if self.rows is None else self.rows[index],
        )

    def times(self, unit: float) -> Prediction:
        """Return the same in another unit of reward: what was 1 is ``unit`` then."""
        return Prediction(
            self.mean * unit,
            None if self.std is None else self.std * unit,
            None if self.members is None else self.members * unit,
            self.rows,
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Prediction]) -> Prediction:
        """Return the actions of one or more predictions of one kind, one after the other."""
        first = parts[0]
        return cls(
            np.concatenate([part.mean for part in parts]),
            None if first.std is None else np.concatenate([part.std for part in parts if part.std is not None]),
            None
            if first.members is None
            else np.concatenate([part.members for part in parts if part.members is not None], axis=1),
            None if first.rows is None else np.concatenate([part.rows for part in parts if part.rows is not None]),
        )
