"""The JSON forms of requests and answers. Strict: exact types, no unknown keys."""

from __future__ import annotations

from typing import Annotated

from google.protobuf.message import Message
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from engine.api.leeway.v1.service_pb2 import (
    ActivateRequest,
    DecideRequest,
    DecideResponse,
    RecommendRequest,
    RecommendResponse,
    ReportRequest,
)
from engine.client.messages import Candidate, Choice, decide_request, recommend_request
from engine.records import MAX_ID_LENGTH, fallback_name

#: Whole numbers of JSON that every program reads alike (RFC 7493).
_MAX_INTEGER = 2**53 - 1
_MAX_INT32 = 2**31 - 1


def _whole(number: object) -> object:
    # To JSON 5, 5.0 and 5e0 are one number.
    return int(number) if isinstance(number, float) and number.is_integer() else number


Id = Annotated[str, Field(max_length=MAX_ID_LENGTH)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=_MAX_INT32)]


def _one_message(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    # One sentence, not one for each form that it could have had.
    try:
        return handler(value)
    except ValidationError:
        raise ValueError("must be a finite number, a text, or a list of numbers or of texts") from None


#: A number, a text, or a list of either.
Feature = Annotated[Number | str | list[Number] | list[str], WrapValidator(_one_message)]
Features = dict[str, Feature]


class Form(BaseModel):
    """Base of all forms."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ActionForm(Form):
    """A candidate with features."""

    id: str
    features: Features = Field({}, description="as the decision point's schema says")
    excluded: bool = Field(False, description="listed, and never drawn")

    def candidate(self) -> Candidate:
        """Return it as the client has it."""
        return Candidate(self.id, self.features, self.excluded)


#: What stands in the path of an error where it speaks of the form of a candidate.
TAGS = ("action id", "action")
#: A candidate: its id alone, or with features.
ActionOrId = Annotated[
    Annotated[str, Tag(TAGS[0])] | Annotated[ActionForm, Tag(TAGS[1])],
    Discriminator(lambda value: TAGS[0] if isinstance(value, str) else TAGS[1]),
]


def _candidates(actions: list[ActionOrId]) -> list[Candidate | str]:
    return [action if isinstance(action, str) else action.candidate() for action in actions]


class ChoiceForm(Form):
    """What the caller does by itself, without a policy."""

    chosen: Count = Field(description="index into the actions")
    probabilities: list[Number] = Field([], description="the vector that it was drawn from; empty: it was not drawn")


class DecideForm(Form):
    """Which of these actions for this context?"""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "decision_point": "offers",
                    "decision_id": "3f2a",
                    "context": {"basket": 0.4, "country": "NL"},
                    "actions": ["none", {"id": "small", "features": {"discount": 0.05}}],
                }
            ]
        }
    )

    decision_point: str
    decision_id: Id = Field("", description="makes a retry safe: the same id gets the same answer, and is logged once")
    context: Features = Field({}, description="as the decision point's schema says")
    actions: list[ActionOrId]
    choice: ChoiceForm | None = Field(
        None, description="acts where the mode is logging_only; left out: the first action that is not excluded"
    )

    defer_activation: bool = Field(False, description="nothing is learned from it unless it is activated in time")

    def message(self) -> DecideRequest:
        """Return the message; without an id the server makes one."""
        given = self.choice
        choice = None if given is None else Choice(given.chosen, given.probabilities)
        message = decide_request(self.decision_point, self.context, _candidates(self.actions), self.decision_id, choice)
        message.decision_id = self.decision_id
        message.defer_activation = self.defer_activation
        return message


class RecommendForm(Form):
    """Which of these items, or of the whole catalogue, in which order?"""

    recommender: str
    decision_id: Id = Field("", description="as in decide; outcomes are reported with it")
    user: Features = Field({}, description="what is known of the user; a history is a list of texts, the latest last")
    candidates: list[ActionOrId] = Field([], description="the items to choose from; none: the whole catalogue")
    k: Count = Field(0, description="how many items; 0: as many as the recommender has slots")
    exclude: list[str] = Field([], description="ids of items that must not come")

    def message(self) -> RecommendRequest:
        """Return the message; without an id the server makes one."""
        message = recommend_request(
            self.recommender, self.user, _candidates(self.candidates), self.k, self.exclude, self.decision_id
        )
        message.decision_id = self.decision_id
        return message


class ReportForm(Form):
    """What came of a decision."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"decision_id": "3f2a", "outcome_id": "o-1", "value": 1.0}]}
    )

    decision_id: Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH)]
    value: Number
    outcome_id: Id = Field("", description="makes a retry safe: sent twice, it counts once")
    time_ms: Annotated[int, BeforeValidator(_whole), Field(ge=0, le=_MAX_INTEGER)] = Field(
        0, description="when it happened, milliseconds since 1970-01-01 UTC; 0: now"
    )
    decision_point: str = Field("", description="with it, a typing error is noticed at once")
    task: Id = Field("", description="of a recommender: what happened, one of its tasks")
    item: Id = Field("", description="of a recommender: id of the item of the list")
    slot: Count | None = Field(None, description="of a recommender: slot of the item, counted from 0")

    def message(self) -> ReportRequest:
        """Return the message."""
        return ReportRequest(**self.model_dump())


class ActivateForm(Form):
    """A decision that was asked for with `defer_activation` is acted on."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"decision_id": "3f2a"}]})

    decision_id: Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH)]
    decision_point: str = Field("", description="with it, a typing error is noticed at once")
    time_ms: Annotated[int, BeforeValidator(_whole), Field(ge=0, le=_MAX_INTEGER)] = Field(
        0, description="when it was acted on, milliseconds since 1970-01-01 UTC; 0: now"
    )

    def message(self) -> ActivateRequest:
        """Return the message."""
        return ActivateRequest(**self.model_dump())


class DecideBatchForm(Form):
    """Many at once; each item succeeds or fails by itself."""

    requests: list[DecideForm]


class ReportBatchForm(Form):
    """Many outcomes at once; each item succeeds or fails by itself."""

    requests: list[ReportForm]


class DecideAnswer(Form):
    """The action that was drawn, and how likely it was."""

    decision_id: str
    action: str
    action_index: int = Field(description="place of the action in the request")
    propensity: float = Field(description="probability with which it was drawn")
    probabilities: list[float] = Field(description="the whole vector, in the order of the request's actions")
    policy_version: str
    fallback: str = Field(description="none; or why the policy's oracle was not asked, such as oracle_failed")
    fallback_detail: str
    unrecorded: bool = Field(description="the log could not take it: nothing will be learned from it")
    unrecorded_detail: str

    @classmethod
    def of(cls, answer: Message) -> DecideAnswer:
        """Return the form of an answer."""
        assert isinstance(answer, DecideResponse)
        return cls(
            decision_id=answer.decision_id,
            action=answer.action,
            action_index=answer.action_index,
            propensity=answer.propensity,
            probabilities=list(answer.probabilities),
            policy_version=answer.policy_version,
            fallback=fallback_name(answer.fallback),
            fallback_detail=answer.fallback_detail,
            unrecorded=answer.unrecorded,
            unrecorded_detail=answer.unrecorded_detail,
        )


class ItemForm(Form):
    """One item of a list."""

    item: str
    propensity: float = Field(description="probability with which it was drawn, given the items before it")
    score: float = Field(description="reward that the model expects; 0 in a fallback, and before a model was trained")


class RecommendAnswer(Form):
    """A ranked list, best first."""

    decision_id: str
    items: list[ItemForm]
    policy_version: str
    fallback: str
    fallback_detail: str
    unrecorded: bool
    unrecorded_detail: str

    @classmethod
    def of(cls, answer: Message) -> RecommendAnswer:
        """Return the form of an answer."""
        assert isinstance(answer, RecommendResponse)
        return cls(
            decision_id=answer.decision_id,
            items=[ItemForm(item=i.item, propensity=i.propensity, score=i.score) for i in answer.items],
            policy_version=answer.policy_version,
            fallback=fallback_name(answer.fallback),
            fallback_detail=answer.fallback_detail,
            unrecorded=answer.unrecorded,
            unrecorded_detail=answer.unrecorded_detail,
        )


class ReportAnswer(Form):
    """The outcome is safe in the log."""

    outcome_id: str


class ActivateAnswer(Form):
    """That it is acted on is safe in the log."""


class HealthAnswer(Form):
    """How the server is."""

    status: str
