"""The admin service: what serves, what was learned, and whether the books balance."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

import grpc
from grpc_status import rpc_status

from engine import __version__
from engine.api.leeway.v1 import admin_pb2, admin_pb2_grpc
from engine.errors import LeewayError, SnapshotError, UnknownDecisionPoint
from engine.recommender.store import RecommenderStore
from engine.records import Alarm, JoinAccounting
from engine.serving.deciding import Slot
from engine.serving.errors import status_of
from engine.serving.service import DecisionService, RecommenderSlot
from engine.store import PolicyStore

logger = logging.getLogger(__name__)


class Insight(Protocol):
    """What the admin service asks about the other side of the log."""

    def accounting(self) -> Mapping[str, JoinAccounting]:
        """Return the book of the join for each decision point."""

    def alarms(self, point: str) -> Sequence[Alarm]:
        """Return the latest alarms of a decision point, oldest first."""


class AdminServicer(admin_pb2_grpc.LeewayAdminServicer):
    """Answers operators. Reads only; a slow log makes it slow, and no decision waits for it."""

    def __init__(self, service: DecisionService, store: PolicyStore, insight: Insight, started_ms: int) -> None:
        self._service = service
        self._store = store
        self._insight = insight
        self._started_ms = started_ms
        self.draining = False

    def GetStatus(  # noqa: N802
        self, request: admin_pb2.GetStatusRequest, context: grpc.ServicerContext
    ) -> admin_pb2.GetStatusResponse:
        """Return the state of every decision point."""
        try:
            books = self._insight.accounting()
            reply = admin_pb2.GetStatusResponse(
                version=__version__, started_ms=self._started_ms, draining=self.draining
            )
            for name, slot in self._service.slots.items():
                policy = slot.policy
                reply.decision_points.add(
                    decision_point=name,
                    policy_version=policy.version,
                    generation=policy.generation,
                    policy_created_ms=policy.created_ms,
                    learned=policy.learned,
                    decisions=slot.decisions,
                    fallbacks=slot.fallbacks,
                    accounting=books.get(name, JoinAccounting()),
                    alarms=self._insight.alarms(name),
                    policy_error=slot.policy_error,
                    kind="bandit",
                    mode=slot.point.mode,
                )
            for name, ranked in self._service.recommenders.items():
                known = ranked.policy.catalogue
                reply.decision_points.add(
                    decision_point=name,
                    policy_version=ranked.policy.version,
                    generation=ranked.policy.generation,
                    policy_created_ms=ranked.policy.created_ms,
                    learned=ranked.policy.learned,
                    decisions=ranked.decisions,
                    fallbacks=ranked.fallbacks,
                    accounting=books.get(name, JoinAccounting()),
                    alarms=self._insight.alarms(name),
                    policy_error=ranked.policy_error,
                    kind="recommender",
                    catalogue_items=0 if known is None else len(known),
                )
        except LeewayError as error:
            context.abort_with_status(rpc_status.to_status(status_of(error)))
        return reply

    def ListPolicies(  # noqa: N802
        self, request: admin_pb2.ListPoliciesRequest, context: grpc.ServicerContext
    ) -> admin_pb2.ListPoliciesResponse:
        """Return the policies on disk, oldest first; the one that acts is marked.

        One that cannot be read is listed by its version alone: it must not hide the others.
        """
        reply = admin_pb2.ListPoliciesResponse()
        try:
            slots: dict[str, Slot | RecommenderSlot] = {**self._service.slots, **self._service.recommenders}
            asked = request.decision_point
            if asked and asked not in slots:
                raise UnknownDecisionPoint(asked, sorted(slots))
            for name in [asked] if asked else slots:
                acting = slots[name].policy.version
                for label in self._store.versions(name):
                    reply.policies.add(decision_point=name, policy_version=label, acting=label == acting)
                    reply.policies[-1].MergeFrom(self._summary(name, label))
        except LeewayError as error:
            context.abort_with_status(rpc_status.to_status(status_of(error)))
        return reply

    def _summary(self, name: str, label: str) -> admin_pb2.PolicySummary:
        try:
            if name in self._service.recommenders:
                ranked = RecommenderStore(self._store.root).load(name, label)
                return admin_pb2.PolicySummary(
                    generation=ranked.generation,
                    oracle="none" if ranked.model is None else ranked.model.kind,
                    exploration=ranked.recommender.slate.exploration.kind,
                    created_ms=ranked.created_ms,
                    learned=ranked.learned,
                )
            policy = self._store.load(name, label)
        except SnapshotError as error:
            logger.warning("%s: %s", name, error)
            return admin_pb2.PolicySummary()
        return admin_pb2.PolicySummary(
            generation=policy.generation,
            oracle=policy.oracle.kind,
            exploration=policy.exploration.kind,
            created_ms=policy.created_ms,
            learned=policy.learned,
        )
