"""LightGBM oracle: gradient-boosted trees, fitted in batch by ``training`` and served unchanged."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from engine.features import Float32
from engine.oracles.base import Arrays
from engine.oracles.lightgbm_c import MatrixPredictor

if TYPE_CHECKING:
    import lightgbm


class LightGBMOracle:
    """Expected reward from boosted trees over the encoded row and the action's code.

    Parameters
    ----------
    text : str
        The model in LightGBM's own text form (``Booster.model_to_string``). Its last feature is the action code.

    Notes
    -----
    All actions of a request are one matrix and one call on one thread: many threads may ask at once, and none
    waits for an OpenMP team. Plain ``Booster.predict`` is safe to call concurrently (LightGBM#666).
    """

    kind: ClassVar[str] = "lightgbm"

    def __init__(self, text: str) -> None:
        # Imported here: a process that serves linear policies alone saves the second that it takes.
        import lightgbm

        self.text = text
        try:
            self._booster: lightgbm.Booster = lightgbm.Booster(model_str=text)
        except lightgbm.basic.LightGBMError as error:
            raise ValueError(f"no readable LightGBM model: {error}") from error
        self._width = int(self._booster.num_feature())
        try:
            self._matrix: MatrixPredictor | None = MatrixPredictor(self._booster)
        except AttributeError:
            # Another LightGBM keeps its C functions elsewhere: ``Booster.predict`` gives the same numbers, later.
            self._matrix = None

    def predict(self, X: Float32, codes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the expected reward of each row; see ``Oracle.predict``."""
        if self._matrix is not None and len(X):
            if X.shape[1] + 1 != self._width:
                raise ValueError(f"rows have {X.shape[1]} columns, and the oracle {self._width - 1}")
            return self._matrix(X, codes)
        rows = np.column_stack([X, codes.astype(np.float32)])
        return np.asarray(self._booster.predict(rows, num_threads=1), dtype=np.float64)

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
