"""Slates: ranked lists of actions, with the probability of each slot given those before."""

from __future__ import annotations

from engine.slates.cascade import cascade
from engine.slates.marginals import marginals
from engine.slates.plackett_luce import PlackettLuce, conditional
from engine.slates.slate import Slate

__all__ = ["PlackettLuce", "Slate", "cascade", "conditional", "marginals"]
