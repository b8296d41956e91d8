"""Maps from an encoded row to the features that a ridge regression is linear in; frozen while it learns.

Rahimi and Recht, *Random Features for Large-Scale Kernel Machines*, NIPS 2007; Riquelme, Tucker and Snoek, *Deep
Bayesian Bandits Showdown*, ICLR 2018 (neural-linear).
"""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
from numpy.typing import NDArray

from engine.config.oracle import FourierConfig, NeuralConfig, RawConfig
from engine.features import Float32
from engine.oracles.base import Arrays, Float64

Layer = tuple[Float64, Float64]


class FeatureMap:
    """Returns 1, the columns, and what some layers make of them. Never changes.

    Parameters
    ----------
    width : int
        Columns of X.
    layers : list of (W, offset)
        W of shape (n_in, n_out), offset of shape (n_out,), float64. None: the columns alone.
    cosine : bool
        One layer of cosines (random Fourier features); otherwise layers of max(0, .).
    spread : float
        Bandwidth of the cosines: W is divided by it. 0: not known yet, and the features are 0.
    """

    def __init__(
        self, width: int, layers: list[Layer] | None = None, *, cosine: bool = False, spread: float = 1.0
    ) -> None:
        from engine.oracles import ridge_kernels

        self._kernels = ridge_kernels
        self.width = width
        self.layers = layers or []
        self.cosine = cosine
        self.spread = spread
        self._scaled = [(W / spread, offset) for W, offset in self.layers] if cosine and spread else self.layers

    @classmethod
    def make(cls, config: RawConfig | FourierConfig | NeuralConfig, width: int) -> FeatureMap:
        """Build the map of a configuration, with the random numbers of its seed."""
        if isinstance(config, RawConfig):
            return cls(width)
        rng = np.random.default_rng(config.seed)
        if isinstance(config, FourierConfig):
            layer = (rng.normal(size=(width, config.size)), rng.uniform(0.0, 2.0 * math.pi, config.size))
            return cls(width, [layer], cosine=True, spread=0.0)
        layers = []
        for fan_in, fan_out in itertools.pairwise([width, *config.hidden]):
            # He et al. 2015: keeps the scale of a layer's output that of its input.
            layers.append((rng.normal(size=(fan_in, fan_out)) * math.sqrt(2.0 / max(fan_in, 1)), np.zeros(fan_out)))
        return cls(width, layers)

    def with_spread(self, spread: float) -> FeatureMap:
        """Return the same map with another bandwidth."""
        return FeatureMap(self.width, self.layers, cosine=self.cosine, spread=spread)

    @classmethod
    def fitted(cls, config: NeuralConfig, X: Float32, rewards: Float64) -> FeatureMap:
        """Fit a network to rewards and return its hidden layers; on scaled columns, scales folded into the weights."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPRegressor

        mean, std = X.mean(axis=0, dtype=np.float64), X.std(axis=0, dtype=np.float64)
        std = np.where(std > 0.0, std, 1.0)
        network = MLPRegressor(config.hidden, random_state=config.seed, early_stopping=len(X) >= 100, max_iter=100)
        unit = float(rewards.std()) or 1.0
        with warnings.catch_warnings():
            # Where it stops is as good a feature map as where it would converge.
            warnings.simplefilter("ignore", ConvergenceWarning)
            network.fit((X - mean) / std, (rewards - rewards.mean()) / unit)
        layers = [(np.array(W, dtype=np.float64), np.array(b, dtype=np.float64))
                  for W, b in zip(network.coefs_[:-1], network.intercepts_[:-1], strict=True)]  # fmt: skip
        W, b = layers[0]
        layers[0] = (W / std[:, None], b - (mean / std) @ W)
        return cls(X.shape[1], layers)

    @property
    def size(self) -> int:
        """Number of features, the constant among them."""
        return 1 + self.width + (self.layers[-1][0].shape[1] if self.layers else 0)

    def transform(self, X: Float32) -> Float64:
        """Return the features of each row, shape (n_rows, size); the same bits whatever rows stand beside it."""
        if X.shape[1] != self.width:
            raise ValueError(f"rows have {X.shape[1]} columns, and the oracle {self.width}")
        rows = np.ascontiguousarray(X, dtype=np.float32)
        Z = np.empty((len(rows), self.size))
        self._kernels.columns_of(rows, Z)
        if self.layers and self.spread:
            for W, offset in self._scaled[:-1]:
                hidden = np.empty((len(rows), W.shape[1]))
                self._kernels.affine(rows, W, offset, self.cosine, 0, hidden)
                rows = hidden.astype(np.float32)
            self._kernels.affine(rows, *self._scaled[-1], self.cosine, 1 + self.width, Z)
        return Z

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return its layers."""
        arrays: dict[str, NDArray[np.generic]] = {
            "map": np.array([self.width, self.cosine, len(self.layers)]),
            "spread": np.array([self.spread]),
        }
        for i, (W, offset) in enumerate(self.layers):
            arrays |= {f"map_W{i}": W, f"map_offset{i}": offset}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> FeatureMap:
        """Build it again; raises ``ValueError`` where they do not fit each other."""
        form, spread = np.array(arrays["map"]), np.array(arrays["spread"], dtype=np.float64)
        if form.shape != (3,) or form.dtype.kind != "i" or form.min() < 0 or form[2] > 3:
            raise ValueError(f"map {form} is no form of a feature map")
        if spread.shape != (1,) or not 0.0 <= spread[0] < math.inf:
            raise ValueError(f"spread {spread} must be one finite number, not negative")
        width, cosine, count = form.tolist()
        layers = []
        fan_in = width
        for i in range(count):
            W, offset = (np.array(arrays[f"map_{name}{i}"], dtype=np.float64) for name in ("W", "offset"))
            if W.ndim != 2 or len(W) != fan_in or offset.shape != W.shape[1:] or not W.shape[1]:
                raise ValueError(f"layer {i} of the feature map has shapes {W.shape} and {offset.shape}")
            if not (np.isfinite(W).all() and np.isfinite(offset).all()):
                raise ValueError(f"layer {i} of the feature map must be finite")
            fan_in = W.shape[1]
            layers.append((W, offset))
        return cls(width, layers, cosine=bool(cosine), spread=float(spread[0]))


class Spread:
    """How far rows lie apart: the root of their mean squared distance, from a few rows.

    Attributes
    ----------
    sums : ndarray of float64, shape (2, width)
        Of the columns and of their squares, from the first row's values.
    first : ndarray of float64, shape (width,)
    rows : int
    """

    def __init__(self, width: int) -> None:
        self.rows = 0
        self.first = np.zeros(width)
        self.sums = np.zeros((2, width))

    def add(self, X: Float32) -> None:
        """Take rows in, one after the other, so that the bits do not depend on the batches."""
        for row in X.astype(np.float64):
            if not self.rows:
                self.first = row
            self.rows += 1
            self.sums += [row - self.first, (row - self.first) ** 2]

    def value(self) -> float:
        """Return it; 1 where all rows are the same. Two independent rows differ by twice the variance."""
        mean, square = self.sums / max(self.rows, 1)
        return math.sqrt(2.0 * float(np.maximum(square - mean**2, 0.0).sum())) or 1.0

    def array(self) -> Float64:
        """Return all that it is."""
        return np.concatenate([[self.rows], self.first, *self.sums])

    @classmethod
    def from_array(cls, array: NDArray[np.generic], width: int) -> Spread:
        """Build it again; raises ``ValueError``."""
        numbers = np.array(array, dtype=np.float64)
        if numbers.shape != (1 + 3 * width,) or not np.isfinite(numbers).all():
            raise ValueError(f"spread of shape {numbers.shape} does not fit {width} columns")
        spread = cls(width)
        spread.rows = int(numbers[0])
        spread.first, spread.sums = numbers[1 : 1 + width].copy(), numbers[1 + width :].reshape(2, width).copy()
        return spread
