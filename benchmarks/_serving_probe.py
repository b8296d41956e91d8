"""Measure one server by itself: four bursts of two seconds, 8 calls in flight.

python -m benchmarks._serving_probe echo|grpcio|lean [memory|disk]
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from benchmarks._serving_forms import cores, echo, leeway, running
from benchmarks._serving_load import Load, burst
from benchmarks._serving_workload import Shape


def probe(front: str, durability: str) -> None:
    shape = Shape()
    _, ours = cores()
    with tempfile.TemporaryDirectory() as folder:
        point = {shape.name: ("linear", shape)}
        form = echo(8) if front == "echo" else leeway(Path(folder) / "it", point, front=front, durability=durability)
        os.sched_setaffinity(0, ours)
        with running({front: form}):
            load = Load(form.port, "/leeway.v1.Leeway/Decide", [m.SerializeToString() for m in shape.packed()])
            for _ in range(4):
                print({name: round(value, 3) for name, value in burst(load, form.process.pid, 2.0).figures().items()})


if __name__ == "__main__":
    probe(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "memory")
