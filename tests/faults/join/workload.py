"""Decisions and outcomes with everything that goes wrong on the way, such that one answer alone is right.

The join reads two topics, and nothing says how its reading of the one is ordered against its reading of the other.
Here the answer does not depend on that, nor on when a joiner dies, because of how event times, the order in
the topics and the clock of the joiners (the test's, see :func:`rounds`) go together:

- Each record has a time of *arrival*. Each topic is in the order of arrival, and a record's own time is never later;
  or else it is later than anything could be, and the record is refused and moves no clock.
- A record arrives less than ``DELAY_MS`` after its time, or after its decision's if that is later.
- When the clock shows *t*, everything that arrived until *t* is safely in the log, and its topic is in that order.

So, before a record that arrives at *a* was read, the clock of its topic is not after *a*, wherever it came from: the
greatest time of the records before it is not, nor is any *t* at which the topic was read to its end. The watermark of
the join is the smaller of two such clocks, thus not after *a* either. Therefore

- what is in time (``time <= decision + window``) arrives before ``decision + window + DELAY_MS``, and is read before
  its window closes, at ``decision + window + grace``, for ``DELAY_MS < grace``;
- a decision that arrives after its outcomes is read before their patience (``window + grace`` at least) is over;
- what is late arrives before ``decision + 2 * (window + grace)``, and so does each repetition of a decision or an
  outcome: it is read while its decision is remembered, and is late or a duplicate, not unknown.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from engine.config import RewardConfig
from engine.records import Action, Decision, Features, Outcome, Value
from streaming.log import Header, Message
from streaming.topics import DECISIONS, OUTCOMES
from streaming.wire import message_of

#: One decision point for each aggregation; short windows close while the joiners are being killed, the longest at the
#: end, and lives through everything.
POINTS = {
    "first": RewardConfig(window=15_000, grace=20_000, aggregation="first", default=0.25),
    "last": RewardConfig(window=40_000, grace=25_000, aggregation="last", default=0.5),
    "sum": RewardConfig(window=90_000, grace=30_000, aggregation="sum", range=(-1.0, 1.0)),
    "min": RewardConfig(window=5_000, grace=15_000, aggregation="min", range=(-1.0, 1.0), default=1.0),
    "max": RewardConfig(window=240_000, grace=20_000, aggregation="max", range=(0.0, 10.0)),
    "mean": RewardConfig(window=7 * 86_400_000, grace=60_000, aggregation="mean", range=(-4.0, 4.0), default=-1.0),
}
DELAY_MS = 8_000
START_MS = 1_700_000_000_000
BETWEEN_DECISIONS_MS = 10
#: No round covers more event time. A record may not be much ahead of the clock of the joiners.
LONGEST_ROUND_MS = 60_000

_NAMES = list(POINTS)
#: Nothing happens at the end of longer windows: the run would have to go on for a week.
_LONGEST_TO_CLOSE_MS = 240_000
#: Behind all windows, whatever has happened.
END_MS = START_MS + 10 * max(config.window + config.grace for config in POINTS.values())
#: Times that no clock shows; the first is a quarter of a year after the end.
_NO_TIMES = (END_MS + 90 * 86_400_000, 2**53 + 1, -(2**53) - 1)
_JSON: Header = ("content-type", b"application/json; charset=utf-8")
_FIELD_OF_A_LATER_VERSION = b"\xa2\x06\x03new"  # field 100, text


@dataclass(frozen=True)
class Arrival:
    """A message, and the event time at which it comes into the log."""

    time_ms: int
    message: Message


def workload(decisions: int, seed: int) -> list[Arrival]:
    """Return the records of ``decisions`` decisions, and of what goes wrong beside, in the order of arrival."""
    source = _Source(random.Random(seed))
    for number in range(decisions):
        source.decide(START_MS + number * BETWEEN_DECISIONS_MS)
    return sorted(source.arrivals, key=lambda arrival: arrival.time_ms)


def rounds(arrivals: list[Arrival], size: int) -> Iterator[tuple[list[Message], int]]:
    """Yield messages to append, at most about ``size``, and what the clock may show when they are safe in the log."""
    begin = 0
    while begin < len(arrivals):
        end = begin
        latest = arrivals[begin].time_ms + LONGEST_ROUND_MS
        while end < len(arrivals) and end - begin < size and arrivals[end].time_ms <= latest:
            end += 1
        clock_ms = arrivals[end].time_ms - 1 if end < len(arrivals) else arrivals[-1].time_ms
        yield [arrival.message for arrival in arrivals[begin:end]], clock_ms
        begin = end


class _Source:
    """Makes up decisions, and their outcomes."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.arrivals: list[Arrival] = []

    def decide(self, time_ms: int) -> None:
        rng = self._rng
        point = rng.choice(_NAMES)
        decision = self._decision(point, time_ms)
        message = message_of(decision)
        if self._chance(0.01):
            message = message._replace(value=(message.value or b"") + _FIELD_OF_A_LATER_VERSION)
        # Most come at once; some so late that their outcomes are there before them.
        arrival_ms = time_ms + rng.randrange(DELAY_MS if self._chance(0.1) else 500)
        self._arrive(arrival_ms, message)
        if self._chance(0.01):  # a producer that was not answered sends again
            self._arrive(arrival_ms + rng.randrange(DELAY_MS), message)
        self._report(decision)
        if self._chance(0.02):
            self._err(decision)

    def _report(self, decision: Decision) -> None:
        """Add the outcomes of a decision; it has none in a quarter of all cases."""
        rng = self._rng
        config = POINTS[decision.decision_point]
        # Most outcomes come in the first minutes, however long the window is.
        usual_ms = min(config.window, 60_000)
        times = [
            decision.time_ms + rng.randint(0, usual_ms) for _ in range(rng.choices((0, 1, 2, 4), (25, 50, 15, 10))[0])
        ]
        if times and self._chance(0.05):
            times[0] = decision.time_ms - rng.randrange(3_000)  # the clock of the client is slow
        if len(times) > 1 and self._chance(0.3):
            times[1] = times[0]
        if config.window <= _LONGEST_TO_CLOSE_MS:
            if times and self._chance(0.05):
                times[-1] = decision.time_ms + config.window  # the last millisecond that counts
            if self._chance(0.05):
                times.append(decision.time_ms + config.window + 1)
            if self._chance(0.03):
                times.append(decision.time_ms + config.window + rng.randint(1, config.window // 2))
        for time_ms in times:
            outcome = self._outcome(decision, time_ms, self._value(config))
            self._send(outcome, decision.time_ms)
            if self._chance(0.08):
                again = Outcome()
                again.CopyFrom(outcome)
                if again.outcome_id and self._chance(0.3):  # the id decides, whatever else it says
                    again.value = self._value(config)
                self._send(again, decision.time_ms)

    def _err(self, decision: Decision) -> None:
        """Add something that nobody can use, about a decision that is in order, or in its place."""
        rng = self._rng
        config = POINTS[decision.decision_point]
        time_ms = decision.time_ms + rng.randrange(5_000)
        outcome = self._outcome(decision, time_ms, self._value(config))
        topic = rng.choice((DECISIONS, OUTCOMES))
        poison = Message(topic, decision.decision_id.encode(), b"", time_ms)
        match rng.randrange(14):
            case 0:  # cut off in the midst of the id
                whole = message_of(decision if topic == DECISIONS else outcome).value or b""
                self._arrive(time_ms, poison._replace(value=whole[: rng.randrange(3, 30)]))
            case 1:
                self._arrive(time_ms, poison._replace(value=b"\xff" + rng.randbytes(40)))
            case 2:
                self._arrive(time_ms, poison._replace(value=None))
            case 3:
                self._arrive(time_ms, poison._replace(value=b"{}", headers=[("content-type", b"text/csv")]))
            case 4:  # it came to another partition than the decision, or could have
                self._arrive(time_ms, message_of(decision)._replace(key=self._id().encode()))
                self._arrive(time_ms, message_of(outcome)._replace(key=self._id().encode()))
            case 5:
                wrong = rng.choice(('{"value": 1.0, "time_ms": "soon"}', '{"value": 1.0, "tiem_ms": 5}', "[1.0]", "{"))
                self._arrive(time_ms, poison._replace(topic=OUTCOMES, value=wrong.encode(), headers=[_JSON]))
            case 6 if config.aggregation != "sum":
                low, high = config.range
                outcome.value = rng.choice((low - 0.001, high + 0.001, -1e6, 1e6))
                for _ in range(rng.randint(1, 2)):
                    self._send(outcome, decision.time_ms)
            case 7:
                outcome.value = rng.choice((float("nan"), float("inf"), -1e101))
                self._arrive(time_ms, message_of(outcome))
            case 8:
                outcome.time_ms = rng.choice(_NO_TIMES)
                self._arrive(time_ms, message_of(outcome)._replace(timestamp_ms=time_ms))
            case 9:
                decision.time_ms = rng.choice(_NO_TIMES)
                self._arrive(time_ms, message_of(decision)._replace(timestamp_ms=time_ms))
            case 10:
                unknown = self._decision("misspelt", decision.time_ms)
                self._arrive(decision.time_ms, message_of(unknown))
                self._send(self._outcome(unknown, time_ms, 0.5), time_ms)
            case _:  # no decision has this id; sent twice it is still one outcome
                outcome.decision_id = self._id()
                for _ in range(rng.randint(1, 2)):
                    self._send(outcome, time_ms)
                if self._chance(0.5):
                    outcome.time_ms += 1
                    outcome.outcome_id = ""
                    self._send(outcome, outcome.time_ms)

    def _decision(self, point: str, time_ms: int) -> Decision:
        rng = self._rng
        numbers = [rng.random() for _ in range(8)]
        return Decision(
            decision_id=self._id(),
            decision_point=point,
            time_ms=time_ms,
            policy_version="g0.0-00000000",
            context=Features(named={"device": Value(text="phone")}, packed=struct.pack("<8f", *numbers)),
            actions=[Action(id=name) for name in ("a", "b", "c")],
            probabilities=[0.5, 0.25, 0.25],
            chosen=rng.randrange(3),
            scores=numbers[:3],
            salt="leeway",
        )

    def _outcome(self, decision: Decision, time_ms: int, value: float) -> Outcome:
        return Outcome(
            decision_id=decision.decision_id,
            decision_point=self._rng.choice((decision.decision_point, "")),
            outcome_id=self._rng.choice((self._id(), "")),
            time_ms=time_ms,
            value=value,
        )

    def _value(self, config: RewardConfig) -> float:
        # Sums of such numbers are exact in any order.
        low, high = config.range
        return low + self._rng.randint(0, 1_024) / 1_024 * (high - low)

    def _send(self, outcome: Outcome, not_before_ms: int) -> None:
        """Let an outcome arrive soon after its time, but not long before its decision is made."""
        earliest_ms = max(outcome.time_ms, not_before_ms)
        message = message_of(outcome)
        if self._chance(0.15):  # it comes from another system
            message = message._replace(value=self._json(outcome), headers=[_JSON, ("trace", b"\x00\xff")])
        self._arrive(earliest_ms + self._rng.randrange(DELAY_MS), message)

    def _json(self, outcome: Outcome) -> bytes:
        entries: dict[str, object] = {"value": outcome.value}
        if self._chance(0.5):
            entries["decision_id"] = outcome.decision_id
        if outcome.outcome_id:
            entries["outcome_id"] = outcome.outcome_id
        if outcome.decision_point:
            entries["decision_point"] = outcome.decision_point
        if self._chance(0.5):
            entries["time_ms"] = outcome.time_ms
        else:
            entries["time"] = datetime.fromtimestamp(outcome.time_ms / 1_000, UTC).isoformat(timespec="milliseconds")
        return json.dumps(entries).encode()

    def _arrive(self, time_ms: int, message: Message) -> None:
        self.arrivals.append(Arrival(time_ms, message))

    def _chance(self, probability: float) -> bool:
        return self._rng.random() < probability

    def _id(self) -> str:
        return f"{self._rng.getrandbits(128):032x}"
