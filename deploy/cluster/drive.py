"""The demo's traffic through every serving process of a topology, and what is found in the log afterwards."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import grpc

from deploy import health
from deploy.cluster.costs import archive_bytes, cpu_seconds, spent, topic_bytes
from deploy.cluster.crew import Crew
from deploy.cluster.topology import Topology, names
from engine.api.leeway.v1 import admin_pb2, admin_pb2_grpc
from engine.errors import LeewayError
from streaming.demo.figures import collect
from streaming.demo.run import CHUNK, POINT, RECOVERY, goals_of
from streaming.demo.traffic import Traffic
from streaming.demo.world import Table, World
from training.job import ExitCode

#: How long windows may take to close after the last decision.
SETTLE_S = 30.0
RETRAIN = ("leeway", "retrain", "--decision-point", POINT, "--reason", "schedule", "--json")
#: Statuses that a scheduler need not do anything about.
CONTENT = frozenset(
    {ExitCode.PROMOTED, ExitCode.NOT_ENOUGH_DATA, ExitCode.REFUSED, ExitCode.LOCKED, ExitCode.HELD},
)


class Drive:
    """Streams the demo through a topology that is ready.

    Parameters
    ----------
    topology, crew
        What runs.
    table
        What is decided about.
    before, after, rate, seed
        As ``leeway demo`` takes them; every serving process gets an equal part.
    say
        Told how it goes.
    """

    def __init__(
        self,
        topology: Topology,
        crew: Crew,
        table: Table,
        *,
        before: int,
        after: int,
        rate: int,
        seed: int,
        say: Callable[[str], None],
    ) -> None:
        self._topology = topology
        self._crew = crew
        self._before, self._after, self._rate = before, after, rate
        self._say = say
        self._servers = names("serve")
        share = before // len(self._servers)
        self._traffic = [
            Traffic(topology.target(name), POINT, World(table, share, seed + number))
            for number, name in enumerate(self._servers)
        ]

    def run(self) -> dict[str, Any]:
        """Stream, wait until every window has closed, retrain once as a scheduler does, and return the figures."""
        with ExitStack() as channels:
            admins = []
            for name in self._servers:
                channel = channels.enter_context(grpc.insecure_channel(self._topology.target(name)))
                admins.append(admin_pb2_grpc.LeewayAdminStub(channel))
            pids = self._crew.pids | {"kafka": self._topology.broker_pid()}
            del pids["mlflow"]  # works in processes of its own, and not for each decision
            before = {name: cpu_seconds(pid) for name, pid in pids.items()}
            self._stream(admins[0])
            for traffic in self._traffic:
                traffic.finish()
            self._settle(admins)
            after = {name: cpu_seconds(pid) for name, pid in pids.items()}
        retrained = self._retrain()
        commits = [
            sum(health.samples(self._topology.metrics(name), "leeway_join_commits_total").values())
            for name in names("join")
        ]
        working = {
            role
            for name in (*names("join"), *names("work"))
            for role, up in health.samples(self._topology.metrics(name), "leeway_role_up").items()
            if up == 1.0
        }
        scraped = self._scraped() if self._topology.prometheus else (None, None)
        self._crew.check()
        figures = self._figures()
        figures["prometheus_decisions"], figures["prometheus_roles"] = scraped
        figures["roles_at_work"] = sorted(working)
        figures["scheduled_retraining"] = retrained
        figures["join_commits"] = commits
        figures["cpu_us_per_decision"] = spent(before, after, figures["decisions"])
        figures["topic_bytes_per_decision"] = topic_bytes(self._topology.broker_data, figures["decisions"])
        archive = self._topology.config("work-1").archive_dir
        figures["archive_bytes_per_decision"] = archive_bytes(archive, figures["decisions"])
        figures["goals"] += self._goals(figures)
        return figures

    def _stream(self, admin: admin_pb2_grpc.LeewayAdminStub) -> None:
        """Stream until the loop has closed once more, or the decisions are used up."""
        share = CHUNK // len(self._traffic)
        promoted_at: int | None = None
        with ThreadPoolExecutor(len(self._traffic)) as pool:
            while (asked := self._asked()) < self._before + self._after:
                for done in [pool.submit(t.run, share, self._rate / len(self._traffic)) for t in self._traffic]:
                    done.result()
                self._crew.check()
                state = _status(admin)
                rewards = [reward for traffic in self._traffic for reward in traffic.rewards]
                mean = sum(rewards) / len(rewards) if rewards else float("nan")
                pending = state.accounting.pending
                self._say(f"{asked} decisions: reward {mean:.3f}  policy {state.policy_version}  pending {pending}")
                if state.generation > 0 and promoted_at is None:
                    promoted_at = asked
                if promoted_at is not None and asked >= max(promoted_at, self._before) + RECOVERY:
                    return

    def _asked(self) -> int:
        return sum(traffic.asked for traffic in self._traffic)

    def _settle(self, admins: list[admin_pb2_grpc.LeewayAdminStub]) -> None:
        end = time.monotonic() + SETTLE_S
        while time.monotonic() < end:
            states = [_status(admin) for admin in admins]
            book = states[0].accounting
            if book.pending == 0 and book.decisions >= sum(state.decisions for state in states):
                return
            time.sleep(0.2)
        self._say(f"{book.pending} decisions are still pending")

    def _retrain(self) -> int:
        """Run what the CronJob runs, on the folder of `work`; return its exit status."""
        done = subprocess.run(
            self._topology.command(*RETRAIN),
            env={**os.environ, **self._topology.environment("work-1")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in CONTENT:
            raise LeewayError(f"{' '.join(RETRAIN)} ended with status {done.returncode}: {done.stderr.strip()}")
        self._say(f"{' '.join(RETRAIN)}: status {done.returncode} ({ExitCode(done.returncode).name.lower()})")
        return done.returncode

    def _scraped(self) -> tuple[float, float]:
        """Return how many decisions Prometheus has counted, and roles at work; it scrapes every second."""
        time.sleep(2.0)
        decisions = self._topology.ask_prometheus("sum(leeway_decisions_total)")
        return decisions, self._topology.ask_prometheus("count(count by (role) (leeway_role_up == 1))")

    def _figures(self) -> dict[str, Any]:
        acknowledged = [decision_id for traffic in self._traffic for decision_id in traffic.acknowledged]
        changes = [traffic.change_ms for traffic in self._traffic if traffic.change_ms is not None]
        if not changes:
            raise LeewayError("the world did not change; give --before fewer and --after more decisions")
        figures, _series = collect(self._topology.config("work-1"), POINT, max(changes), acknowledged)
        figures["client_errors"] = [error for traffic in self._traffic for error in traffic.errors]
        figures["acknowledged_by_server"] = {
            name: len(traffic.acknowledged) for name, traffic in zip(self._servers, self._traffic, strict=True)
        }
        figures["goals"] = goals_of(figures, own_data=False)
        return figures

    def _goals(self, figures: dict[str, Any]) -> list[dict[str, Any]]:
        """Return what is asked of the topology, beside what is asked of the loop."""
        least = min(figures["acknowledged_by_server"].values())
        idle = sum(commits == 0 for commits in figures["join_commits"])
        goals = [
            {"name": "client errors", "value": len(figures["client_errors"]), "bound": "= 0"},
            {"name": "decisions of the server that had fewest", "value": least, "bound": ">= 1"},
            {"name": "members of the join that committed nothing", "value": idle, "bound": "= 0"},
        ]
        holds = [not figures["client_errors"], least >= 1, idle == 0]
        if figures["prometheus_decisions"] is not None:
            value = figures["prometheus_decisions"]
            goals.append({"name": "decisions that Prometheus has counted", "value": value, "bound": "= those logged"})
            holds.append(value == figures["decisions"])
            value = figures["prometheus_roles"]
            goals.append({"name": "roles at work that Prometheus knows", "value": value, "bound": "= those that are"})
            holds.append(value == len(figures["roles_at_work"]))
        return [{**goal, "holds": hold} for goal, hold in zip(goals, holds, strict=True)]


def _status(admin: admin_pb2_grpc.LeewayAdminStub) -> admin_pb2.DecisionPointStatus:
    return admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=10.0, wait_for_ready=True).decision_points[0]
