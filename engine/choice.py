"""What a caller does by itself, as it states it in a request."""

from __future__ import annotations

from collections.abc import Sequence

from engine.api.leeway.v1.service_pb2 import DecideRequest
from engine.errors import InvalidRequest
from engine.sampling import vector_problem


def stated_choice(request: DecideRequest, available: Sequence[bool]) -> tuple[int, list[float]]:
    """Return the index of the action that the caller chose by itself, and the vector of its choice.

    The vector is taken at the caller's word: only the caller knows how it draws. A choice that was not drawn has
    probability 1; a request without a choice chooses its first action that is not excluded.

    Parameters
    ----------
    request
        What was asked.
    available
        For each action, whether it is not excluded; one at least.

    Raises
    ------
    InvalidRequest
        Where the choice is none of the available actions, or cannot have been drawn from its vector.

    Examples
    --------
    >>> stated_choice(DecideRequest(), [False, True])
    (1, [0.0, 1.0])
    """
    count = len(available)
    chosen = request.choice.chosen if request.HasField("choice") else list(available).index(True)
    if not 0 <= chosen < count:
        raise InvalidRequest("choice.chosen", f"is {chosen}; send the index of one of the {count} actions")
    if not available[chosen]:
        raise InvalidRequest("choice.chosen", f"is {chosen}, which is excluded; choose another action, or allow it")
    vector = list(request.choice.probabilities) or [float(index == chosen) for index in range(count)]
    problem = vector_problem(vector, available)
    if problem:
        raise InvalidRequest("choice.probabilities", problem)
    if not vector[chosen]:
        raise InvalidRequest(
            "choice.probabilities", f"is 0 for action {chosen}, which was chosen; send its probability"
        )
    return chosen, vector
