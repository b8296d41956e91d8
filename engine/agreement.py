"""How far a policy that learns to match its caller does so."""

from __future__ import annotations

from engine.records import MODE_APPRENTICE, Decision


def agreement(decision: Decision) -> float | None:
    """Return whether the action that the policy would most likely have drawn is the one that the caller chose.

    The policy has not learned from the decision yet, so that the mean over decisions is a fair forecast. Of n actions
    that are equally likely each counts 1 / n: a policy that knows nothing agrees as often as chance does.

    Returns
    -------
    float or None
        0 to 1; ``None`` where no policy looked on, or the mode is another one.

    Examples
    --------
    >>> made = Decision(mode=MODE_APPRENTICE, chosen=1, shadow_probabilities=[0.2, 0.4, 0.4])
    >>> agreement(made)
    0.5
    """
    vector = list(decision.shadow_probabilities)
    if decision.mode != MODE_APPRENTICE or not 0 <= decision.chosen < len(vector):
        return None
    most = max(vector)
    return 1.0 / vector.count(most) if vector[decision.chosen] == most else 0.0
