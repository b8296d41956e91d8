"""From a request to a ranked list, and from a logged list back to how it was drawn."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.api.leeway.v1.service_pb2 import RecommendRequest, RecommendResponse
from engine.config import ITEM_ID
from engine.effort import Effort
from engine.errors import InvalidRequest
from engine.policy import OracleFailure
from engine.recommender.columns import Columns, read_columns, user_columns
from engine.recommender.drawing import uniform_slate
from engine.recommender.policy import Float32, Float64, Int64, RecommenderPolicy
from engine.records import (
    FALLBACK_REASON_ORACLE_FAILED,
    MAX_ID_LENGTH,
    Action,
    Decision,
    Features,
    Slate,
)
from engine.slates import Slate as Drawn
from engine.slates.plackett_luce import gumbels

T = TypeVar("T")

#: Set apart from the draw of the list itself.
_SAMPLE = "candidates"


@dataclass(frozen=True, eq=False)
class Candidates:
    """The items of one request, ready to be scored.

    Parameters
    ----------
    rows : ndarray of int64, shape (n,)
        Row of each in the catalogue, which gives its features; -1: the request gives them.
    columns
        Of those that the request describes, in their order.
    available : ndarray of bool, shape (n,)
        False where the item is excluded.
    """

    rows: Int64
    columns: Columns
    available: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Ranked:
    """A list and what it was drawn from.

    Attributes
    ----------
    expected : ndarray of float64, shape (n,), or None
        Expected reward of each candidate; ``None`` where the model was not asked.
    slate
        Over the candidates.
    """

    expected: Float64 | None
    slate: Drawn


def recommend(
    policy: RecommenderPolicy,
    request: RecommendRequest,
    decision_id: str,
    now_ms: int,
    *,
    effort: Effort = Effort.FULL,
) -> Decision:
    """Make one list: a pure function of its arguments.

    Parameters
    ----------
    policy
        The policy that acts.
    request
        User, candidates, number of items; ``InvalidRequest`` is raised where they do not fit the configuration.
    decision_id
        Decides the draw, together with the salt and the vectors.
    now_ms
        Time of the decision.
    effort
        Whether the model is asked, and if not, why not.
    """
    k = _slots(policy, request.k)
    columns = _user(policy, request.user)
    excluded = frozenset(request.exclude)
    fallback, detail = effort.fallback, effort.detail
    decision = Decision(
        decision_id=decision_id,
        decision_point=policy.name,
        time_ms=now_ms,
        policy_version=policy.version,
        context=request.user,
        salt=policy.recommender.slate.salt,
    )
    retrieved = not request.candidates
    user: Float32 | None = None
    ranked: Ranked | None = None
    candidates = None if retrieved else read_candidates(policy, request.candidates, excluded)
    if policy.model is not None and effort.scores:
        try:
            user = _asked(lambda: policy.user_vector(columns))
            if candidates is None:
                candidates = _retrieved(policy, decision_id, excluded, user)
            ranked = rank(policy, user, candidates, k, decision_id)
        except OracleFailure as failure:
            fallback, detail = FALLBACK_REASON_ORACLE_FAILED, str(failure)
            candidates = None if retrieved else candidates
    if candidates is None:
        candidates = _retrieved(policy, decision_id, excluded, None)
    if ranked is None:
        ranked = rank(policy, None, candidates, k, decision_id)
    _write_actions(decision, policy, request.candidates, candidates)
    decision.probabilities.extend(ranked.slate.vectors[0].tolist())
    if ranked.expected is not None:
        decision.scores.extend(ranked.expected.tolist())
    decision.fallback, decision.fallback_detail = fallback, detail
    _write_slate(decision, policy, candidates, ranked.slate, retrieved=retrieved)
    return decision


def response(decision: Decision, unrecorded: str | None = None) -> RecommendResponse:
    """Return what the caller gets to see of a list; ``unrecorded``: why it is not in the log."""
    reply = RecommendResponse(
        decision_id=decision.decision_id,
        policy_version=decision.policy_version,
        fallback=decision.fallback,
        fallback_detail=decision.fallback_detail,
        unrecorded=unrecorded is not None,
        unrecorded_detail=unrecorded or "",
    )
    for item, propensity in zip(decision.slate.items, decision.slate.propensities, strict=True):
        score = decision.scores[item] if decision.scores else 0.0
        reply.items.add(item=decision.actions[item].id, propensity=propensity, score=score)
    return reply


def rank(policy: RecommenderPolicy, user: Float32 | None, candidates: Candidates, k: int, decision_id: str) -> Ranked:
    """Draw a list of up to ``k`` candidates; without ``user`` every order is as likely as any other.

    Raises ``OracleFailure`` where the model fails or gives what is no number.
    """
    free = np.flatnonzero(candidates.available)
    slots = min(k, len(free))
    if user is None:
        salt = policy.recommender.slate.salt
        return Ranked(None, _among(candidates.available, uniform_slate(len(free), slots, decision_id, salt)))
    expected = score(policy, user, candidates)
    prediction = policy.prediction(expected[free])
    drawn = policy.drawing.draw(prediction, policy.learned, slots, decision_id)
    return Ranked(expected, _among(candidates.available, drawn))


def score(policy: RecommenderPolicy, user: Float32, candidates: Candidates) -> Float64:
    """Return the expected reward of each candidate; raises ``OracleFailure``."""

    def expected() -> Float64:
        rows = candidates.rows
        known = rows >= 0
        if known.all():
            assert policy.vectors is not None
            return policy.expected(user, policy.vectors[rows])
        given = policy.item_vectors(candidates.columns)
        items = np.empty((len(rows), *given.shape[1:]), np.float32)
        items[~known] = given
        if known.any():
            assert policy.vectors is not None
            items[known] = policy.vectors[rows[known]]
        return policy.expected(user, items)

    found = _asked(expected)
    if not np.isfinite(found).all():
        raise OracleFailure(f"score of candidate {int(np.argmin(np.isfinite(found)))} is not a finite number")
    return found


def read_candidates(policy: RecommenderPolicy, actions: Sequence[Action], excluded: Collection[str] = ()) -> Candidates:
    """Return named candidates; one without features takes those of the catalogue, if that has it.

    Raises ``InvalidRequest`` naming the field.
    """
    recommender = policy.recommender
    if len(actions) > recommender.candidates:
        raise InvalidRequest(
            "candidates", f"are {len(actions)}, more than the {recommender.candidates} allowed (candidates)"
        )
    rows = np.full(len(actions), -1, dtype=np.int64)
    known = {} if policy.catalogue is None else policy.catalogue.rows
    available = np.ones(len(actions), dtype=np.bool_)
    seen: set[str] = set()
    given: list[int] = []
    for place, action in enumerate(actions):
        identity = action.id
        if not identity or len(identity) > MAX_ID_LENGTH:
            raise InvalidRequest(
                f"candidates[{place}].id", f"must have 1 to {MAX_ID_LENGTH} characters, got {len(identity)}"
            )
        if identity in seen:
            raise InvalidRequest(f"candidates[{place}].id", f"{identity!r} stands twice; ids must differ")
        seen.add(identity)
        if action.excluded or identity in excluded:
            available[place] = False
        if not action.features and identity in known:
            rows[place] = known[identity]
        else:
            given.append(place)
    if not available.any():
        raise InvalidRequest("candidates", "are all excluded; leave at least one to draw from")
    columns = read_columns(
        recommender.item,
        [actions[place].features for place in given],
        lambda row: f"candidates[{given[row]}].features",
        reject_unknown=recommender.unknown_features == "reject",
    )
    _name_items(columns, [(place, actions[place].id) for place in given])
    return Candidates(rows, columns, available)


def logged_candidates(policy: RecommenderPolicy, decision: Decision) -> Candidates:
    """Return the candidates of a logged list as this policy sees them; raises ``InvalidRequest`` where it cannot.

    What was retrieved from the catalogue, or took its features from there, takes those of this policy's catalogue.
    """
    if not decision.slate.retrieved:
        return read_candidates(policy, decision.actions)
    known = {} if policy.catalogue is None else policy.catalogue.rows
    rows = np.array([known.get(action.id, -1) for action in decision.actions], dtype=np.int64)
    gone = np.flatnonzero(rows < 0)
    columns = read_columns(
        policy.recommender.item, [{}] * len(gone), lambda row: f"actions[{gone[row]}]", reject_unknown=False
    )
    _name_items(columns, [(place, decision.actions[place].id) for place in gone.tolist()])
    return Candidates(rows, columns, np.ones(len(rows), dtype=np.bool_))


def logged_user(policy: RecommenderPolicy, decision: Decision) -> Float32:
    """Return the vectors of a logged list's user; raises ``InvalidRequest`` or ``OracleFailure``."""
    columns = _user(policy, decision.context)
    return _asked(lambda: policy.user_vector(columns))


def _slots(policy: RecommenderPolicy, k: int) -> int:
    most = policy.recommender.slots
    if not 0 <= k <= most:
        raise InvalidRequest("k", f"is {k}; ask for 1 to {most} items (slots), or leave it out for {most}")
    return k or most


def _user(policy: RecommenderPolicy, user: Features) -> Columns:
    reject = policy.recommender.unknown_features == "reject"
    return user_columns(policy.recommender.user, user, reject_unknown=reject)


def _retrieved(
    policy: RecommenderPolicy, decision_id: str, excluded: Collection[str], user: Float32 | None
) -> Candidates:
    """Return the best items of the catalogue; without ``user`` a sample of it, the same for the same decision id."""
    catalogue = policy.catalogue
    if catalogue is None:
        raise InvalidRequest(
            "candidates", "is empty, and there is no catalogue to choose from; name candidates, or load a catalogue"
        )
    gone = [row for identity in excluded if (row := catalogue.rows.get(identity)) is not None]
    count = min(policy.recommender.candidates, len(catalogue) - len(gone))
    if count == 0:
        raise InvalidRequest("exclude", "names every item of the catalogue; leave at least one to draw from")
    wanted = count + len(gone)
    if user is not None:
        vector = user
        rows = _asked(lambda: policy.retrieve(vector, wanted))
    elif wanted < len(catalogue):
        keys = gumbels(decision_id, f"{policy.recommender.slate.salt}/{_SAMPLE}", len(catalogue))
        rows = np.sort(np.argpartition(-keys, wanted)[:wanted]).astype(np.int64)
    else:
        rows = np.arange(len(catalogue))
    if gone:
        rows = rows[~np.isin(rows, gone)]
    rows = rows[:count]
    if not len(rows):
        raise OracleFailure("the index found no item")
    return Candidates(rows, {}, np.ones(len(rows), dtype=np.bool_))


def _name_items(columns: Columns, ids: Sequence[tuple[int, str]]) -> None:
    """Fill the field that holds the item's own id, where it is declared."""
    if ITEM_ID not in columns:
        return
    for row, (place, identity) in enumerate(ids):
        said = columns[ITEM_ID][row]
        if said is not None and said != identity:
            raise InvalidRequest(
                f"candidates[{place}].features.{ITEM_ID}",
                f"is {said!r}, and the candidate's id is {identity!r}; leave it out, it is the id",
            )
        columns[ITEM_ID][row] = identity


def _among(available: NDArray[np.bool_], drawn: Drawn) -> Drawn:
    """Return a list over the available candidates as one over all of them."""
    if available.all():
        return drawn
    free = np.flatnonzero(available)
    vectors = np.zeros((len(drawn.actions), len(available)))
    vectors[:, free] = drawn.vectors
    return Drawn(tuple(int(free[place]) for place in drawn.actions), vectors)


def _write_actions(
    decision: Decision, policy: RecommenderPolicy, named: Sequence[Action], candidates: Candidates
) -> None:
    if named:
        decision.actions.extend(named)
        for place in np.flatnonzero(~candidates.available).tolist():
            decision.actions[place].excluded = True
    else:
        assert policy.catalogue is not None
        decision.MergeFromString(policy.catalogue.named(candidates.rows.tolist()))


def _write_slate(
    decision: Decision, policy: RecommenderPolicy, candidates: Candidates, drawn: Drawn, *, retrieved: bool
) -> None:
    decision.chosen = drawn.actions[0]
    from_catalogue = candidates.rows[list(drawn.actions)]
    known = []
    if policy.catalogue is not None:
        known = [policy.catalogue.action(row) for row in from_catalogue.tolist() if row >= 0]
    decision.slate.CopyFrom(
        Slate(
            items=drawn.actions,
            propensities=drawn.propensities,
            catalogue=policy.catalogue.digest if policy.catalogue is not None and (candidates.rows >= 0).any() else "",
            retrieved=retrieved,
            known=known,
        )
    )


def _asked(question: Callable[[], T]) -> T:
    """Return what the model answers; whatever goes wrong in it must not cost the caller the decision."""
    try:
        return question()
    except Exception as error:
        raise OracleFailure(f"{type(error).__name__}: {error}") from error
