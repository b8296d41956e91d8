"""The compiled loops of the oracles once more, in NumPy as the formulas read: what they are held to.

Each class has the functions of a module of kernels that learners and oracles call, under the same names.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]


class Ridge:
    """``engine.oracles.ridge_kernels``: recursive least squares with P and m of each block."""

    @staticmethod
    def columns_of(X: Float32, out: Float64) -> None:
        out[:] = 0.0
        out[:, 0] = 1.0
        out[:, 1 : 1 + X.shape[1]] = X

    @staticmethod
    def affine(X: Float32, W: Float64, offset: Float64, cosine: bool, at: int, out: Float64) -> None:
        inner = X.astype(np.float64) @ W + offset
        size = W.shape[1]
        out[:, at : at + size] = math.sqrt(2.0 / size) * np.cos(inner) if cosine else np.maximum(inner, 0.0)

    @staticmethod
    def score(Z: Float64, codes: Int64, theta: Float64, out: Float64) -> None:
        out[:] = (Z * theta[codes]).sum(axis=1)

    @staticmethod
    def quadratic(Z: Float64, blocks: Int64, context: int, P: Float64, out: Float64) -> None:
        out[:] = np.maximum(np.einsum("ri,rij,rj->r", Z, P[blocks], Z), 0.0)

    @staticmethod
    def follow(
        Z: Float64, codes: Int64, P: Float64, m: Float64, L: Float64, hierarchical: bool, low: float, noise: float,
        mean: Float64, std: Float64,
    ) -> None:  # fmt: skip
        for row, (z, k) in enumerate(zip(Z, codes, strict=True)):
            theta = m[k] + P[k] @ (L[k] * m[0]) if hierarchical and k > 0 else m[k]
            mean[row] = low + z @ theta
            std[row] = noise * math.sqrt(max(z @ P[k] @ z, 0.0))

    @staticmethod
    def learn(
        Z: Float64, codes: Int64, rewards: Float64, weights: Float64, start: int, structure: int, forgetting: float,
        interval: int, far: float, A: Float64, b: Float64, P: Float64, m: Float64, L: Float64, age: Int64,
        noise: Float64,
    ) -> tuple[int, bool, bool]:  # fmt: skip
        for row in range(start, len(Z)):
            z, y, w, code = Z[row], rewards[row], weights[row], int(codes[row])
            blocks = {0: [0], 1: [code], 2: sorted({0, code})}[structure]
            judge = blocks[-1]
            prior = P[judge] @ (L[judge] * m[0]) if structure == 2 and judge > 0 else 0.0
            error = y - z @ (m[judge] + prior)
            noise *= forgetting
            noise += np.array([w * error**2 / (1.0 + w * (z @ P[judge] @ z)), w])
            again = {}
            for k in blocks:
                u = P[k] @ z
                q = z @ u
                A[k] = forgetting * A[k] + w * np.outer(z, z)
                b[k] = forgetting * b[k] + w * y * z
                L[k] *= forgetting
                age[k] += 1
                again[k] = bool(age[k] >= interval or not w * q <= far)
                if not again[k]:
                    # Sherman and Morrison: the inverse of forgetting A + w z z'.
                    m[k] += w / (forgetting + w * q) * (y - z @ m[k]) * u
                    P[k] = (P[k] - w / (forgetting + w * q) * np.outer(u, u)) / forgetting
            if any(again.values()):
                return row + 1, again.get(0, False), code > 0 and again.get(code, False)
        return len(Z), False, False


def place(i: int, j: int, mask: int) -> int:
    """The finaliser of splitmix64 over a pair of columns."""
    most = 2**64 - 1
    h = (i * 0x9E3779B97F4A7C15 + j * 0xC2B2AE3D27D4EB4F + 0x165667B19E3779F9) & most
    h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9 & most
    h = (h ^ (h >> 27)) * 0x94D049BB133111EB & most
    return (h ^ (h >> 31)) & mask


def moved(score: float, target: float, push: float) -> float:
    """The score after infinitely many small steps of log loss: d score / d push = target - sigma(score)."""
    if target in (0.0, 1.0):
        # p + e^p rises by the push, p being the score, mirrored for 0.
        sign = 2.0 * target - 1.0
        begin = sign * score
        goal = begin + math.exp(begin) + push
        return sign * root(lambda p: p + math.exp(p) - goal, begin, begin + push)
    limit = math.log(target / (1.0 - target))
    sign, share = (1.0, 1.0 - target) if score > limit else (-1.0, target)
    distance = abs(score - limit)
    if distance == 0.0:
        return score
    # ln(e^d - 1) - share d falls by push target (1 - target), d being the distance from the limit.
    goal = math.log(math.expm1(distance)) - share * distance - push * target * (1.0 - target)
    log_distance = root(
        lambda z: math.log(math.expm1(math.exp(z))) - share * math.exp(z) - goal, -700.0, math.log(distance)
    )
    return limit + sign * math.exp(log_distance)


def root(f: Callable[[float], float], low: float, high: float) -> float:
    """A root between two numbers, of a function that rises."""
    if f(low) >= 0.0:
        return low
    return high if f(high) <= 0.0 else float(brentq(f, low, high, xtol=1e-16, rtol=1e-15, maxiter=1_000))


class Online:
    """``engine.oracles.online_kernels``: hashed features, and NAG with importance-invariant steps.

    No two features of a row may share an entry: of such the one that comes first is learned first.
    """

    @staticmethod
    def features(x: Float32, code: int, context: int, pairs: Bool, mask: int) -> list[tuple[int, float]]:
        """Return entry and value of each feature; a pair of the same kind has its square too."""
        there = [(int(j), float(x[j])) for j in np.flatnonzero(x)]
        shared, own = ([f for f in there if (f[0] < context) == first] for first in (True, False))
        found = [(place(0, 0, mask), 1.0), *((place(0, j + 1, mask), value) for j, value in there)]
        both = [*itertools.combinations_with_replacement(shared, 2)] if pairs[0] else []
        both += itertools.product(shared, own) if pairs[1] else []
        both += itertools.combinations_with_replacement(own, 2) if pairs[3] else []
        found += [(place(i + 1, j + 1, mask), v * u) for (i, v), (j, u) in both]
        if code > 0:
            identity = len(x) + code
            found.append((place(0, identity, mask), 1.0))
            found += [(place(j + 1, identity, mask), v) for j, v in shared if pairs[2]]
            found += [(place(j + 1, identity, mask), v) for j, v in own if pairs[4]]
        return found

    @classmethod
    def score(
        cls, X: Float32, codes: Int64, context: int, pairs: Bool, w: Float64, s: Float64, H: Float64, ridge: float,
        out: Float64, variance: Float64, uncertain: bool,
    ) -> None:  # fmt: skip
        for row, (x, code) in enumerate(zip(X, codes, strict=True)):
            found = cls.features(x, int(code), context, pairs, len(w) - 1)
            out[row] = sum(w[i] * v for i, v in found)
            largest = [max(s[i], abs(v)) for i, v in found]
            parts = [v**2 / (ridge * most**2 + H[i]) for (i, v), most in zip(found, largest, strict=True) if most > 0.0]
            variance[row] = sum(parts) if uncertain else 0.0

    @classmethod
    def learn(
        cls, X: Float32, codes: Int64, targets: Float64, weights: Float64, context: int, pairs: Bool, logistic: bool,
        rate: float, ridge: float, w: Float64, s: Float64, G: Float64, H: Float64, state: Float64,
    ) -> None:  # fmt: skip
        for x, code, y, h in zip(X, codes, targets, weights, strict=True):
            if h <= 0.0:
                continue
            found = cls.features(x, int(code), context, pairs, len(w) - 1)
            norm = 0.0
            for i, v in found:
                if abs(v) > s[i]:
                    w[i] *= s[i] / abs(v)
                    s[i] = abs(v)
                norm += (v / s[i]) ** 2
            p = sum(w[i] * v for i, v in found)
            mu = 1.0 / (1.0 + math.exp(-p)) if logistic else p
            state += np.array([h * norm, h, h * (y - mu) ** 2])
            for i, v in found:
                H[i] += h * (max(mu * (1.0 - mu), 1e-6) if logistic else 1.0) * v**2
                G[i] += h * (mu - y) ** 2 * v**2
            speed = [math.sqrt(state[1] / state[0]) * v / (s[i] * math.sqrt(G[i])) if G[i] else 0.0 for i, v in found]
            q = sum(v * f for (_, v), f in zip(found, speed, strict=True))
            if q <= 0.0:
                continue
            push = h * rate * q
            to = moved(p, y, push) if logistic else y + (p - y) * math.exp(-push)
            for (i, _), f in zip(found, speed, strict=True):
                w[i] += (to - p) / q * f
