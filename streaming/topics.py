"""The topics of Leeway, declared in one place."""

from __future__ import annotations

from streaming.log import Topic

DECISIONS = "decisions"
OUTCOMES = "outcomes"
FEEDBACK = "feedback"
LATE = "late"
DEAD_LETTERS = "dead_letters"
JOIN_STATE = "join_state"
ALARMS = "alarms"
MONITOR_STATE = "monitor_state"
GENERATIONS = "generations"
ACKNOWLEDGEMENTS = "acknowledgements"

#: The roles that write, each the owner of its topics and the name of its consumer group.
SERVING = "serving"
JOIN = "join"
MONITOR = "monitor"
TRAINING = "training"
LEARNER = "learner"
ARCHIVE = "archive"
RETRAINER = "retrainer"
SHIPPING = "shipping"
#: A person at the command line.
OPERATOR = "operator"


def topics(partitions: int, retention_ms: int) -> list[Topic]:
    """Return the declaration of every topic.

    ``decisions``, ``outcomes``, ``feedback`` and the state of the join have the same number of partitions and
    the decision id as key: what belongs together lies in the partitions of one number.
    """
    return [
        Topic(DECISIONS, SERVING, partitions, retention_ms),
        Topic(OUTCOMES, SERVING, partitions, retention_ms),
        Topic(FEEDBACK, JOIN, partitions, retention_ms, derived=True),
        Topic(LATE, JOIN, partitions, retention_ms, derived=True),
        Topic(DEAD_LETTERS, JOIN, partitions, retention_ms, derived=True),
        Topic(JOIN_STATE, JOIN, partitions, None, compacted=True, derived=True),
        Topic(ALARMS, MONITOR, 1, None),
        Topic(MONITOR_STATE, MONITOR, 1, None, compacted=True),
        Topic(GENERATIONS, TRAINING, 1, None),
        Topic(ACKNOWLEDGEMENTS, OPERATOR, 1, None),
    ]
