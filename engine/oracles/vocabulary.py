"""Codes of action ids, given in the order in which actions are first seen."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class Vocabulary:
    """Codes 1, 2, ... of at most ``limit`` action ids; any other has code 0.

    Examples
    --------
    >>> vocabulary = Vocabulary(2)
    >>> vocabulary.learn(["b", "a", "b", "c"]).tolist()
    [1, 2, 1, 0]
    >>> vocabulary.ids
    ['b', 'a']
    """

    def __init__(self, limit: int, ids: Sequence[str] = ()) -> None:
        self.limit = limit
        self.ids = list(ids)
        self._codes = {action: code for code, action in enumerate(self.ids, start=1)}

    @property
    def full(self) -> bool:
        """Whether no further action gets a code."""
        return len(self.ids) >= self.limit

    def learn(self, actions: Sequence[str]) -> NDArray[np.int64]:
        """Return the code of each action; one that is new gets the next code while there is room."""
        known = self._codes
        codes = np.empty(len(actions), dtype=np.int64)
        for i, action in enumerate(actions):
            code = known.get(action)
            if code is None:
                if len(self.ids) >= self.limit:
                    code = 0
                else:
                    self.ids.append(action)
                    code = known[action] = len(self.ids)
            codes[i] = code
        return codes

    def array(self) -> NDArray[np.uint8]:
        """Return the ids as bytes: an array of texts would pad each to the longest and lose zero bytes at the end."""
        return np.frombuffer(json.dumps(self.ids).encode(), dtype=np.uint8)

    @classmethod
    def from_array(cls, limit: int, array: NDArray[np.generic]) -> Vocabulary:
        """Build it again; raises ``ValueError`` where the bytes are damaged."""
        ids = json.loads(np.asarray(array, dtype=np.uint8).tobytes())
        if not isinstance(ids, list) or not all(isinstance(action, str) for action in ids) or len(ids) > limit:
            raise ValueError(f"the vocabulary must be a list of at most {limit} texts")
        return cls(limit, ids)
