"""Everything that held-back lists say of one recommender's policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.errors import InvalidRequest
from engine.recommender.likelihood import Likelihood, likelihood
from engine.recommender.policy import RecommenderPolicy
from engine.records import Feedback
from training.evaluation import SLATE_ESTIMATORS
from training.evaluation.base import Float64, LoggedRows, effective_sample_size
from training.evaluation.diagnostics import WeightTest, unsupported_mass, weight_test
from training.evaluation.estimate import Estimate
from training.evaluation.interval import Support
from training.evaluation.slates import LoggedSlates
from training.evaluation.student import Student

#: Ranks that fewer lists have than this share say little, and are left out of the effective sample size.
_COMMON = 0.5

#: What a policy would have done with a logged list; ``None`` where it cannot be asked.
Asked = Callable[[Feedback], Likelihood | None]


@dataclass(frozen=True, eq=False)
class ListEvaluation:
    """One policy, judged by lists that it was not trained on.

    Attributes
    ----------
    lists : LoggedSlates
        With the policy's probabilities.
    estimates : mapping of str to Estimate
        By estimator, each with its two-sided interval of 95 %.
    effective_sample_sizes : mapping of str to float
        By estimator, of the rank that has the least.
    unsupported : float
        Mean probability that it gives, in the first slot, to candidates that could not have been drawn.
    weights : WeightTest
        The self-test of the first slot's logged propensities.
    observed, predicted : float
        Mean reward of the lists as they were, and what the policy expects of them.
    covered : float
        Mean share of what it would have retrieved and that was among the candidates.
    reward_range
        Of a list.
    """

    lists: LoggedSlates
    estimates: Mapping[str, Estimate]
    effective_sample_sizes: Mapping[str, float]
    unsupported: float
    weights: WeightTest
    observed: float
    predicted: float
    covered: float
    reward_range: tuple[float, float]


def policy_of(policy: RecommenderPolicy) -> Asked:
    """Return what asks a policy for the likelihood of logged lists."""

    def ask(feedback: Feedback) -> Likelihood | None:
        try:
            return likelihood(policy, feedback.decision)
        except InvalidRequest:
            return None  # made under fields that are declared otherwise now

    return ask


def acted(load: Callable[[str], RecommenderPolicy | None]) -> Asked:
    """Return what gives the likelihood of logged lists under the policies that have made them.

    All but the marginals is as it was logged. Those of a uniform list need nothing else; those of others are computed
    by the policy that acted, which ``load`` gives by its version. Where that is gone, the list cannot be asked about.
    """
    policies: dict[str, RecommenderPolicy | None] = {}

    def ask(feedback: Feedback) -> Likelihood | None:
        decision = feedback.decision
        first, propensities = np.array(decision.probabilities), np.array(decision.slate.propensities)
        free = sum(not action.excluded for action in decision.actions)
        uniform = 1.0 / (free - np.arange(len(propensities)))
        if np.allclose(propensities, uniform, rtol=1e-9) and np.allclose(first[first > 0.0], 1.0 / free, rtol=1e-9):
            return Likelihood(first, propensities, np.full(len(propensities), 1.0 / free), None, 1.0)
        version = decision.policy_version
        if version not in policies:
            policies[version] = load(version)
        policy = policies[version]
        found = None if policy is None else policy_of(policy)(feedback)
        return None if found is None else Likelihood(first, propensities, found.marginals, None, 1.0)

    return ask


def evaluate_lists(
    feedbacks: Iterable[Feedback],
    tasks: Mapping[str, float],
    reward_range: tuple[float, float],
    policies: Sequence[Asked],
    acting: Asked,
) -> list[ListEvaluation]:
    """Evaluate policies on the same lists, which are held one at a time.

    A list that one of the policies, or the one that acted, cannot be asked about is left out for all.

    Parameters
    ----------
    feedbacks
        Held back from training.
    tasks
        Weights of the tasks now; of a task that has none the value does not count.
    reward_range
        Of a list.
    policies
        What says how likely each would have made a list.
    acting
        The same of those that have made them; see ``acted``.

    Raises
    ------
    ValueError
        No list is left.
    """
    counts: list[int] = []
    rewards: list[float] = []
    logged: list[float] = []
    logged_marginals: list[float] = []
    drawn: list[_Collected] = [_Collected() for _ in policies]
    first = _Collected()
    for feedback in feedbacks:
        made, answers = acting(feedback), [ask(feedback) for ask in policies]
        if made is None or any(answer is None for answer in answers):
            continue
        decision = feedback.decision
        slots = len(decision.slate.items)
        values = np.array(feedback.slot_values).reshape(slots, len(feedback.tasks))
        scales = np.array([tasks.get(task, 0.0) for task in feedback.tasks])
        counts.append(slots)
        rewards += (values @ scales).tolist()
        logged += decision.slate.propensities
        logged_marginals += made.marginals.tolist()
        first.take(np.array(decision.probabilities), decision.chosen)
        for collected, answer in zip(drawn, answers, strict=True):
            assert answer is not None
            collected.take(answer.first, decision.chosen)
            collected.propensities += answer.propensities.tolist()
            collected.marginals += answer.marginals.tolist()
            collected.covered.append(answer.covered)
            if answer.expected is not None:
                collected.expected.append(float(answer.expected.sum()))
    if not counts:
        raise ValueError(
            "no held-back list fits the fields that are configured now and was made by a policy that is still there; "
            "wait for more"
        )
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    reward, propensity, marginal = np.array(rewards), np.array(logged), np.array(logged_marginals)
    found = []
    for c in drawn:
        target, target_marginal = np.array(c.propensities), np.array(c.marginals)
        lists = LoggedSlates(starts, reward, propensity, target, marginal, target_marginal)
        found.append(_evaluation(lists, first, c, reward_range))
    return found


class _Collected:
    """What is gathered of one policy, list by list."""

    def __init__(self) -> None:
        self.vectors: list[Float64] = []
        self.chosen: list[int] = []
        self.propensities: list[float] = []
        self.marginals: list[float] = []
        self.covered: list[float] = []
        self.expected: list[float] = []

    def take(self, vector: Float64, chosen: int) -> None:
        """Add the vector of a first slot."""
        self.vectors.append(vector)
        self.chosen.append(chosen)


def _evaluation(
    lists: LoggedSlates, first: _Collected, mine: _Collected, reward_range: tuple[float, float]
) -> ListEvaluation:
    widths = np.array([len(vector) for vector in first.vectors])
    starts = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
    sums = lists.row_sums(lists.reward)
    rows = LoggedRows(
        starts, starts[:-1] + np.array(first.chosen), sums, np.concatenate(first.vectors), np.concatenate(mine.vectors)
    )
    observed = float(sums.mean())
    sizes = {name: _least_size(lists, estimator.weights(lists)) for name, estimator in SLATE_ESTIMATORS.items()}
    estimates = {}
    for name, estimator in SLATE_ESTIMATORS.items():
        interval = Student().interval(estimator.contributions(lists), 0.975, Support())
        w = estimator.weights(lists)
        estimates[name] = Estimate(
            interval.value, interval.standard_error, interval.low, interval.high, len(lists), sizes[name],
            float(w.max()), float(w.mean()),
        )  # fmt: skip
    return ListEvaluation(
        lists,
        estimates,
        sizes,
        unsupported_mass(rows),
        weight_test(rows),
        observed,
        float(np.mean(mine.expected)) if len(mine.expected) == len(lists) else observed,
        float(np.mean(mine.covered)),
        reward_range,
    )


def _least_size(lists: LoggedSlates, weights: Float64) -> float:
    sizes = []
    for rank in range(int(lists.rank.max()) + 1):
        here = lists.rank == rank
        if here.sum() >= _COMMON * len(lists):
            sizes.append(effective_sample_size(weights[here]))
    return min(sizes)
