from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = """
version: 1
decision_points: {offers: {context: {amount: {type: number}}}}
serving: {port: 0}
metrics: {serving_port: 0, pipeline_port: 0}
"""
#: Runs the command with a stand-in for the server, that loads what may be loaded late and says how many threads it has.
PROGRAM = """
import json, sys
{before}
from streaming import cli
def run(config, ready, number):
    import numpy, scipy.linalg, sklearn
    from threadpoolctl import threadpool_info
    print(json.dumps([pool["num_threads"] for pool in threadpool_info()]))
class Stub:
    pass
stub = Stub()
stub.run = run
sys.modules["streaming.serve"] = stub
import streaming
streaming.serve = stub
cli.main(["serve", "--config", sys.argv[1]], standalone_mode=False)
"""


def threads(folder: Path, before: str = "", **said: str) -> set[int]:
    path = folder / "leeway.yaml"
    path.write_text(CONFIG)
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    child = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before), str(path)],
        cwd=ROOT,
        env={**environment, **said},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return set(json.loads(child.stdout.splitlines()[0]))


@pytest.mark.parametrize("before", ["", "import numpy"])
def test_a_server_uses_one_thread_for_a_product(tmp_path: Path, before: str) -> None:
    assert threads(tmp_path, before) == {1}


def test_what_the_operator_says_holds(tmp_path: Path) -> None:
    found = threads(tmp_path, OPENBLAS_NUM_THREADS="2", OMP_NUM_THREADS="2")
    assert found == {min(2, os.cpu_count() or 1)}
