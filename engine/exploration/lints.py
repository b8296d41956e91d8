"""LinTS: Thompson sampling with exact propensities.

Agrawal and Goyal, *Thompson Sampling for Contextual Bandits with Linear Payoffs*, ICML 2013.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from engine.compiled import compiled
from engine.config import ExplorationConfig, LinTSConfig
from engine.exploration.base import GREATEST, Exploration, Float64, Range
from engine.exploration.summation import precise_sum
from engine.prediction import Part, Prediction


class LinTS(Exploration):
    """The probability that an action's value is the greatest, when each is normal with its own mean and std.

    Thompson sampling draws a value of each action and takes the best. Its probability is known here without drawing::

        p_a = integral of phi_a(z) * product of Phi_b(z) over b other than a, dz

    by Gauss-Legendre quadrature to about 1e-10. The values of different actions are taken as **independent**: exact for
    one regression by action; where actions share coefficients, one draw of them would move all actions together,
    and this explores more than that.

    Parameters
    ----------
    scale
        Factor on every standard deviation; v of the paper.

    Notes
    -----
    Every action has a positive probability in theory. One that is 8 standard deviations behind gets 0 here, and one
    that is nearly that may get 1e-12: wrap it in ``floor`` where logs are to be reused.

    Examples
    --------
    >>> import numpy as np
    >>> prediction = Prediction(np.array([0.5, 0.4]), std=np.array([0.03, 0.04]))
    >>> LinTS().pmf(prediction, learned=10).round(10).tolist()  # Phi(0.1 / 0.05) = Phi(2)
    [0.9772498681, 0.0227501319]
    """

    kind: ClassVar[str] = "lints"
    needs: frozenset[Part] = frozenset({"std"})

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    @classmethod
    def from_config(cls, config: ExplorationConfig, reward_range: Range) -> LinTS:
        """Build it from ``policy.exploration``."""
        assert isinstance(config, LinTSConfig)
        return cls(config.scale)

    def vector(self, prediction: Prediction, learned: int) -> Float64:
        """Return the probabilities of being the best."""
        assert prediction.std is not None
        return probabilities_of_the_best(prediction.mean, prediction.std, self.scale)


#: Standard deviations beyond which a normal counts as 0 or 1: 6e-16.
_REACH = 8.0
#: Width of a panel in the smallest standard deviation that is felt in it; narrower for more actions.
_PANEL = 3.0
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_SQRT_2PI = math.sqrt(2.0 * math.pi)


@compiled("float64(float64)")
def _cdf(t: float) -> float:
    return 0.5 * math.erfc(-t * math.sqrt(0.5))


@compiled("float64[::1](float64[::1], float64[::1], float64)", nogil=True)
def probabilities_of_the_best(mean: Float64, std: Float64, scale: float) -> Float64:
    """Return the probability of each of some independent normals to be the greatest.

    Parameters
    ----------
    mean, std
        Of each; an std of 0 is a certain value.
    scale
        Factor on std.
    """
    count = len(mean)
    top = mean.max()
    m = np.empty(count)
    s = np.empty(count)
    unit = 0.0
    for i in range(count):
        m[i] = -min(top - mean[i], GREATEST)
        s[i] = min(scale * std[i], GREATEST)
        unit = max(unit, s[i], -m[i])
    p = np.zeros(count)
    # The greatest certain value, which every other has to pass.
    certain = -np.inf
    low = -np.inf
    high = -np.inf
    for i in range(count):
        if unit > 0.0:
            m[i] /= unit
            s[i] /= unit
        if s[i] <= -1e-13 * m[i]:  # beyond what float64 tells apart there
            s[i] = 0.0
            certain = max(certain, m[i])
        else:
            low = max(low, m[i] - _REACH * s[i])
            high = max(high, m[i] + _REACH * s[i])
    low = max(low, certain)

    # Only what can reach above everybody's lower end has a part in it.
    alive = np.empty(count, dtype=np.int64)
    n = 0
    for i in range(count):
        if s[i] > 0.0 and m[i] + _REACH * s[i] > low:
            alive[n] = i
            n += 1
    panel = _PANEL / math.sqrt(1.0 + 0.25 * math.log(max(n, 1)))
    phi = np.empty(n)
    deviates = np.empty(n)
    z = low
    while z < high and n > 0:
        width = high - z
        felt = 0
        for k in range(n):
            i = alive[k]
            if m[i] + _REACH * s[i] > z:
                alive[felt] = i
                felt += 1
                width = min(width, max(panel * s[i], m[i] - _REACH * s[i] - z))
        n = felt
        if z + width == z:
            break
        end = 1.0
        for k in range(n):
            end *= _cdf((z + width - m[alive[k]]) / s[alive[k]])
        if end > 1e-18:
            for node in range(len(_NODES)):
                x = z + 0.5 * width * (1.0 + _NODES[node])
                all_below = 0.5 * width * _WEIGHTS[node] / _SQRT_2PI
                for k in range(n):
                    t = (x - m[alive[k]]) / s[alive[k]]
                    deviates[k] = t
                    phi[k] = _cdf(t) if t < _REACH else 1.0
                    all_below *= phi[k]
                if all_below > 0.0:
                    for k in range(n):
                        t = deviates[k]
                        if t < _REACH:
                            p[alive[k]] += all_below * math.exp(-0.5 * t * t) / (s[alive[k]] * phi[k])
        z += width
    if certain > -np.inf:
        below = 1.0
        ties = 0
        for i in range(count):
            if s[i] > 0.0:
                below *= _cdf((certain - m[i]) / s[i])
            else:
                ties += m[i] == certain
        for i in range(count):
            if s[i] == 0.0 and m[i] == certain:
                p[i] = below / ties
    p /= precise_sum(p)
    return p
