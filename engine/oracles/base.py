"""What an oracle is: a regressor of expected reward from (context, action)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.features import Float32

Arrays = Mapping[str, NDArray[np.generic]]


class Oracle(Protocol):
    """A fitted, immutable regressor; safe to be asked by many threads at once."""

    kind: ClassVar[str]

    def predict(self, X: Float32, codes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the expected reward of each row.

        Parameters
        ----------
        X : ndarray of float32, shape (n_rows, width)
            Encoded (context, action) pairs.
        codes : ndarray of int64, shape (n_rows,)
            Code of each row's action; 0: an action that the oracle never saw.
        """

    def arrays(self) -> Arrays:
        """Return everything that the oracle is, as arrays without Python objects."""

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Oracle:
        """Build it again from ``arrays``, bit for bit."""
