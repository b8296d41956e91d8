"""LightGBM oracle: gradient-boosted trees, fitted in batch by ``training`` and served unchanged."""

from __future__ import annotations

import zlib
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from engine.features import Float32
from engine.oracles.base import Arrays
from engine.oracles.forest import Forest


class LightGBMOracle:
    """Expected reward from boosted trees over the encoded row and the action's code.

    Parameters
    ----------
    text : str
        The model in LightGBM's own text form (``Booster.model_to_string``). Its last feature is the action code.

    Notes
    -----
    Trees of a regression or of two classes are walked by :class:`engine.oracles.forest.Forest`, whose numbers are
    LightGBM's, without importing LightGBM. What that does not know (another objective, linear trees, zeros that count
    as missing) is left to ``Booster.predict``, which many threads may call at once (LightGBM#666). Rows are finite.
    """

    kind: ClassVar[str] = "lightgbm"

    def __init__(self, text: str) -> None:
        self.text = text
        forest = Forest.read(text)
        self._trees: Forest | _Booster = _Booster(text) if forest is None else forest

    def predict(self, X: Float32, codes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the expected reward of each row; see ``Oracle.predict``."""
        if X.shape[1] + 1 != self._trees.width:
            raise ValueError(f"rows have {X.shape[1]} columns, and the oracle {self._trees.width - 1}")
        return self._trees.predict(X, codes)

    def arrays(self) -> Arrays:
        """Return the model's text as bytes, and its checksum."""
        model = self.text.encode()
        return {"model": np.frombuffer(model, dtype=np.uint8), "crc32": np.array(zlib.crc32(model))}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> LightGBMOracle:
        """Build it from the text; raises ``ValueError`` where it is damaged."""
        model = np.asarray(arrays["model"], dtype=np.uint8).tobytes()
        # LightGBM's parser takes some cut texts for whole ones, and others end the process.
        if zlib.crc32(model) != int(arrays["crc32"]):
            raise ValueError("the text of the LightGBM model does not match its checksum")
        return cls(model.decode())


class _Booster:
    """LightGBM itself, as ``Forest``."""

    def __init__(self, text: str) -> None:
        import lightgbm  # a process that serves other policies saves the second that it takes

        try:
            self._booster = lightgbm.Booster(model_str=text)
        except lightgbm.basic.LightGBMError as error:
            raise ValueError(f"no readable LightGBM model: {error}") from error
        self.width = int(self._booster.num_feature())

    def predict(self, X: Float32, codes: NDArray[np.int64]) -> NDArray[np.float64]:
        rows = np.column_stack([X, codes.astype(np.float32)])
        return np.asarray(self._booster.predict(rows, num_threads=1), dtype=np.float64)
