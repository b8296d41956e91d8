"""What can be said about a recommender: the fields of its users and items, its tasks, and how lists are drawn."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from engine.config.base import Milliseconds, Model, Name
from engine.config.exploration import EpsilonGreedyConfig, ExplorationConfig

#: The item field that holds the item's own id, if it is declared.
ITEM_ID = "item_id"


class NumberField(Model):
    """One number; the model sees the bucket that it falls into. A missing one has a bucket of its own."""

    type: Literal["number"]
    buckets: int = Field(50, ge=2, le=1_000, description="with equally many values in each, in the first days")


class CategoryField(Model):
    """A text from an open set. One that is missing, and one that was never seen, have codes of their own."""

    type: Literal["category"]


class HistoryField(Model):
    """A list of texts, the latest last, such as the items that a user has bought."""

    type: Literal["history"]
    of: Name = Field(description="the category field whose values it lists, such as item_id")
    length: int = Field(20, ge=1, le=1_000, description="how many of the latest count")


class VectorField(Model):
    """A list of ``size`` numbers, such as an embedding of a text."""

    type: Literal["vector"]
    size: int = Field(ge=1, le=4_096)


RecommenderField = Annotated[
    NumberField | CategoryField | HistoryField | VectorField, Field(discriminator="type", description="one field")
]


class SlateConfig(Model):
    """How a list is drawn from the expected rewards of the candidates."""

    kind: Literal["cascade", "plackett_luce"] = Field(
        "cascade", description="weigh anew for each slot what is left, or draw all slots from one vector"
    )
    exploration: ExplorationConfig = EpsilonGreedyConfig(epsilon=0.1)
    salt: str = Field("leeway", description="mixed into every draw; a new salt gives other lists for the same ids")
    drift_exploration: float = Field(
        0.5, ge=0, le=1, description="most uniform exploration that an alarm adds; it adds the share of reward lost"
    )
    drift_exploration_time: Milliseconds = Field(
        86_400_000, ge=0, description="how long it lasts, if no promotion ends it"
    )

    @model_validator(mode="after")
    def _check(self) -> SlateConfig:
        needs = self.exploration.needs
        if needs:
            raise ValueError(
                f"exploration {self.exploration.kind!r} needs {', '.join(sorted(needs))}, and a model of lists "
                "gives expected rewards alone; choose epsilon_greedy, softmax, squarecb, or another that needs no more"
            )
        return self


class SlateRewardConfig(Model):
    """How outcomes become the value of each slot and task, and these the reward of a list."""

    window: Milliseconds = Field(600_000, gt=0, description="how long after the decision an outcome counts")
    grace: Milliseconds = Field(2_000, ge=0, description="how much later than the window an outcome may arrive")
    aggregation: Literal["first", "last", "min", "max", "mean"] = Field(
        "max", description="of several outcomes of one slot and task"
    )
    default: float = Field(0.0, ge=0, le=1, description="value of a slot and task without an outcome")
    range: tuple[float, float] | None = Field(
        None,
        description="of a list's reward, for the monitors, to which more counts as its end; "
        "null: what one slot can earn",
    )

    @model_validator(mode="after")
    def _check(self) -> SlateRewardConfig:
        if self.range is not None and not float("-inf") < self.range[0] < self.range[1] < float("inf"):
            raise ValueError(f"range {list(self.range)} must be two finite numbers in ascending order")
        return self


class IndexConfig(Model):
    """How the best items of a catalogue are found."""

    kind: Literal["auto", "exact", "hnsw"] = Field(
        "auto", description="exact inner products up to `exact_up_to` items and HNSW beyond; or always one of them"
    )
    exact_up_to: int = Field(100_000, ge=1, description="items of a catalogue that is searched exactly")
    links: int = Field(32, ge=4, le=128, description="HNSW: neighbours of an item; more find more and take more memory")
    ef_construction: int = Field(100, ge=8, le=2_000, description="HNSW: effort of building")
    ef_search: int = Field(
        400, ge=8, le=100_000, description="HNSW: effort of a search; at least the number of candidates is taken"
    )


class Recommender(Model):
    """One recommender: which items, in which order, for a user."""

    user: dict[Name, RecommenderField] = Field({}, description="what is known of the user, and of the request")
    item: dict[Name, RecommenderField] = Field(min_length=1, description="what is known of an item")
    tasks: dict[Name, Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]] = Field(
        min_length=1, max_length=16, description="kinds of outcomes, with the weight of each in the reward"
    )
    slots: int = Field(20, ge=1, le=1_000, description="most items in one answer")
    candidates: int = Field(
        1_000, ge=1, le=100_000, description="most candidates of a request; so many are retrieved from the catalogue"
    )
    unknown_features: Literal["reject", "ignore"] = "reject"
    slate: SlateConfig = SlateConfig()
    reward: SlateRewardConfig = SlateRewardConfig()
    index: IndexConfig = IndexConfig()

    @property
    def item_range(self) -> tuple[float, float]:
        """Least and greatest reward of one slot."""
        return 0.0, sum(self.tasks.values())

    @property
    def reward_range(self) -> tuple[float, float]:
        """Range of a list's reward for monitors."""
        return self.item_range if self.reward.range is None else self.reward.range

    @model_validator(mode="after")
    def _check(self) -> Recommender:
        both = sorted(self.user.keys() & self.item.keys())
        if both:
            raise ValueError(f"user and item both have a field {both[0]!r}; give one of them another name")
        if self.candidates < self.slots:
            raise ValueError(f"candidates {self.candidates} are fewer than slots {self.slots}; raise candidates")
        named = self.item.get(ITEM_ID)
        if named is not None and not isinstance(named, CategoryField):
            raise ValueError(f"item.{ITEM_ID} is of type {named.type}; it holds the item's id: make it a category")
        fields = {**self.user, **self.item}
        for name, field in fields.items():
            if isinstance(field, HistoryField) and not isinstance(fields.get(field.of), CategoryField):
                known = ", ".join(sorted(n for n, f in fields.items() if isinstance(f, CategoryField))) or "none"
                raise ValueError(f"{name}.of names {field.of!r}, which is no category field; categories are: {known}")
        return self


def same_fields(one: Recommender, other: Recommender) -> bool:
    """Say whether two recommenders read the same fields for the same tasks, so that a model of one fits the other.

    Compared as text: dictionaries with the same fields in another order are equal, and what is encoded is not.
    """
    return _read(one) == _read(other)


def _read(recommender: Recommender) -> str:
    return recommender.model_dump_json(include={"user", "item"}) + ",".join(recommender.tasks)
