"""What ``leeway doctor`` says of a recommender: its policy, its model and its catalogue."""

from __future__ import annotations

from collections.abc import Iterator

from engine.config import same_fields
from engine.errors import LeewayError
from engine.recommender.store import RecommenderStore
from streaming.catalogues import catalogue_path, read_catalogue
from streaming.config import Config
from streaming.finding import Finding, Level, ago


def examine_lists(config: Config, name: str, now_ms: int) -> Iterator[Finding]:
    """Say whether what is published can serve, what it has learned, and whether it has the catalogue of today."""
    recommender = config.recommenders[name].engine()
    subject = f"{name} policy"
    store = RecommenderStore(config.policy_dir)
    version = store.current(name)
    if version is None:
        words = "none was published yet: lists are drawn uniformly; see whether `work` runs"
        yield Finding(Level.WARNING, subject, words)
        return
    try:
        policy = store.load(name, version)
    except LeewayError as error:
        yield Finding(Level.PROBLEM, subject, f"cannot be loaded, the one before goes on serving: {error}")
        return
    if not same_fields(policy.recommender, recommender):
        yield Finding(Level.PROBLEM, subject, f"{version} was made for other fields or tasks; see whether `work` runs")
    elif policy.model is None:
        words = f"{version} has no model: lists are drawn uniformly until a retraining is promoted (leeway retrain)"
        yield Finding(Level.WARNING, subject, words)
    else:
        words = f"{version} has learned from {policy.learned} lists; made {ago(now_ms - policy.created_ms)} ago"
        yield Finding(Level.OK, subject, words)
    subject = f"{name} catalogue"
    try:
        loaded = read_catalogue(catalogue_path(config.catalogue_dir, name), recommender)
    except LeewayError as error:
        yield Finding(Level.PROBLEM, subject, str(error))
        return
    served = policy.catalogue
    if loaded is None:
        words = "none was loaded: requests must name candidates; load one with: leeway catalogue load FILE"
        yield Finding(Level.WARNING, subject, words)
    elif served is None or served.digest != loaded.digest:
        words = f"{len(loaded)} items were loaded, and {version} does not have them; see whether `work` runs"
        yield Finding(Level.PROBLEM, subject, words)
    else:
        graph = "searched by a graph" if policy.graph is not None else "searched exactly"
        yield Finding(Level.OK, subject, f"{len(loaded)} items, {graph}")
