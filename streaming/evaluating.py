"""What archived feedback says of policies: which ones, by which rows, and how the answer is kept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine.errors import ConfigError, LeewayError, SnapshotError
from engine.features import same_columns
from engine.policy import OracleFailure, Policy
from engine.store import PolicyStore
from streaming.config import Config
from streaming.retraining import open_registry
from training.archive import ArchiveReader
from training.config import CalibrationName, PropensityName, RewardModelName
from training.dataset import Dataset
from training.evaluation import ESTIMATORS, INTERVALS
from training.evaluation.clusters import clusters_of
from training.evaluation.policy import Bounds, Feedback, PolicyEvaluation, evaluate_logging, evaluate_policy
from training.evaluation.propensity import estimate_propensities
from training.evaluation.reward_model import cross_fit
from training.registry import Registry

#: The mixture of policies that acted: its value is known, and says whether all is well.
LOGGING = "logging"
CURRENT, CHAMPION, CHALLENGER = "current", "champion", "challenger"


@dataclass(frozen=True)
class Question:
    """What is to be evaluated, by which feedback, and how.

    Parameters
    ----------
    point
        The decision point.
    policies
        ``logging``, ``current`` (what serves), ``champion`` or ``challenger`` (of the registry), or a version.
    start_ms, end_ms, last
        The window of decision times, and the newest of it alone.
    estimators
        Names; none: all.
    interval, confidence
        Of the two-sided intervals.
    reward_model, propensities, calibration
        As in ``retraining``.
    clusters
        Groups of actions for ``mips``; ``None``: each action is its own.
    """

    point: str
    policies: tuple[str, ...]
    start_ms: int
    end_ms: int
    last: int | None = None
    estimators: tuple[str, ...] = ()
    interval: str = "student"
    confidence: float = 0.95
    reward_model: RewardModelName = "ridge"
    propensities: PropensityName = "logged"
    calibration: CalibrationName = "temperature"
    clusters: int | None = None


@dataclass(frozen=True)
class Answer:
    """What came of it.

    Attributes
    ----------
    rows
        Number of feedbacks.
    evaluations
        By policy, as it was asked for.
    versions
        Of these policies; none of the mixture that acted.
    warnings
        What a reader must know.
    """

    question: Question
    rows: int
    evaluations: Mapping[str, PolicyEvaluation]
    versions: Mapping[str, str]
    warnings: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """Return it as plain JSON values; what is not finite is null."""
        asked = self.question
        facts = {
            "decision_point": asked.point,
            "rows": self.rows,
            "start_ms": asked.start_ms,
            "end_ms": asked.end_ms,
            "interval": asked.interval,
            "confidence": asked.confidence,
            "propensities": asked.propensities,
            "warnings": list(self.warnings),
            "policies": {
                name: {
                    "policy_version": self.versions.get(name),
                    "estimates": {key: asdict(estimate) for key, estimate in found.estimates.items()},
                    "unsupported": found.unsupported,
                    "weight_tail": asdict(found.tail),
                    "divergence": asdict(found.divergence),
                    "propensity_test_z": found.weights.z,
                    "estimated_propensities": found.rows.estimated,
                }
                for name, found in self.evaluations.items()
            },
        }
        return {name: _finite(value) for name, value in facts.items()}


def window(config: Config, question: Question) -> Dataset:
    """Return the feedback that is asked for."""
    point = config.decision_points[question.point].engine()
    reader = ArchiveReader(config.archive_dir)
    return reader.read(question.point, point, question.start_ms, question.end_ms, question.last)


def evaluate(config: Config, question: Question, dataset: Dataset, progress: Callable[[str], None]) -> Answer:
    """Evaluate policies on feedback.

    Raises
    ------
    ConfigError
        A name that is none, or something that does not fit the data; the message says what to choose.
    LeewayError
        Archive, policy file or registry failed.
    """
    point = config.decision_points[question.point].engine()
    bounds = Bounds(INTERVALS[question.interval], question.confidence, point.reward.range, _estimators(question))
    policies = {
        name: _policy(config, question.point, name) for name in dict.fromkeys(question.policies) if name != LOGGING
    }
    for name, policy in policies.items():
        if not same_columns(policy.point, point):
            raise ConfigError(f"--policy {name}: {policy.version} has other features than the configuration declares")
    warnings = [
        f"{name} ({policy.version}) was made after the window began: it may have learned from these rows, and then "
        "looks better than it is; begin the window later (--since-ms)"
        for name, policy in policies.items()
        if policy.created_ms > int(dataset.time_ms[0])
    ]
    feedback = _feedback(config, question, dataset, bounds, progress)
    if feedback.estimated:
        warnings.append("the propensities are estimated, not logged: no interval knows their error")
    evaluations: dict[str, PolicyEvaluation] = {}
    for name in dict.fromkeys(question.policies):
        try:
            if name == LOGGING:
                evaluations[name] = evaluate_logging(feedback, bounds)
            else:
                evaluations[name] = evaluate_policy(policies[name], feedback, bounds)
        except OracleFailure as error:
            raise LeewayError(f"--policy {name}: its oracle failed: {error}") from error
        progress(f"evaluated {name} on {len(dataset)} feedbacks")
    versions = {name: policy.version for name, policy in policies.items()}
    return Answer(question, len(dataset), evaluations, versions, tuple(warnings))


def write_report(answer: Answer, directory: Path) -> list[Path]:
    """Write ``report.html``, which needs nothing else, its plots and ``evaluation.json``; return what was written."""
    from training import plots
    from training.gate_report import estimates_section, figure_section, page

    found = answer.evaluations
    predicted = {name: each.predicted for name, each in found.items() if each.predicted is not None}
    reward = next(iter(found.values())).rows.reward
    figures = {"estimates": plots.estimates({name: each.estimates for name, each in found.items()})}
    figures |= {f"overlap_{name}": plots.overlap(each.rows, name) for name, each in found.items() if name != LOGGING}
    if predicted:
        figures["calibration"] = plots.calibration(predicted, reward)
    sections = [f'<p class="flag">{words}</p>' for words in answer.warnings] + estimates_section(found)
    sections += [figure_section(name, figure) for name, figure in figures.items() if name != "estimates"]
    written = [directory / "report.html", directory / "evaluation.json"]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        title = f"{answer.question.point}: off-policy estimates on {answer.rows} feedbacks"
        written[0].write_text(page(title, sections))
        written[1].write_text(json.dumps(answer.facts(), indent=2) + "\n")
        for name, figure in figures.items():
            written.append(directory / f"{name}.png")
            figure.savefig(written[-1], dpi=100)
    except OSError as error:
        raise LeewayError(f"--report {directory}: cannot be written ({error.strerror})") from error
    return written


def _estimators(question: Question) -> tuple[str, ...]:
    unknown = [name for name in question.estimators if name not in ESTIMATORS]
    if unknown:
        raise ConfigError(f"--estimator {unknown[0]}: there is none of this name; choose of: {', '.join(ESTIMATORS)}")
    return question.estimators or tuple(ESTIMATORS)


def _feedback(
    config: Config, question: Question, dataset: Dataset, bounds: Bounds, progress: Callable[[str], None]
) -> Feedback:
    settings = config.decision_points[question.point].retraining
    point = config.decision_points[question.point].engine()
    estimated = question.propensities != "logged"
    try:
        if estimated:
            p = estimate_propensities(dataset, question.propensities, question.calibration, seed=settings.seed)
            dataset = replace(dataset, probabilities=p)
            progress(f"propensities estimated ({question.propensities}, {question.calibration})")
        cluster = None if question.clusters is None else clusters_of(dataset, question.clusters, settings.seed)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    q_hat = None
    if any(ESTIMATORS[name].needs_reward_model for name in bounds.estimators):
        q_hat = cross_fit(dataset, point, model=question.reward_model, lightgbm=settings.lightgbm, seed=settings.seed)
        progress(f"reward model fitted ({question.reward_model})")
    return Feedback(dataset, q_hat, estimated, cluster)


def _policy(config: Config, point: str, name: str) -> Policy:
    store = PolicyStore(config.policy_dir)
    if name == CURRENT:
        version = store.current(point)
        if version is None:
            raise ConfigError(f"--policy {CURRENT}: nothing serves {point} yet; choose a version, or {LOGGING}")
        return store.load(point, version)
    # Opening the registry of this machine would make it, and nothing is to be changed here.
    local = config.registry.tracking_uri is None
    registry = None if local and not (config.data_dir / "mlflow.db").exists() else open_registry(config)
    if name in (CHAMPION, CHALLENGER):
        return _registered(registry, point, name)
    try:
        return store.load(point, name)
    except SnapshotError as missing:
        registered = None if registry is None else registry.find(point, "policy_version", name)
        if registered is None:
            known = ", ".join(store.versions(point)[-5:]) or "none"
            raise ConfigError(
                f"--policy {name}: neither in {config.policy_dir} nor in the registry; the newest there are: {known}"
            ) from missing
        assert registry is not None
        return registry.load(registered)


def _registered(registry: Registry | None, point: str, alias: str) -> Policy:
    found = None
    if registry is not None:
        found = registry.aliased(point, alias)
    if registry is None or found is None:
        raise ConfigError(f"--policy {alias}: the registry has none of {point} yet; train one with: leeway retrain")
    return registry.load(found)


def _finite(value: Any) -> Any:
    """Return JSON values with null for what is not finite, which JSON has no word for."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list) else value
