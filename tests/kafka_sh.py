"""Runs ``deploy/kafka/kafka.sh`` for tests that need a real Kafka broker."""

from __future__ import annotations

import os
import random
import socket
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

KAFKA_SH = Path(__file__).parents[1] / "deploy" / "kafka" / "kafka.sh"
UNAVAILABLE = 69  # kafka.sh: this machine lacks Java, Maven or the network; anything else is a defect of ours
SASL = ("ann", "a secret of Ann's")  # user and password that a broker of the tests knows

RunKafkaSh = Callable[..., None]


def free_port() -> int:
    """Return a port that is free together with those of its controller and of SASL, 20 and 40 above it (see kafka.sh).

    Below the range from which the system gives out ports by itself, so that nobody gets it by chance meanwhile.
    """
    while True:
        port = random.randrange(20_000, 30_000)
        try:
            with ExitStack() as servers:
                for each in (port, port + 20, port + 40):
                    servers.enter_context(socket.create_server(("127.0.0.1", each)))
                return port
        except OSError:
            continue


def own_kafka(folder: Path) -> tuple[str, RunKafkaSh]:
    """Return the address of a broker with its data in ``folder``, and what runs ``kafka.sh`` commands on it.

    Forty ports above, it answers the user of ``SASL`` alone.
    """
    port = free_port()
    environment = {
        **os.environ,
        "LEEWAY_KAFKA_DIR": str(folder),
        "LEEWAY_KAFKA_PORT": str(port),
        "LEEWAY_KAFKA_SASL": ":".join(SASL),
    }

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
