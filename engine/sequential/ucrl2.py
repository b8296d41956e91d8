"""UCRL2: optimism over all plausible Markov decision processes.

Auer, Jaksch and Ortner, *Near-optimal Regret Bounds for Reinforcement Learning*, JMLR 11 (2010), figure 1. Time passes
in episodes. At the start t_k of one, with N visits of a pair (o, a) so far,

    |r' - r_hat|     <=  sqrt(7 log(2 O A t_k / delta) / (2 max(1, N)))
    |p' - p_hat|_1   <=  sqrt(14 O log(2 A t_k / delta) / max(1, N))

hold together, with probability at least 1 - delta, for the true process; ``engine.sequential.evi`` plans for the best
process within, to accuracy 1 / sqrt(t_k). The episode lasts until some pair has been visited as often within it as
before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.sequential.evi import Bool, Float64, Plan, extended_value_iteration

Arrays = Mapping[str, NDArray[np.generic]]


class UCRL2:
    """Tabular UCRL2 with rewards in [0, 1].

    Parameters
    ----------
    n_states, n_actions
        O and A.
    delta
        The confidence sets hold with probability 1 - delta, if ``width_scale`` is 1.
    width_scale
        Factor on both radii. Less than 1 explores less than the proof asks for; the textbook widths are wide.
    allowed : ndarray of bool, shape (n_states, n_actions), optional
        Which actions a state has; all of them by default.
    unrewarded : ndarray of bool, shape (n_states,), optional
        States known to pay nothing, whose rewards have radius 0; none by default.

    Attributes
    ----------
    plan : Plan
        Of the current episode.
    t : int
        Observations so far.
    visits, rewards : ndarray of float64, shape (n_states, n_actions)
        How often each pair was seen, and the sum of what it paid.
    transitions : ndarray of float64, shape (n_states, n_actions, n_states)
        How often each state followed.
    in_episode : ndarray of float64, shape (n_states, n_actions)
        Visits since the episode began.

    Examples
    --------
    >>> learner = UCRL2(2, 2, delta=0.05)
    >>> for _ in range(2_000):
    ...     action = learner.act(0)
    ...     learner.observe(0, action, reward=float(action), next_state=0)
    >>> learner.visits[0].argmax()
    np.int64(1)
    """

    def __init__(
        self,
        n_states: int,
        n_actions: int,
        *,
        delta: float,
        width_scale: float = 1.0,
        allowed: Bool | None = None,
        unrewarded: Bool | None = None,
    ) -> None:
        if not 0.0 < delta < 1.0:
            raise ValueError(f"delta must lie between 0 and 1, got {delta}")
        if not 0.0 < width_scale < math.inf:
            raise ValueError(f"width_scale must be a positive number, got {width_scale}")
        shape = (n_states, n_actions)
        self.n_states, self.n_actions = shape
        self.delta = delta
        self.width_scale = width_scale
        self.allowed = np.ones(shape, np.bool_) if allowed is None else allowed
        if self.allowed.shape != shape or not self.allowed.any(axis=1).all():
            raise ValueError(f"allowed must have shape {shape} and an action for every state")
        self.rewarded = np.ones(n_states, np.bool_) if unrewarded is None else ~unrewarded
        self.t = 0
        self.visits = np.zeros(shape)
        self.rewards = np.zeros(shape)
        self.transitions = np.zeros((*shape, n_states))
        self.in_episode = np.zeros(shape)
        self.plan: Plan = self._optimistic()

    def act(self, state: int) -> int:
        """Return the action that is planned for a state, in a new episode if the current one is over there."""
        action = int(self.plan.policy[state])
        if self.full(state, action):
            self.begin_episode()
            action = int(self.plan.policy[state])
        return action

    def full(self, state: int, action: int) -> bool:
        """Say whether a pair has been visited as often in this episode as before it, and at least once."""
        now = self.in_episode.item(state, action)
        return now >= max(1.0, self.visits.item(state, action) - now)

    def begin_episode(self) -> None:
        """Plan anew with all that was observed."""
        self.in_episode[:] = 0.0
        self.plan = self._optimistic()

    def observe(self, state: int, action: int, reward: float, next_state: int) -> None:
        """Take one step: what the action paid, in [0, 1], and where it led."""
        self.t += 1
        self.visits[state, action] += 1.0
        self.in_episode[state, action] += 1.0
        self.rewards[state, action] += reward
        self.transitions[state, action, next_state] += 1.0

    def restart(self) -> None:
        """Forget every observation; the clock goes on. A new episode begins."""
        self.visits[:] = 0.0
        self.rewards[:] = 0.0
        self.transitions[:] = 0.0
        self.begin_episode()

    def radii(self) -> tuple[Float64, Float64]:
        """Return the radii of rewards and transitions for an episode that begins now, shape (n_states, n_actions)."""
        O, A, t = self.n_states, self.n_actions, self.t + 1  # noqa: E741  (the paper's name)
        n = np.maximum(1.0, self.visits)
        d_r = self.width_scale * np.sqrt(7.0 * math.log(2 * O * A * t / self.delta) / (2.0 * n))
        d_p = self.width_scale * np.sqrt(14.0 * O * math.log(2 * A * t / self.delta) / n)
        return d_r * self.rewarded[:, None], d_p

    def _optimistic(self) -> Plan:
        n = np.maximum(1.0, self.visits)
        p = self.transitions / n[:, :, None]
        p[self.visits == 0.0] = 1.0 / self.n_states
        d_r, d_p = self.radii()
        return extended_value_iteration(self.rewards / n, p, d_r, d_p, 1.0 / math.sqrt(self.t + 1), self.allowed)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the whole state but the settings; ``restore`` goes on from it bit for bit."""
        return self._state()

    def _state(self) -> dict[str, NDArray[np.generic]]:
        return {
            "t": np.array(self.t),
            "visits": self.visits,
            "rewards": self.rewards,
            "transitions": self.transitions,
            "in_episode": self.in_episode,
            "q": self.plan.q,
            "plan": np.array([self.plan.gain, self.plan.accuracy]),
        }

    def restore(self, arrays: Arrays) -> None:
        """Take up a state that ``arrays`` gave; raises ``KeyError`` or ``ValueError`` where it does not fit."""
        found: dict[str, Any] = {}
        for key, mine in self._state().items():
            found[key] = np.array(arrays[key], dtype=mine.dtype)
            if found[key].shape != mine.shape:
                raise ValueError(f"{key} has shape {found[key].shape}, expected {mine.shape}")
        self.t = int(found["t"])
        self.visits, self.rewards = found["visits"], found["rewards"]
        self.transitions, self.in_episode = found["transitions"], found["in_episode"]
        gain, accuracy = found["plan"].tolist()
        self.plan = Plan(found["q"], found["q"].argmax(axis=1), gain, accuracy)
