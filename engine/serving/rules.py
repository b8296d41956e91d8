"""What a caller needs for each method: a scope, and the decision points that the request is about."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from engine.serving.tokens import Scope


def _nothing(_request: Any) -> Iterable[str]:
    return ()


def _whole(_reply: Any, _points: Collection[str]) -> None:
    pass


def _listed(name: str) -> Callable[[Any, Collection[str]], None]:
    """Return what removes the entries of other points from the list ``name`` of a reply."""

    def narrow(reply: Any, points: Collection[str]) -> None:
        entries = getattr(reply, name)
        kept = [entry for entry in entries if entry.decision_point in points]
        del entries[:]
        entries.extend(kept)

    return narrow


@dataclass(frozen=True, slots=True)
class Rule:
    """What one method asks for.

    Attributes
    ----------
    scope
        What the caller must have.
    named
        From a request to the points that it names, all of which the caller must have; an empty name is one that is
        missing.
    narrow
        Takes out of a reply what is of none of the caller's points.
    every
        Whether the caller must have all points.
    each
        Whether the method is a stream, whose every request is asked about.
    """

    scope: Scope
    named: Callable[[Any], Iterable[str]] = _nothing
    narrow: Callable[[Any, Collection[str]], None] = _whole
    every: bool = False
    each: bool = False


#: By the full name of the method.
RULES = {
    "leeway.v1.Leeway.Decide": Rule("decide", lambda request: (request.decision_point,)),
    "leeway.v1.Leeway.DecideBatch": Rule("decide", lambda batch: {item.decision_point for item in batch.requests}),
    "leeway.v1.Leeway.DecideStream": Rule("decide", lambda request: (request.decision_point,), each=True),
    "leeway.v1.Leeway.Record": Rule("decide", lambda batch: {made.request.decision_point for made in batch.decisions}),
    "leeway.v1.Leeway.Recommend": Rule("decide", lambda request: (request.recommender,)),
    "leeway.v1.Leeway.Report": Rule("report", lambda request: (request.decision_point,)),
    "leeway.v1.Leeway.ReportBatch": Rule("report", lambda batch: {item.decision_point for item in batch.requests}),
    "leeway.v1.Leeway.Activate": Rule("report", lambda request: (request.decision_point,)),
    "leeway.v1.LeewayAdmin.GetStatus": Rule("read", narrow=_listed("decision_points")),
    "leeway.v1.LeewayAdmin.ListPolicies": Rule(
        "read",
        lambda request: (request.decision_point,) if request.decision_point else (),
        narrow=_listed("policies"),
    ),
    "grpc.reflection.v1alpha.ServerReflection.ServerReflectionInfo": Rule("read"),
}
#: Of a method that has no rule of its own: as good as closed, until somebody says what it needs.
UNSTATED = Rule("admin", every=True)
