"""What a recommender's model is held against: popularity, logistic regression and boosted trees, day by day."""

from __future__ import annotations

from training.baselines.lightgbm import LightGBM
from training.baselines.logistic import LogisticRegression
from training.baselines.popularity import Popularity

__all__ = ["LightGBM", "LogisticRegression", "Popularity"]
