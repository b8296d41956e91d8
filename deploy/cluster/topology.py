"""What runs where: the same commands and settings as in compose.yaml and kubernetes/, with folders for volumes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import yaml

from deploy import health
from deploy.cluster.crew import Crew, free_port
from engine.errors import LeewayError
from streaming.config import Config, load_config
from streaming.up import joiners, whereabouts

#: What each role runs; a test holds compose.yaml and kubernetes/ to it.
ROLES: Mapping[str, tuple[str, ...]] = {
    "serve": ("leeway", "serve"),
    "join": ("leeway", "join"),
    "work": ("leeway", "work", "--without-join"),
}
#: How many of each; there is one `work` in an installation.
COUNTS: Mapping[str, int] = {"work": 1, "join": 2, "serve": 2}
DEPLOY = Path(__file__).parents[1]
#: Exit status of kafka.sh where the machine lacks Java, Maven or the network.
UNAVAILABLE = 69


def names(role: str) -> list[str]:
    """Return the processes of a role, such as ``join-1`` and ``join-2``."""
    return [f"{role}-{number}" for number in range(1, COUNTS[role] + 1)]


class Topology:
    """Everything below one folder, on free ports of the loopback.

    Parameters
    ----------
    directory
        Empty, or made by the caller.
    points
        The decision points of the configuration.
    crew
        Runs the processes.
    say
        Told what is left out, and why.
    """

    def __init__(self, directory: Path, points: Mapping[str, Any], crew: Crew, say: Callable[[str], None]) -> None:
        self._directory = directory
        self._points = points
        self._crew = crew
        self._say = say
        self.path = directory / "leeway.yaml"
        self.mlflow = ""
        self.prometheus = ""

    def environment(self, name: str) -> dict[str, str]:
        """Return the variables of a process: its own folder, and its own name in the group of the join."""
        found = {"LEEWAY_CONFIG": str(self.path), "LEEWAY_DATA_DIR": str(self._directory / name)}
        if name.startswith("join"):
            found["LEEWAY_LOG__INSTANCE_ID"] = name
        return found

    def config(self, name: str) -> Config:
        """Return the configuration as a process has it."""
        return load_config(self.path, self.environment(name))

    def command(self, *words: str) -> list[str]:
        """Return ``leeway ...`` as a command of this Python."""
        return [sys.executable, "-m", "streaming.cli", *words[1:]]

    @property
    def broker_data(self) -> Path:
        """Where the broker keeps its topics."""
        return self._directory / "kafka" / "cluster-of-1" / "node-1" / "data"

    def broker_pid(self) -> int:
        """Return the process of the broker."""
        return int((self.broker_data.parent / "pid").read_text())

    def start_kafka(self) -> str:
        """Start a broker and return its address; raises ``LeewayError`` where none can be had."""
        port = free_port(20)
        environment = {"LEEWAY_KAFKA_DIR": str(self._directory / "kafka"), "LEEWAY_KAFKA_PORT": str(port)}
        script = DEPLOY / "kafka" / "kafka.sh"

        def run(command: str) -> None:
            done = subprocess.run(
                [script, command],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                start_new_session=True,
            )
            if done.returncode:
                lacks = "this machine cannot run Kafka" if done.returncode == UNAVAILABLE else "Kafka failed"
                raise LeewayError(f"{lacks}: {done.stdout.strip()}")

        self._crew.at_end(partial(run, "stop"))  # before the start: an interrupted one leaves a broker too
        run("start")
        return f"127.0.0.1:{port}"

    def start_mlflow(self) -> Callable[[], str]:
        """Start the tracking server; return what says why it is not ready."""
        folder, port = self._directory / "mlflow", free_port()
        folder.mkdir()
        self.mlflow = f"http://127.0.0.1:{port}"
        program = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        stores = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder)]
        self._crew.start("mlflow", [*program, "--workers", "1", *stores])
        return partial(_unanswered, f"{self.mlflow}/health")

    def start_prometheus(self) -> Callable[[], str] | None:
        """Start Prometheus with the rules that are in deploy/; say so and return ``None`` where it is missing."""
        program = shutil.which("prometheus")
        if program is None:
            self._say("Prometheus is left out: it is not installed (Debian: apt-get install prometheus)")
            return None
        folder, port = self._directory / "prometheus", free_port()
        folder.mkdir()
        self.prometheus = f"http://127.0.0.1:{port}"
        settings = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))],
            "scrape_configs": [
                {
                    "job_name": f"leeway-{role}",
                    "file_sd_configs": [{"files": [str(folder / f"{role}.json")], "refresh_interval": "1s"}],
                }
                for role in COUNTS
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(settings, sort_keys=False))
        address = f"--web.listen-address=127.0.0.1:{port}"
        self._crew.start(
            "prometheus",
            [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", address],
        )
        return partial(_unanswered, f"{self.prometheus}/-/ready")

    def configure(self, bootstrap: str) -> None:
        """Write the one configuration that all roles read."""
        settings = {
            "version": 1,
            "data_dir": "work-1",
            "decision_points": dict(self._points),
            "log": {"kind": "kafka", "bootstrap_servers": [bootstrap]},
            "serving": {"port": 0, "drain": "100ms"},
            "metrics": {"serving_port": 0, "pipeline_port": 0, "join_port": 0},
            "registry": {"tracking_uri": self.mlflow},
        }
        self.path.write_text(yaml.safe_dump(settings, sort_keys=False))

    def start_roles(self) -> dict[str, Callable[[], str]]:
        """Start every process of Leeway; return what says of each why it is not ready.

        They are ended in the opposite order: what serves first, and what it recorded is still joined.
        """
        policies = self._directory / "work-1" / "policies"
        policies.mkdir(parents=True)
        waiting: dict[str, Callable[[], str]] = {}
        for role in COUNTS:
            for name in names(role):
                if role == "serve":  # the volume that serving shares with `work`
                    (self._directory / name).mkdir()
                    (self._directory / name / "policies").symlink_to(policies)
                self._crew.start(name, self.command(*ROLES[role]), self.environment(name))
                waiting[name] = partial(self._unready, role, name)
        return waiting

    def target(self, name: str) -> str:
        """Return ``host:port`` of a serving process that runs."""
        facts = whereabouts(self.config(name), "serve") or {}
        return f"{facts['host']}:{facts['port']}"

    def metrics(self, name: str) -> str:
        """Return where a process that runs shows its metrics; empty before it does."""
        config = self.config(name)
        role = name.partition("-")[0]
        announced = joiners(config)[:1] if role == "join" else [role]
        facts = whereabouts(config, announced[0]) if announced else None
        return f"http://127.0.0.1:{facts['metrics_port']}/metrics" if facts else ""

    def watch(self) -> Callable[[], str]:
        """Let Prometheus scrape every process; return what says which of them it has not scraped yet."""
        for role in COUNTS:
            # No label `role` is added: metrics have one, which would be renamed.
            groups = [
                {"targets": [self.metrics(name).removeprefix("http://").removesuffix("/metrics")]}
                for name in names(role)
            ]
            (self._directory / "prometheus" / f"{role}.json").write_text(json.dumps(groups))
        return partial(self._unscraped, sum(COUNTS.values()))

    def ask_prometheus(self, query: str) -> float:
        """Return the value of a query that has one; raises ``OSError`` or ``LeewayError``."""
        from urllib.parse import urlencode

        with urlopen(f"{self.prometheus}/api/v1/query?{urlencode({'query': query})}", timeout=5) as answer:
            found = json.load(answer)["data"]["result"]
        if len(found) != 1:
            raise LeewayError(f"Prometheus has {len(found)} values for {query}, and one is expected")
        return float(found[0]["value"][1])

    def _unready(self, role: str, name: str) -> str:
        url = self.metrics(name)
        if not url:
            return "has not announced itself"
        return health.serving(self.target(name)) if role == "serve" else health.roles(url)

    def _unscraped(self, number: int) -> str:
        try:
            with urlopen(f"{self.prometheus}/api/v1/targets", timeout=5) as answer:
                targets = json.load(answer)["data"]["activeTargets"]
        except (URLError, OSError) as error:
            return str(error)
        up = sum(target["health"] == "up" for target in targets)
        return "" if up == number else f"{up} of {number} processes are scraped"


def _unanswered(url: str) -> str:
    try:
        with urlopen(url, timeout=2):
            return ""
    except OSError as error:
        return f"{url} does not answer: {error}"
