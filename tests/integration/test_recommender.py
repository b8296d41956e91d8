"""A small shop from the first list to the second generation: served over gRPC, joined, trained, judged, swapped."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import grpc
import pandas as pd  # type: ignore[import-untyped]  # publishes no types
import pytest
import yaml
from click.testing import CliRunner

from engine.api.leeway.v1 import admin_pb2, admin_pb2_grpc
from engine.api.leeway.v1.service_pb2 import ReportRequest
from engine.client import LeewayClient, Recommended
from engine.recommender.store import RecommenderStore
from engine.records import Feedback, JoinAccounting
from streaming.archive import ArchiveRole
from streaming.catalogues import catalogue_path, read_table, save_catalogue
from streaming.config import Config, load_config
from streaming.generations import generations, promote, rollback
from streaming.holds import read_holds
from streaming.insight import tail
from streaming.joiner import JoinerRole, read_accounting
from streaming.list_publisher import ListPublisher
from streaming.log import Message
from streaming.monitor import MonitorRole
from streaming.opening import open_log
from streaming.outcome_json import outcome_schema
from streaming.replaying import replay_log
from streaming.retraining import LogLedger, open_registry
from streaming.serve import ServingProcess
from streaming.slate_reward import SlateReward
from streaming.topics import FEEDBACK, OUTCOMES
from streaming.train_recommender import train_recommender
from tests.integration.service import eventually
from training.archive import ArchiveReader
from training.day_pass import elbo_tds_pass
from training.day_trainer import Trained, trainer_path
from training.job import ExitCode, Outcome
from training.list_pipeline import ListRetrainJob, retrain_lists
from training.mlflow_import import mlflow
from training.sessions import SessionSource

SHOP = "shop"
ITEMS = 8
DAY_MS = 86_400_000
START_MS = 20_000 * DAY_MS
SETTINGS = {
    "version": 1,
    "data_dir": "data",
    "recommenders": {
        SHOP: {
            "user": {"country": {"type": "category"}},
            "item": {"item_id": {"type": "category"}},
            "tasks": {"click": 1.0, "purchase": 3.0},
            "slots": 3,
            "candidates": ITEMS,
            "slate": {"exploration": {"kind": "epsilon_greedy", "epsilon": 0.2}},
            "reward": {"window": "10m"},
            "monitors": {"warm_up": 100},
            "retraining": {
                "min_events": 300,
                "hold_back": 0.4,
                "gate": {"min_events": 100, "min_effective_sample_size": 20},
                # A model small enough, and steps large enough, for some hundred lists.
                "least_steps": 600,
                "elbo_tds": {
                    "embedding": 8,
                    "latent": 16,
                    "hidden": [16],
                    "learning_rate": 0.01,
                    "embedding_deviation": 1.0,
                    "batch_sessions": 16,
                },
            },
        }
    },
    "serving": {"port": 0, "drain": "10ms", "durability": "memory"},
    "metrics": {"serving_port": 0, "pipeline_port": 0},
}


class Clock:
    """The time of all roles."""

    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        return self.now_ms


class Shop:
    """All roles of one installation in this process, each stepped when the test says so; the server is a real one."""

    def __init__(self, directory: Path) -> None:
        path = directory / "leeway.yaml"
        path.write_text(yaml.safe_dump(SETTINGS))
        self.config: Config = load_config(path)
        self.recommender = self.config.lists()[SHOP]
        table = directory / "items.csv"
        table.write_text("item_id\n" + "".join(f"i{number}\n" for number in range(ITEMS)))
        save_catalogue(catalogue_path(self.config.catalogue_dir, SHOP), read_table(table, self.recommender))
        self.clock = Clock()
        self.log = open_log(self.config)
        self.store = RecommenderStore(self.config.policy_dir)
        self.join = JoinerRole(self.log, {SHOP: SlateReward(self.recommender)}, self.clock)
        self.monitor = MonitorRole(self.log, self.config.deciding, self.clock)
        self.archive = ArchiveRole(self.log, self.config.archive_dir, self.config.lists(), self.clock)
        self.publisher = ListPublisher(self.log, self.config.lists(), self.store, self.config.catalogue_dir, self.clock)
        self.publisher.step()
        self.serving = ServingProcess(self.config, self.clock)
        self.serving.start()
        self.client = LeewayClient(f"127.0.0.1:{self.serving.port}", timeout_s=20.0)
        self.asked: list[tuple[tuple[int, ...], float, bool]] = []

    def close(self) -> None:
        self.client.close()
        hurry = threading.Event()
        hurry.set()
        self.serving.stop(hurry)
        for role in (self.join, self.monitor, self.archive, self.publisher):
            role.close()
        self.log.close()

    def visit(self, number: int) -> Recommended:
        """One user comes, gets a list, and clicks on what he likes: items whose number is odd, or even, by country."""
        rng = random.Random(number)
        country = rng.choice(["NL", "DE"])
        answer = self.client.recommend(SHOP, {"country": country}, decision_id=f"v{number}")
        reports = []
        for slot, item in enumerate(answer.items):
            likes = int(item.id[1:]) % 2 == (country == "NL")
            if rng.random() < (0.6 if likes else 0.05):
                reports.append(self.outcome(answer, "click", slot, item=item.id))
                if rng.random() < 0.3:
                    reports.append(self.outcome(answer, "purchase", slot))
        if reports:
            assert not [r for r in self.client.report_batch(reports) if not isinstance(r, str)]
        return answer

    def outcome(self, answer: Recommended, task: str, slot: int, item: str = "") -> ReportRequest:
        return ReportRequest(
            decision_id=answer.decision_id,
            outcome_id=f"{task}-{slot}",
            value=1.0,
            time_ms=self.clock.now_ms + 1_000,
            decision_point=SHOP,
            task=task,
            item=item,
            slot=None if item else slot,
        )

    def leeway(self, command: click.Command, *arguments: str) -> str:
        """Run a command of ``leeway`` on this installation; return what it prints."""
        path = self.config.data_dir.parent / "leeway.yaml"
        done = CliRunner().invoke(command, ["--config", str(path), *arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    def visits(self, first: int, count: int) -> list[Recommended]:
        """Let visitors come, thirty in a second."""
        answers: list[Recommended] = []
        with ThreadPoolExecutor(8) as pool:
            for start in range(first, first + count, 30):
                answers += pool.map(self.visit, range(start, min(start + 30, first + count)))
                self.clock.now_ms += 1_000
        return answers

    def pass_time(self, milliseconds: int) -> None:
        """Let time pass, and everything behind the log catch up with it."""
        eventually(lambda: self.serving._log.recorder.depth == 0, "the server has recorded all")
        while self.join.step():  # while the windows are open
            pass
        self.clock.now_ms += milliseconds
        while self.join.step() or self.join.pending():
            pass
        while self.monitor.step():
            pass
        while self.archive.step():
            pass
        self.archive.flush()

    def book(self) -> JoinAccounting:
        return read_accounting(self.log)[SHOP]

    def train(self, source: SessionSource, *settings: Any, **more: Any) -> Trained:
        """Train as the product does, and keep what was asked for."""
        self.asked.append((tuple(source.days()), more["p"], more["state"] is not None))
        return elbo_tds_pass(source, *settings, **more)

    def retrain(self, **changes: object) -> Outcome:
        settings = self.config.recommenders[SHOP]
        catalogue = read_table(self.config.data_dir.parent / "items.csv", self.recommender)
        job = ListRetrainJob(
            SHOP,
            self.recommender,
            settings.retraining,
            self.config.data_dir,
            catalogue,
            **changes,  # type: ignore[arg-type]
        )
        return retrain_lists(
            job,
            archive=ArchiveReader(self.config.archive_dir),
            store=self.store,
            registry=open_registry(self.config),
            ledger=LogLedger(self.log),
            trainer=self.train,
            now_ms=self.clock.now_ms,
            hold=lambda: read_holds(self.log).words(SHOP),
        )

    def status(self) -> admin_pb2.DecisionPointStatus:
        with grpc.insecure_channel(f"127.0.0.1:{self.serving.port}") as channel:
            reply = admin_pb2_grpc.LeewayAdminStub(channel).GetStatus(admin_pb2.GetStatusRequest(), timeout=20.0)
        return reply.decision_points[0]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.close()


def liked(answers: list[Recommended], shop: Shop) -> float:
    """Return the share of the slots whose item the user likes."""
    likes = [
        int(item.id[1:]) % 2 == (random.Random(int(answer.decision_id[1:])).choice(["NL", "DE"]) == "NL")
        for answer in answers
        for item in answer.items
    ]
    return sum(likes) / len(likes)


def test_a_shop_learns_what_its_visitors_like(shop: Shop) -> None:
    # Nothing is known: every list is as likely as any other, and says so.
    status = shop.status()
    assert (status.kind, status.catalogue_items, status.generation) == ("recommender", ITEMS, 0)
    first = shop.visits(0, 300)
    assert {len(answer.items) for answer in first} == {3}
    assert {(a.fallback, a.unrecorded) for a in first} == {("none", "")}
    assert all([i.propensity for i in answer.items] == [1 / 8, 1 / 7, 1 / 6] for answer in first)
    assert 0.4 < liked(first, shop) < 0.6

    # A retry is the same answer; an outcome may come from elsewhere, as JSON; what cannot be is refused or put aside.
    assert shop.visit(7) == first[7]
    known = outcome_schema()["properties"]
    assert {"task", "item", "slot"} <= set(known)
    document = yaml.safe_dump({"value": 1.0, "time_ms": START_MS + 5, "task": "click", "item": first[0].items[2].id})
    json_form = str(yaml.safe_load(document)).replace("'", '"').encode()
    stray = json_form.replace(first[0].items[2].id.encode(), b"nobody")
    headers = (("content-type", b"application/json"),)
    eventually(lambda: shop.serving._log.recorder.depth == 0, "the server has recorded all")
    shop.log.append([Message(OUTCOMES, b"v0", value, START_MS, headers) for value in (json_form, stray)])
    with pytest.raises(grpc.RpcError, match="known are: click, purchase"):
        shop.client.report("v0", 1.0, point=SHOP, task="clcik", slot=0)

    # The window closes: one feedback for each list, with the values of its slots.
    shop.pass_time(DAY_MS)
    book = shop.book()
    assert (book.decisions, book.feedback, book.pending, book.dead_letters) == (300, 300, 0, 1)
    feedbacks = {f.decision.decision_id: f for f in map(Feedback.FromString, tail(shop.log, FEEDBACK, 10_000))}
    assert len(feedbacks) == 300
    assert list(feedbacks["v0"].tasks) == ["click", "purchase"]
    assert feedbacks["v0"].slot_values[4] == 1.0
    for feedback in feedbacks.values():
        clicks, purchases = feedback.slot_values[::2], feedback.slot_values[1::2]
        assert feedback.reward == sum(clicks) + 3.0 * sum(purchases)
        assert feedback.defaulted == (feedback.outcomes == 0)

    # A second day; then the days are trained on, what was held back judges, and the new model serves.
    shop.visits(300, 300)
    shop.pass_time(DAY_MS)
    assert shop.monitor.ledger.statistics(SHOP)[0].feedback == 600
    outcome = shop.retrain()
    assert outcome.exit_code is ExitCode.PROMOTED, outcome.words
    assert outcome.held_back == 240
    assert shop.asked == [((20_000, 20_001), 0.2, False)]
    champion = open_registry(shop.config).champion(SHOP)
    assert champion is not None
    assert champion.tags["gate"] == "passed"
    shop.clock.now_ms += 1_000
    shop.publisher.step()
    eventually(lambda: shop.status().generation == 1, "the server serves the new generation")
    second = shop.visits(600, 300)
    assert {answer.policy_version for answer in second} == {shop.status().policy_version}
    assert liked(second, shop) > 0.8
    cold = shop.client.recommend(SHOP, {"country": "FR"}, ["i3", "never seen", "i4"], k=2)
    assert len(cold.items) == 2

    # After an alarm the next pass augments more; it goes on from the state of the first, with what is new alone.
    shop.pass_time(DAY_MS)
    again = shop.retrain(reason="drift")
    assert again.exit_code in (ExitCode.PROMOTED, ExitCode.REFUSED), again.words
    days, p, went_on = shop.asked[-1]
    assert (p, went_on) == (0.4, True)
    assert days[0] >= 20_001
    assert shop.retrain(reason="drift").done_before

    # What the generations earned is told, and the first model comes back as a new generation.
    told = json.loads(shop.leeway(generations, "--json"))
    assert [(row["generation"], row["kept"]) for row in told["generations"]][1] == (1, "as estimated")
    if again.exit_code is ExitCode.REFUSED:
        shop.leeway(promote, "--force")
    assert shop.leeway(rollback, "--generation", "1").startswith("g3.0-")
    shop.publisher.step()
    eventually(lambda: shop.status().generation == 3, "the server serves the first model again")
    third = shop.visits(900, 30)
    assert liked(third, shop) > 0.8
    assert trainer_path(shop.store.root / SHOP, third[0].policy_version).exists()  # training goes on from there

    # Every list is computed again from its policy, bit for bit.
    eventually(lambda: shop.serving._log.recorder.depth == 0, "the server has recorded all")
    result = replay_log(shop.log, shop.config.policy_dir)
    assert (result.decisions, result.mismatches, result.examples) == (931, 0, [])


def test_a_retraining_goes_on_from_what_a_table_has_taught(shop: Shop) -> None:
    directory = shop.config.data_dir.parent
    rng = random.Random(0)
    rows = [
        (
            f"{day}",
            f"{day}-{session}",
            country,
            f"i{item}",
            int((item % 2 == (country == "NL")) and rng.random() < 0.6),
            0,
        )
        for day in ("2024-09-01", "2024-09-02")
        for session in range(20)
        for country in [rng.choice(["NL", "DE"])]
        for item in rng.sample(range(ITEMS), 3)
    ]
    table = directory / "impressions.csv"
    pd.DataFrame(rows, columns=["day", "session", "country", "item_id", "click", "purchase"]).to_csv(table, index=False)
    command = ["--config", str(directory / "leeway.yaml"), str(table)]
    trained = CliRunner().invoke(train_recommender, command, catch_exceptions=False)
    assert trained.exit_code == 0, trained.output
    version = shop.store.current(SHOP)
    eventually(lambda: shop.status().policy_version == version, "the server serves the model of the table")
    shop.visits(0, 300)
    shop.pass_time(DAY_MS)
    outcome = shop.retrain()
    assert outcome.exit_code in (ExitCode.PROMOTED, ExitCode.REFUSED), outcome.words
    assert shop.asked == [((20_000,), 0.2, True)]


@pytest.mark.slow
def test_mlflow_loads_the_champion_and_the_command_retrains(shop: Shop) -> None:
    shop.visits(0, 300)
    shop.pass_time(DAY_MS)
    shop.visits(300, 300)
    shop.pass_time(DAY_MS)
    outcome = shop.retrain()
    assert outcome.exit_code is ExitCode.PROMOTED, outcome.words
    champion = open_registry(shop.config).champion(SHOP)
    assert champion is not None
    registered = mlflow.pyfunc.load_model(champion.source)
    pairs = pd.DataFrame({"user_country": ["NL", "NL", "DE", "DE"], "item_item_id": ["i1", "i2", "i1", "i2"]})
    score = registered.predict(pairs)["score"].tolist()
    assert score[0] > 2 * score[1]
    assert score[3] > 2 * score[2]

    # The command trains and judges in a process of its own.
    path = shop.config.data_dir.parent / "leeway.yaml"
    command = [sys.executable, "-m", "streaming.cli", "retrain", "--config", str(path), "--dry-run", "--json"]
    run = subprocess.run([*command, "--since-ms", str(START_MS)], capture_output=True, text=True, timeout=120)
    assert run.returncode in (ExitCode.PROMOTED, ExitCode.REFUSED), run.stderr
    assert json.loads(run.stdout)["rows"] == 600, run.stdout
