"""What a retraining is asked to do, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Literal, Protocol

from engine.config import DecisionPoint
from engine.oracles import Learner
from engine.policy import Policy
from engine.recommender.policy import RecommenderPolicy
from engine.records import Generation
from training.config import RetrainingConfig
from training.evaluation import Estimate
from training.gate import Verdict


class ExitCode(IntEnum):
    """How ``leeway retrain`` ends, for schedulers that decide by the exit code.

    ``retrain`` answers with PROMOTED, NOT_ENOUGH_DATA, REFUSED, LOCKED or HELD. It raises for everything else: a
    ``LeewayError`` means RETRYABLE.
    """

    PROMOTED = 0  # or nothing to do: this work was done before
    RETRYABLE = 1  # registry, archive or disk failed; run it again
    USAGE = 2
    NOT_ENOUGH_DATA = 3
    REFUSED = 4  # the gate does not hold; champion kept, challenger registered
    LOCKED = 5  # another retraining of this decision point is under way
    HELD = 6  # an alarm holds promotions until a person has acknowledged it


class Ledger(Protocol):
    """The topic ``generations``, as far as training needs it."""

    def generations(self, point: str) -> list[Generation]:
        """Return what was written for a decision point, oldest first."""

    def append(self, generation: Generation) -> None:
        """Write one entry durably."""


@dataclass(frozen=True)
class RetrainJob:
    """One retraining of one decision point.

    Parameters
    ----------
    name, point
        The decision point.
    config
        Its retraining.
    data_dir
        Where the lock file lies.
    reason
        What asks for it.
    since_ms
        Decision time of the first feedback to use, such as that of a change; ``None``: ``config.window`` before now.
    until_ms
        Decision times before this; ``None``: now.
    dry_run
        Fit, evaluate and judge, and write nothing anywhere.
    code_version
        Of Leeway, for the record.
    """

    name: str
    point: DecisionPoint
    config: RetrainingConfig
    data_dir: Path
    reason: Literal["drift", "schedule", "manual"] = "manual"
    since_ms: int | None = None
    until_ms: int | None = None
    dry_run: bool = False
    code_version: str = "unknown"

    def window(self, now_ms: int) -> tuple[int, int]:
        """Return the first decision time of the window and the first one after it."""
        end_ms = now_ms if self.until_ms is None else self.until_ms
        return (end_ms - self.config.window if self.since_ms is None else self.since_ms), end_ms


@dataclass(frozen=True)
class Outcome:
    """What came of a retraining.

    Attributes
    ----------
    exit_code
        For the command line.
    words
        The outcome in one line.
    rows, held_back
        Feedbacks of the window, and how many of them the gate judged by.
    champion
        Version that the candidate was compared with; ``None``: the mixture of all policies that acted.
    estimates
        By policy (the champion and each candidate's oracle) and estimator.
    verdict
        What the gate said of the best candidate.
    policy, learner
        The best candidate and, if its oracle learns online, the statistics that it was made of; once it is promoted
        they include the held-back part too, and online learning goes on from them.
    recommender
        In place of ``policy``, the candidate of a recommender.
    generation
        The entry for the ledger.
    run_id, registry_version
        In MLflow.
    done_before
        The same work had been brought to its end before, and nothing was done.
    """

    exit_code: ExitCode
    words: str
    rows: int = 0
    held_back: int = 0
    champion: str | None = None
    estimates: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    verdict: Verdict | None = None
    policy: Policy | None = None
    recommender: RecommenderPolicy | None = None
    learner: Learner | None = None
    generation: Generation | None = None
    run_id: str | None = None
    registry_version: str | None = None
    done_before: bool = False

    @property
    def short(self) -> str:
        """In a few words, for a list of runs."""
        made = "" if self.generation is None else f" {self.generation.policy_version}"
        return self.exit_code.name.lower().replace("_", " ") + made

    def report(self) -> dict[str, object]:
        """Return it as plain JSON values."""
        verdict, made = self.verdict, self.policy or self.recommender
        outcome = "nothing_to_do" if self.done_before else self.exit_code.name.lower()
        return {
            "exit_code": int(self.exit_code),
            "outcome": outcome,
            "words": self.words,
            "rows": self.rows,
            "held_back": self.held_back,
            "champion": self.champion,
            "policy_version": None if made is None else made.version,
            "generation": None if self.generation is None else self.generation.generation,
            "estimates": {
                policy: {name: asdict(estimate) for name, estimate in found.items()}
                for policy, found in self.estimates.items()
            },
            "difference": None if verdict is None else asdict(verdict.difference),
            "confidence": None if verdict is None else verdict.confidence,
            "checks": [] if verdict is None else [asdict(check) for check in verdict.checks],
            "run_id": self.run_id,
            "registry_version": self.registry_version,
        }
