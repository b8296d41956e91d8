"""Markov decision processes that change: where a sequential learner is tried out. They own the truth, and can be asked
for it.

``switching`` draws processes of the kind that Alami, Mahfoud and Moulines (PMLR 232, 2023) try theirs on; ``funnel``
and ``retry_ladder`` are two that a product has.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.sequential.evi import Bool, Float64, optimal_gain

What = Literal["both", "rewards", "transitions"]

#: Share of the uniform distribution in every drawn transition, so that each state can be reached from each.
_UNIFORM = 0.05
#: Concentration of the Dirichlet distribution of the rest.
_CONCENTRATION = 0.3


@dataclass(frozen=True, eq=False)
class SwitchingMDP:
    """A Markov decision process with rewards of 0 and 1 that is another one from each change point on.

    Parameters
    ----------
    transitions : ndarray of float64, shape (n_segments, n_states, n_actions, n_states)
        Probabilities of the next state.
    rewards : ndarray of float64, shape (n_segments, n_states, n_actions)
        Probabilities of a reward of 1.
    starts : tuple of int, length n_segments
        Step at which each segment begins; the first begins at 0.
    allowed : ndarray of bool, shape (n_states, n_actions), optional
        Which actions a state has; all of them by default.
    states, actions
        Names, where there are any.
    """

    transitions: Float64
    rewards: Float64
    starts: tuple[int, ...]
    allowed: Bool | None = None
    states: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    _cumulative: list[list[list[list[float]]]] = field(init=False, repr=False)
    _means: list[list[list[float]]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Lists: a step looks up single numbers, at which they are several times as fast as arrays.
        object.__setattr__(self, "_cumulative", np.cumsum(self.transitions, axis=-1).tolist())
        object.__setattr__(self, "_means", self.rewards.tolist())

    @property
    def n_states(self) -> int:
        """Number of states."""
        return int(self.rewards.shape[1])

    @property
    def n_actions(self) -> int:
        """Number of actions."""
        return int(self.rewards.shape[2])

    def segment(self, t: int) -> int:
        """Return the segment that step ``t`` lies in."""
        return bisect_right(self.starts, t) - 1

    def step(self, segment: int, state: int, action: int, u: float, v: float) -> tuple[int, int]:
        """Return reward and next state, decided by two numbers that were drawn uniformly from [0, 1).

        >>> mdp = funnel(change=1_000)
        >>> mdp.states[mdp.step(0, state=0, action=0, u=0.5, v=0.0)[1]]
        'landing'
        """
        reward = int(u < self._means[segment][state][action])
        return reward, min(bisect_right(self._cumulative[segment][state][action], v), self.n_states - 1)

    @cached_property
    def gains(self) -> NDArray[np.float64]:
        """Greatest reward per step in each segment, in the long run; shape (n_segments,)."""
        pairs = zip(self.rewards, self.transitions, strict=True)
        return np.array([optimal_gain(r, p, self.allowed) for r, p in pairs])


def switching(
    rng: np.random.Generator, *, n_states: int, n_actions: int, horizon: int, n_segments: int, what: What = "both"
) -> SwitchingMDP:
    """Draw a process that changes at random times, at least half an even segment apart.

    Transitions are Dirichlet(0.3) with 5 % of the uniform distribution mixed in, rewards Bernoulli with means uniform
    on [0, 1]; at each change point those that ``what`` names are drawn anew.
    """
    p = rng.dirichlet(np.full(n_states, _CONCENTRATION), (n_segments, n_states, n_actions))
    p = (1.0 - _UNIFORM) * p + _UNIFORM / n_states
    r = rng.uniform(size=(n_segments, n_states, n_actions))
    if what == "rewards":
        p[:] = p[0]
    elif what == "transitions":
        r[:] = r[0]
    least = horizon // (2 * n_segments)
    slack = np.sort(rng.integers(0, horizon - least * n_segments + 1, n_segments - 1))
    starts = (0, *(int(s) for s in slack + least * np.arange(1, n_segments)))
    return SwitchingMDP(p, r, starts)


def _named(
    states: Sequence[str],
    actions: Sequence[str],
    segments: Sequence[dict[tuple[str, str], tuple[float, dict[str, float]]]],
    starts: tuple[int, ...],
) -> SwitchingMDP:
    """Build a process from named pairs: probability of a reward, and of each next state."""
    shape = (len(segments), len(states), len(actions))
    p, r = np.zeros((*shape, len(states))), np.zeros(shape)
    allowed = np.zeros(shape[1:], np.bool_)
    for i, segment in enumerate(segments):
        for (state, action), (reward, following) in segment.items():
            o, a = states.index(state), actions.index(action)
            allowed[o, a] = True
            r[i, o, a] = reward
            for name, probability in following.items():
                p[i, o, a, states.index(name)] = probability
    return SwitchingMDP(p, r, starts, allowed, tuple(states), tuple(actions))


def funnel(change: int) -> SwitchingMDP:
    """Return a shop's funnel: what to show at each of three stages. At ``change`` the offers trade their appeal.

    A purchase pays 1 and, like a visitor who leaves, is followed by the next visitor's landing. The stage before pays
    nothing and decides how many come to where it pays: a learner that looks at the reward of each decision alone sees
    no difference between the first two stages' actions.
    """
    states, actions = ("landing", "product", "cart"), ("plain", "reviews", "discount", "express")

    def segment(
        landing: tuple[float, float], product: tuple[float, float], cart: tuple[float, float]
    ) -> dict[tuple[str, str], tuple[float, dict[str, float]]]:
        found: dict[tuple[str, str], tuple[float, dict[str, float]]] = {}
        for action, go in zip(("plain", "reviews"), landing, strict=True):
            found["landing", action] = 0.0, {"product": go, "landing": 1.0 - go}
        for action, go in zip(("plain", "discount"), product, strict=True):
            found["product", action] = 0.0, {"cart": go, "product": 0.2, "landing": 0.8 - go}
        for action, pays in zip(("plain", "express"), cart, strict=True):
            found["cart", action] = pays, {"landing": 1.0}
        return found

    first = segment(landing=(0.3, 0.6), product=(0.2, 0.5), cart=(0.5, 0.7))
    second = segment(landing=(0.6, 0.3), product=(0.5, 0.2), cart=(0.7, 0.4))
    return _named(states, actions, (first, second), (0, change))


def retry_ladder(change: int) -> SwitchingMDP:
    """Return the retries of a failed payment: at once, after a wait, with the other provider, or give up.

    A payment that goes through pays 1 and is followed by the next payment's first failure. Waiting costs a step and
    makes the next attempt likelier to go through, as long as the first provider works; from ``change`` on it is down.
    """
    states, actions = ("failed_once", "failed_twice", "rested", "given_up"), ("retry", "wait", "other", "give_up")

    def segment(own: float, rested: float, other: float) -> dict[tuple[str, str], tuple[float, dict[str, float]]]:
        found: dict[tuple[str, str], tuple[float, dict[str, float]]] = {}
        for state, success, worse in (
            ("failed_once", own, "failed_twice"),
            ("failed_twice", 0.4 * own, "given_up"),
            ("rested", rested, "given_up"),
        ):
            # Reward and next state are drawn apart: what goes on depends on the chances, not on this very attempt.
            found[state, "retry"] = success, {"failed_once": success, worse: 1.0 - success}
            found[state, "other"] = other, {"failed_once": other, worse: 1.0 - other}
            found[state, "give_up"] = 0.0, {"failed_once": 1.0}
        for state in ("failed_once", "failed_twice"):
            found[state, "wait"] = 0.0, {"rested": 0.9, "given_up": 0.1}
        found["given_up", "give_up"] = 0.0, {"failed_once": 1.0}
        return found

    return _named(states, actions, (segment(0.3, 0.9, 0.35), segment(0.05, 0.1, 0.35)), (0, change))
