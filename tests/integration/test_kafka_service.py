"""The whole service on a real Kafka: every role, members of the join side by side, and the end of it all."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.records import Feedback, new_id
from streaming.config import load_config, log_environment
from streaming.insight import tail
from streaming.opening import attach
from streaming.topics import FEEDBACK
from tests.integration.service import ACTIONS, CONTEXT, Service, eventually, leeway, settings

pytestmark = pytest.mark.kafka

DECISIONS = 60
Start = Callable[..., "KafkaService"]


class KafkaService(Service):
    """``leeway up --log kafka://...`` with a configuration that says nothing of Kafka."""

    def __init__(
        self,
        directory: Path,
        bootstrap: str,
        options: Sequence[str],
        environment: dict[str, str],
        configuration: dict[str, Any] | None = None,
    ) -> None:
        self.log = f"kafka://{bootstrap}"
        self.environment = environment
        super().__init__(
            directory, configuration or settings(), options=["--log", self.log, *options], environment=environment
        )
        self.config = load_config(self.path, {**environment, **log_environment(self.log)})

    def partitions(self, member: str) -> set[int]:
        """Return the partitions that a member of the join shows."""
        return {int(n) for n in re.findall(r'watermark_delay_seconds\{partition="(\d+)"\}', self.exposition(member))}

    def joined(self, what: str) -> float:
        """Return a counter of the join's book; 0 before it was read for the first time."""
        found = re.search(
            rf'^leeway_join_{what}_total{{decision_point="offers"}} (\S+)$', self.exposition("work"), re.M
        )
        return float(found[1]) if found else 0.0

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the same log."""
        return leeway(*words, "--config", self.path, "--log", self.log, env=self.environment)

    def feedback(self) -> Counter[str]:
        """Return the ids of the decisions that have feedback."""
        with closing(attach(self.config)) as log:
            return Counter(Feedback.FromString(value).decision.decision_id for value in tail(log, FEEDBACK, 2**40))


@pytest.fixture
def start(tmp_path: Path, kafka_bootstrap: str) -> Iterator[Start]:
    started: list[KafkaService] = []

    def begin(*options: str) -> KafkaService:
        service = KafkaService(
            tmp_path, kafka_bootstrap, options, {"LEEWAY_LOG__TOPIC_PREFIX": f"service-{uuid.uuid4().hex[:8]}-"}
        )
        started.append(service)
        service.start()
        return service

    yield begin
    for service in started:
        service.kill()


def decide_and_report(service: Service, count: int = DECISIONS) -> Counter[str]:
    """Make decisions that each get a reward; return their ids."""
    made = []
    with service.client(retry_s=30.0) as client:
        for _ in range(count):
            made.append(client.decide("offers", CONTEXT, ACTIONS, new_id()).decision_id)
            client.report(made[-1], 1.0, point="offers")
    return Counter(made)


def test_every_role_works_and_a_signal_ends_them_all(start: Start) -> None:
    service = start()
    made = decide_and_report(service)
    eventually(lambda: service.status().learned == DECISIONS, "the feedback to be learned")
    book = service.status().accounting
    assert (book.decisions, book.feedback, book.defaulted, book.pending) == (DECISIONS, DECISIONS, 0, 0)
    assert service.feedback() == made

    def archived() -> bool:
        return service.metric("work", "leeway_archive_rows_total", decision_point="offers") == DECISIONS

    eventually(archived, "the feedback to be archived")
    for topic in ("decisions", "outcomes"):
        eventually(lambda t=topic: service.metric("work", "leeway_lag_records", role="join", topic=t) == 0, "no lag")  # type: ignore[misc]
    eventually(lambda: service.joined("decisions") == DECISIONS, "the book")
    assert service.metric("work", "leeway_rebalances_total", role="join") >= 1

    told = service.command("status")
    assert f"{DECISIONS} decisions = {DECISIONS} rewarded + 0 defaulted + 0 pending" in told.stdout
    replayed = service.command("replay")
    assert (replayed.returncode, replayed.stdout) == (0, f"{DECISIONS} decisions recomputed, 0 differ\n")
    examined = service.command("doctor")
    assert (examined.returncode, examined.stderr) == (0, "")
    assert "kafka: the brokers at" in examined.stdout
    assert "warning" not in examined.stdout

    for command in ("doctor", "replay"):  # whoever forgets --log would look at an empty log
        refused = leeway(command, "--config", service.path)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert f"uses the kafka log at {service.log}" in refused.stderr
        assert f"add: --log {service.log}, and set log.topic_prefix" in refused.stderr

    assert service.stop() == 0
    assert not service.config.log_dir.exists()  # nothing of it went to the embedded log
    # Topics that do not fit the configuration are told by the doctor, and by every role in its own messages.
    wrong = leeway(
        "doctor", "--config", service.path, "--log", service.log,
        env={**service.environment, "LEEWAY_LOG__PARTITIONS": "3"},
    )  # fmt: skip
    assert wrong.returncode == 1
    assert "has 4 partitions, not 3; set log.partitions to what there is" in wrong.stdout


def test_members_of_the_join_share_the_partitions_and_take_over(start: Start) -> None:
    service = start("--joiners", "2")
    eventually(lambda: len(service.members()) == 2, "two members of the join")

    def shared() -> bool:
        owned = [service.partitions(member) for member in service.members()]
        return sorted(map(len, owned)) == [2, 2] and set.union(*owned) == {0, 1, 2, 3}

    made = decide_and_report(service)
    eventually(shared, "each to have two partitions")
    eventually(lambda: service.feedback() == made, "the feedback of both")
    eventually(lambda: service.joined("feedback") == DECISIONS, "the book of both")

    ended = service.members()[0]
    os.kill(service.pid(ended), signal.SIGTERM)  # it leaves the group, and is started again
    made += decide_and_report(service)
    eventually(lambda: service.feedback() == made, "all feedback, once")
    eventually(lambda: ended not in service.members() and len(service.members()) == 2, "another member")
    eventually(shared, "each to have two partitions again")
    assert service.stop() == 0
    assert service.members() == []
