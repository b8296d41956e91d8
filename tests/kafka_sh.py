"""Runs ``deploy/kafka/kafka.sh`` for tests that need a real Kafka broker."""

from __future__ import annotations

import os
import random
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

KAFKA_SH = Path(__file__).parents[1] / "deploy" / "kafka" / "kafka.sh"
UNAVAILABLE = 69  # kafka.sh: this machine lacks Java, Maven or the network; anything else is a defect of ours

RunKafkaSh = Callable[..., None]


def free_port() -> int:
    """Return a port that is free together with the one of its controller, 20 above it (see kafka.sh).

    Below the range from which the system gives out ports by itself, so that nobody gets it by chance meanwhile.
    """
    while True:
        port = random.randrange(20_000, 30_000)
        try:
            with socket.create_server(("127.0.0.1", port)), socket.create_server(("127.0.0.1", port + 20)):
                return port
        except OSError:
            continue


def own_kafka(folder: Path) -> tuple[str, RunKafkaSh]:
    """Return the address of a broker with its data in ``folder``, and what runs ``kafka.sh`` commands on it."""
    port = free_port()
    environment = {**os.environ, "LEEWAY_KAFKA_DIR": str(folder), "LEEWAY_KAFKA_PORT": str(port)}

    def run(*command: str) -> None:
        done = subprocess.run(
            [KAFKA_SH, *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
        if done.returncode == UNAVAILABLE and os.environ.get("LEEWAY_REQUIRE_KAFKA") != "1":
            pytest.skip(f"no Kafka broker can be had here (LEEWAY_REQUIRE_KAFKA=1 fails instead): {done.stdout}")
        if done.returncode != 0:
            pytest.fail(f"kafka.sh {' '.join(command)} ended with {done.returncode}: {done.stdout}")

    return f"127.0.0.1:{port}", run
