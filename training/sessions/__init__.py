"""Sessions of impressions, day by day: sources, rolling statistics, analysis of their shift, ranking metrics."""

from __future__ import annotations

from training.sessions.day_model import DayModel
from training.sessions.sessions import Sessions, SessionSource

__all__ = ["DayModel", "SessionSource", "Sessions"]
