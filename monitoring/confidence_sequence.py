"""How far a mean of bounded rewards may be from its expectation, at all times together.

The normal mixture of Robbins (*Statistical methods related to the law of the iterated logarithm*, Annals of
Mathematical Statistics 41, 1970), for sub-Gaussian sums as in Howard, Ramdas, McAuliffe and Sekhon (*Time-uniform,
nonparametric, nonasymptotic confidence sequences*, Annals of Statistics 49, 2021). One may look after every feedback,
and stop whenever one likes: the error is that of all looks together.
"""

from __future__ import annotations

import math

#: The sequence is narrowest after about so many feedbacks.
TUNED_FOR = 1_000.0


def radius(count: float, error: float, width: float, tuned_for: float = TUNED_FOR) -> float:
    """Return the half width of the sequence.

    Parameters
    ----------
    count
        Feedbacks so far.
    error
        Greatest probability that the mean is ever further away, on either side.
    width
        Of the range that rewards lie in, in units of reward; sub-Gaussian with half of it (Hoeffding).
    tuned_for
        Where it is to be narrowest. It is right everywhere.

    Examples
    --------
    >>> [round(radius(n, 0.05, 1.0), 3) for n in (100, 1_000, 10_000)]
    [0.193, 0.048, 0.016]
    """
    if count <= 0:
        return math.inf
    doubt = 2.0 * math.log(1.0 / error)
    rho = tuned_for / (doubt + math.log1p(doubt))
    return 0.5 * width * math.sqrt((count + rho) * (math.log((count + rho) / rho) + doubt)) / count


def asymptotic_radius(count: float, error: float, deviation: float, tuned_for: float = TUNED_FOR) -> float:
    """Return the half width of the asymptotic sequence for a mean whose values have no known bound.

    Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, *Time-uniform central limit theory and asymptotic confidence
    sequences*, Annals of Statistics 52, 2024. ``deviation`` is the standard deviation so far.

    >>> asymptotic_radius(1_000, 0.05, 0.5) == radius(1_000, 0.05, 1.0)
    True
    """
    return radius(count, error, 2.0 * deviation, tuned_for)
