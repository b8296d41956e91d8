"""The features of a recommender: fields of two sides, and rows of them once they are encoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Side = Literal["user", "item"]
Kind = Literal["statistical", "categorical", "sequential", "dense"]
SIDES: tuple[Side, Side] = ("user", "item")

#: Codes of categories; what a vocabulary holds has the codes from ``FIRST`` on.
MISSING, UNSEEN, FIRST = 0, 1, 2

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Field:
    """One feature of the user (that is, of the request) or of an item.

    Parameters
    ----------
    name
        Of its column; no other field, of either side, has it.
    kind
        ``statistical``: a number, cut into buckets. ``categorical``: a text or whole number out of a vocabulary.
        ``sequential``: a list of those, the latest last. ``dense``: a vector, taken as it is.
    length
        Sequential: the most entries that are kept, the latest ones. Dense: size of the vector.
    vocabulary
        Categorical and sequential: name of its vocabulary, which fields may share, such as the id of an item and a
        history of such ids. Empty: the field's own name.
    buckets
        Statistical: the number of buckets, without that of missing values.

    Raises
    ------
    ValueError
        A setting is out of its range, or is none of this kind.

    Examples
    --------
    >>> Field("recent", "sequential", length=20, vocabulary="item_id").codes
    'item_id'
    """

    name: str
    kind: Kind
    length: int = 1
    vocabulary: str = ""
    buckets: int = 50

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a field needs a name")
        if self.length < 1:
            raise ValueError(f"field {self.name}: length must be at least 1, got {self.length}")
        if self.length > 1 and self.kind in ("statistical", "categorical"):
            raise ValueError(f"field {self.name}: length is of sequential and dense fields; this one is {self.kind}")
        if self.buckets < 2:
            raise ValueError(f"field {self.name}: buckets must be at least 2, got {self.buckets}")
        if self.vocabulary and not self.coded:
            raise ValueError(f"field {self.name}: a {self.kind} field has no vocabulary")

    @property
    def coded(self) -> bool:
        """Whether its values are codes of a vocabulary."""
        return self.kind in ("categorical", "sequential")

    @property
    def codes(self) -> str:
        """Name of its vocabulary."""
        return self.vocabulary or self.name


@dataclass(frozen=True, slots=True)
class Rows:
    """Encoded fields of n rows of one side; within a kind, in the order in which the fields were declared.

    Parameters
    ----------
    statistical : ndarray of int32, shape (n, S)
        Bucket, from 0 to ``buckets - 1``; ``buckets``: missing.
    categorical : ndarray of int32, shape (n, C)
        0: missing; 1: unseen or rare; from 2 on: known.
    sequential : ndarray of int32, shape (n, Q, L)
        The same codes, the entries first and then zeros as padding; L is the longest length of the side's fields.
    dense : ndarray of float32, shape (n, D)
        The numbers of all dense fields, one field after the other.
    """

    statistical: Int32
    categorical: Int32
    sequential: Int32
    dense: Float32

    def __len__(self) -> int:
        return len(self.statistical)

    def take(self, indices: NDArray[np.integer]) -> Rows:
        """Return the rows of these indices, in their order; one may come several times."""
        return Rows(self.statistical[indices], self.categorical[indices], self.sequential[indices], self.dense[indices])
