"""How much one request may carry, whatever its decision point allows: the guard of memory, disk and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.api.leeway.v1.service_pb2 import ActivateRequest, DecideRequest, RecommendRequest, ReportRequest
from engine.config import LimitsConfig
from engine.errors import InvalidRequest
from engine.records import MAX_ID_LENGTH, Action, Value


class Limits:
    """Raises ``InvalidRequest`` naming field, value and limit where a request carries too much.

    Parameters
    ----------
    config
        The limits.

    Notes
    -----
    A list's entry, and a feature, take two bytes of a message at least, and a text a byte for each character. So a
    request of few bytes in all is within the limits, but for its ids, without a look at its features.
    """

    def __init__(self, config: LimitsConfig) -> None:
        self._config = config
        self._own_id = min(config.id_length, MAX_ID_LENGTH)
        self._harmless = min(config.text_length, 2 * config.features, 2 * config.list_length)

    def decide(self, request: DecideRequest) -> None:
        """Check a request for a decision."""
        self._count("actions", len(request.actions), self._config.actions, "actions")
        self._length("decision_id", request.decision_id, self._own_id)
        self._ids("actions", request.actions)
        if request.ByteSize() > self._harmless:
            self._features("context.features", request.context.named)
            self._actions("actions", request.actions)

    def allows(self, actions: int, longest: int, own: int) -> bool:
        """Say whether :meth:`decide` lets a request without named features pass.

        Parameters
        ----------
        actions, longest
            How many there are, and the characters of their longest id.
        own
            Characters of the decision's id.
        """
        config = self._config
        return actions <= config.actions and longest <= config.id_length and own <= self._own_id

    def recommend(self, request: RecommendRequest) -> None:
        """Check a request for a list."""
        self._count("candidates", len(request.candidates), self._config.actions, "actions")
        self._count("exclude", len(request.exclude), self._config.actions, "actions")
        self._length("decision_id", request.decision_id, self._own_id)
        self._ids("candidates", request.candidates)
        for place, identity in enumerate(request.exclude):
            self._length(f"exclude[{place}]", identity, self._config.id_length)
        if request.ByteSize() > self._harmless:
            self._features("user.features", request.user.named)
            self._actions("candidates", request.candidates)

    def report(self, request: ReportRequest) -> None:
        """Check an outcome."""
        if request.ByteSize() > self._own_id:
            for name in ("decision_id", "outcome_id", "decision_point", "task", "item"):
                self._length(name, getattr(request, name), self._own_id)

    def activate(self, request: ActivateRequest) -> None:
        """Check word that a decision is acted on."""
        for name in ("decision_id", "decision_point"):
            self._length(name, getattr(request, name), self._own_id)

    def batch(self, requests: Sequence[object]) -> None:
        """Check how many requests come at once."""
        self._count("requests", len(requests), self._config.batch, "batch")

    def _ids(self, path: str, actions: Sequence[Action]) -> None:
        longest = self._config.id_length
        for place, action in enumerate(actions):
            if len(action.id) > longest:
                self._length(f"{path}[{place}].id", action.id, longest)

    def _actions(self, path: str, actions: Sequence[Action]) -> None:
        for place, action in enumerate(actions):
            if action.features:
                self._features(f"{path}[{place}].features", action.features)

    def _features(self, path: str, named: Mapping[str, Value]) -> None:
        self._count(path, len(named), self._config.features, "features")
        for name, value in named.items():
            self._length(path, name, self._config.id_length)
            kind = value.WhichOneof("kind")
            if kind == "text":
                self._text(f"{path}.{name}", value.text)
            elif kind in ("numbers", "texts"):
                entries: Any = value.numbers.values if kind == "numbers" else value.texts.values
                self._count(f"{path}.{name}", len(entries), self._config.list_length, "list_length")
                if kind == "texts":
                    for place, text in enumerate(entries):
                        self._text(f"{path}.{name}[{place}]", text)

    def _count(self, field: str, found: int, most: int, setting: str) -> None:
        if found > most:
            raise InvalidRequest(field, f"has {found} entries, more than {most} (serving.limits.{setting}); send fewer")

    def _length(self, field: str, text: str, longest: int) -> None:
        if len(text) > longest:
            raise InvalidRequest(
                field,
                f"{text[:24]!r}... has {len(text)} characters, and is longer than {longest} "
                "(serving.limits.id_length); choose a shorter one",
            )

    def _text(self, field: str, text: str) -> None:
        if len(text) > self._config.text_length:
            raise InvalidRequest(
                field,
                f"{text[:24]!r}... has {len(text)} characters, and is longer than {self._config.text_length} "
                "(serving.limits.text_length); shorten it",
            )
