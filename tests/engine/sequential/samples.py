"""A decision point whose user goes through a shop's funnel, and the shop that asks it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from engine.api.leeway.v1.service_pb2 import DecideRequest
from engine.client import value_of
from engine.config import DecisionPoint
from engine.policy import Policy
from engine.records import Action, Decision, Features, Feedback
from engine.sequential import UCRL2Learner
from engine.sequential.environments import SwitchingMDP, funnel
from engine.serving.deciding import decide

NAME = "shop"
STATES = {"landing": ["plain", "reviews"], "product": ["plain", "discount"], "cart": ["plain", "express"]}
ACTIONS = ("plain", "reviews", "discount", "express")
BEST = {"landing": "reviews", "product": "discount", "cart": "express"}


def shop_settings(**oracle: Any) -> dict[str, Any]:
    """Return a decision point as it is written."""
    return {
        "context": {"stage": {"type": "text", "buckets": 16}, "session": {"type": "text", "buckets": 2}},
        "reward": {"window": "5s", "grace": "0s"},
        "policy": {
            "oracle": {"kind": "ucrl2", "state": "stage", "unit": "session", "states": STATES, "idle": "30s", **oracle},
            "exploration": {"kind": "epsilon_greedy", "epsilon": 0.0},
        },
    }


def shop_point(**oracle: Any) -> DecisionPoint:
    """Return a decision point."""
    return DecisionPoint.model_validate(shop_settings(**oracle))


def policy_of(point: DecisionPoint, learner: UCRL2Learner, update: int = 0) -> Policy:
    """Return the policy that serves what was learned."""
    return Policy(NAME, point, tuple(learner.vocabulary), learner.oracle(), 0, update, learner.learned, 0)


def shop_request(stage: str, session: str, actions: tuple[str, ...] = ACTIONS) -> DecideRequest:
    """Return a request in a state."""
    named = {"stage": value_of(stage), "session": value_of(session)}
    return DecideRequest(
        decision_point=NAME, context=Features(named=named), actions=[Action(id=action) for action in actions]
    )


def feedback_of(stage: str, session: str, action: str, reward: float, time_ms: int, decision_id: str = "") -> Feedback:
    """Return feedback as the join writes it."""
    sent = shop_request(stage, session)
    decision = Decision(
        decision_id=decision_id or f"d{time_ms}",
        decision_point=NAME,
        time_ms=time_ms,
        context=sent.context,
        actions=sent.actions,
        probabilities=[float(candidate == action) for candidate in ACTIONS],
        chosen=ACTIONS.index(action),
    )
    return Feedback(decision=decision, reward=reward, outcomes=1, reward_time_ms=time_ms)


class Shop:
    """Visitors, some at a time, who go through the funnel and leave."""

    def __init__(self, mdp: SwitchingMDP, seed: int = 0, visitors: int = 3) -> None:
        self._mdp = mdp
        self._rng = np.random.default_rng(seed)
        self._stages = ["landing"] * visitors
        self._sessions = list(range(visitors))
        self._next = visitors
        self.decided = 0

    def ask(self, policy: Policy, count: int) -> Iterator[Feedback]:
        """Let visitors come to decisions of one policy; yield what follows from each."""
        for _ in range(count):
            visitor = int(self._rng.integers(len(self._stages)))
            stage = self._stages[visitor]
            sent = shop_request(stage, f"s{self._sessions[visitor]}", tuple(STATES[stage]))
            decision_id = f"d{self.decided}"
            decision = decide(policy, sent, decision_id, 1_000 + 100 * self.decided)
            segment = self._mdp.segment(self.decided)
            self.decided += 1
            o = self._mdp.states.index(stage)
            a = self._mdp.actions.index(decision.actions[decision.chosen].id)
            u, v = self._rng.random(2).tolist()
            reward, following = self._mdp.step(segment, o, a, u, v)
            self._stages[visitor] = self._mdp.states[following]
            if self._stages[visitor] == "landing":  # left, or bought: the next visitor takes the place
                self._sessions[visitor] = self._next
                self._next += 1
            yield Feedback(decision=decision, reward=float(reward), outcomes=1, reward_time_ms=decision.time_ms)


def planned(policy: Policy) -> Mapping[str, str]:
    """Return the action that a policy is surest to choose in each state."""
    found = {}
    for stage, offered in STATES.items():
        decision = decide(policy, shop_request(stage, "s", tuple(offered)), "d", 0)
        found[stage] = offered[int(np.argmax(decision.probabilities))]
    return found


def shop(change: int = 10**9, seed: int = 0) -> Shop:
    """Return a shop whose visitors change their mind after so many decisions."""
    return Shop(funnel(change), seed)
