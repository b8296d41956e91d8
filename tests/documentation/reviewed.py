"""Who runs which block. A block of a new page stands in none of these lists, and a test says so."""

from __future__ import annotations

#: Blocks of Python that run as they are, in the order of their page and in one namespace for each.
PYTHON = {
    "docs/adr/0002-embedded-log-on-sqlite.md",
    "docs/adr/0017-blocks-in-the-embedded-log.md",
    "docs/add-an-algorithm.md",
    "docs/drift.md",
    "docs/exploration.md",
    "docs/interop.md",
    "docs/training.md",
}

#: Run by ``test_tutorial.py`` in a service of its own, after the tutorial was followed: exit statuses that are right.
SERVED: dict[tuple[str, str], tuple[int, ...]] = {
    ("docs/no-learning.md", "leeway doctor"): (0, 1),
    ("docs/events.md", "leeway dlq list --since 1h --reason unknown_decision"): (0,),
    # 1: nothing to draw, before the window of the first decision closes.
    ("docs/generations.md", "leeway generations --config leeway.yaml --plot ledger.png"): (0, 1),
    ("docs/monitors.md", "leeway drift budget --moved 0.2"): (0,),
    ("docs/training.md", "leeway retrain --config leeway.yaml --since-ms 1767225600000"): (0, 4),
    ("docs/interop.md", "leeway export log.txt --format vw --since-ms 1767225600000"): (0,),
}

#: Blocks that another test runs, and which.
ELSEWHERE: dict[tuple[str, str], str] = {
    ("README.md", ".venv/bin/leeway init          # writes leeway.yaml, annotated: name your features and reward"): (
        "tests/integration"
    ),
    ("README.md", "from engine.client import LeewayClient"): "tests/integration/test_client.py",
    ("docs/client.md", "from engine.client import Candidate, LeewayClient"): "tests/integration/test_client_docs.py",
    ("docs/client.md", "import asyncio"): "tests/integration/test_client_docs.py",
    ("docs/client.md", "from engine.client import Fallback, LeewayClient"): "tests/integration/test_client_docs.py",
    ("docs/client.md", "from engine.client import LeewayClient, Reporter"): "tests/integration/test_client_docs.py",
    ("docs/client.md", "from engine.client.testing import FakeClient, FakeEngine"): (
        "tests/integration/test_client_docs.py"
    ),
    ("docs/console.md", "leeway console --config leeway.yaml        # http://127.0.0.1:8192/"): (
        "tests/streaming/console"
    ),
    (
        "docs/deployment.md",
        "make cluster                                     # starts all, streams the demo through it, "
        "ends all; about three minutes",
    ): "tests/integration/test_cluster.py",
    ("docs/deployment.md", "python deploy/health.py grpc 127.0.0.1:8180                      # leeway serve: ready?"): (
        "tests/deploy/test_containers.py"
    ),
    ("docs/modes.md", "from engine.client import Choice, LeewayClient"): "tests/integration/test_client_docs.py",
    ("docs/modes.md", "leeway agreement     # offers: agrees in 71.3% (67.9% to 74.6%) of 2000 decisions"): (
        "tests/streaming/test_agreement.py"
    ),
    ("docs/processes.md", "from engine.client import LeewayClient"): "tests/integration/test_processes.py",
    ("docs/modes.md", "from engine.client import LeewayClient"): "tests/integration/test_client_docs.py",
    ("docs/drift.md", "pytest -m slow -s tests/monitoring/test_budget.py"): "tests/monitoring/test_budget.py",
    ("docs/elbo_tds.md", "from training.elbo_tds.config import ElboTdsConfig"): "tests/training/elbo_tds",
    (
        "docs/evaluation.md",
        "leeway evaluate --config leeway.yaml --policy current --policy g4.0-1bb44d37 --interval "
        "bootstrap --report out",
    ): "tests/streaming/test_evaluate.py",
    ("docs/events.md", "leeway dlq replay --all --dry-run"): "tests/integration/test_dlq.py",
    (
        "docs/http.md",
        "curl -s http://127.0.0.1:8190/v1/decide -H 'content-type: application/json' -H "
        "'Leeway-Timeout-Ms: 5000' -d '{",
    ): "tests/integration/test_client_docs.py",
    ("docs/http.md", "curl -s http://127.0.0.1:8190/v1/report -H 'content-type: application/json' -d '{"): (
        "tests/integration/test_client_docs.py"
    ),
    (
        "docs/http.md",
        "curl -s http://127.0.0.1:8190/v1/decide -H 'content-type: application/json' -d "
        '\'{"decision_point": "offers", "actions": []}\'',
    ): "tests/integration/test_client_docs.py",
    ("docs/interop.md", "leeway import log.dsjson --format dsjson --infer --decision-point drinks > leeway.yaml"): (
        "tests/streaming/test_interop.py"
    ),
    (
        "docs/monitors.md",
        "leeway drift list                 # newest last; those of one incident are indented below its first",
    ): "tests/streaming/test_drift.py",
    ("docs/monitors.md", "pytest -m slow tests/monitoring/test_watch.py -k budget"): "tests/monitoring/test_watch.py",
    (
        "docs/recommender.md",
        "from engine.client import LeewayClient",
    ): "tests/integration/test_recommender.py",
    (
        "docs/rollout.md",
        "leeway rollout start --mode canary --share 0.1 --unit segment   # the challenger of the registry, "
        "or --version",
    ): "tests/streaming/test_rollout.py",
    (
        "docs/rollout.md",
        "leeway rollout status --decide    # promote what is better, drop what is worse; undecided: go on",
    ): "tests/streaming/test_rollout.py",
    ("docs/scaling.md", "mvn --file deploy/flink/pom.xml test"): "tests/deploy/test_flink.py",
    (
        "docs/security.md",
        'openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=my authority" -keyout ca.key -out ca.pem',
    ): "tests/integration/test_security.py",
    ("docs/security.md", "leeway token create shop --scope decide --scope report --point offers --expires-in 90d"): (
        "tests/integration/test_security.py"
    ),
    ("docs/security.md", "from pathlib import Path"): "tests/integration/test_security.py",
    (
        "docs/security.md",
        "LEEWAY_TOKEN=leeway_... leeway status --target localhost:8181 --ca ca.pem --certificate "
        "client.pem --key client.key",
    ): "tests/integration/test_security.py",
    ("docs/sessions.md", "from engine.recommender.fields import Field"): "tests/training/sessions",
    ("docs/sessions.md", "from pathlib import Path"): "tests/training/sessions",
    ("docs/sessions.md", "leeway shift --table shop.parquet --schema schema.yaml --against previous --out shift"): (
        "tests/training/sessions"
    ),
    (
        "docs/simulate.md",
        'python -c "from sklearn.datasets import load_breast_cancer as load; d = load(as_frame=True); \\',
    ): ("tests/streaming/test_simulate.py"),
    (
        "docs/simulate.md",
        "leeway simulate --log uniform.dsjson --format dsjson --exploration squarecb:gamma_scale=20",
    ): ("tests/streaming/test_simulate.py"),
    (
        "docs/simulate.md",
        "leeway simulate --problem logistic --seeds 0-2 --available 0.7 --decisions 60000 --generation "
        "10000 --window 1 \\",
    ): "tests/streaming/test_simulate.py",
}

#: Blocks that no test runs, and why not. Their commands are read for options and files that are no more all the same.
NOT_RUN: dict[tuple[str, str], str] = {
    (
        "README.md",
        "make demo     # the whole loop on real data, about two minutes; report in leeway-demo/report.html",
    ): ("CI runs both on a fresh clone"),
    ("CONTRIBUTING.md", "make setup    # .venv with everything for development"): "installs and tests everything",
    (
        "docs/scaling_training.md",
        "pip install 'leeway[dask]'            # here and on each worker, the same version of Leeway",
    ): ("needs several machines; test_cluster.py starts scheduler and workers on one"),
    ("docs/deployment.md", "export GRAFANA_PASSWORD=..."): "needs Docker; test_containers.py reads the files",
    ("docs/deployment.md", "kubectl kustomize deploy/kubernetes/overlays/small        # look at it"): (
        "needs a cluster; test_kubernetes.py builds the overlays"
    ),
    ("docs/drift.md", "python -m benchmarks.drift --json FILE"): "a benchmark of many minutes",
    ("docs/events.md", "from confluent_kafka import Producer"): (
        "needs a broker on its port; test_librdkafka.py produces JSON outcomes to one"
    ),
    ("docs/operating.md", "leeway doctor                            # spool: no record waits for the cluster"): (
        "mends a damaged spool beside a Kafka cluster; test_damage.py damages one"
    ),
    (
        "docs/releasing.md",
        "python3 -m venv .venv-release                    # tools of a release have an environment of their own",
    ): "test_release.py makes such environments",
    ("docs/releasing.md", ".venv-release/bin/python -m build"): "test_release.py builds",
    ("docs/releasing.md", "python3 -m venv ../leeway-release"): "test_release.py installs the wheel and runs the demo",
    ("docs/releasing.md", ".venv-release/bin/cyclonedx-py environment ../leeway-release/bin/python \\"): (
        "test_release.py makes the bill of materials"
    ),
    (
        "docs/training.md",
        "mlflow ui --backend-store-uri sqlite:///leeway-data/mlflow.db --port 5055 --host 127.0.0.1",
    ): ("serves a page of MLflow until it is ended"),
    ("docs/training.md", "from datetime import datetime"): "needs Airflow",
    (
        "docs/recommender.md",
        "leeway catalogue load items.parquet     # or .csv, .jsonl: a column item_id and one for each item field",
    ): "needs a trained recommender, as test_recommender.py makes one; test_blocks.py loads a catalogue",
    ("docs/training.md", "import mlflow"): "needs the registry of its page; test_promotion.py loads models by alias",
}

#: Blocks of YAML that are no part of leeway.yaml, and the test that reads their like.
OTHER_YAML: dict[tuple[str, str], str] = {
    ("docs/security.md", "tokens:"): "tests/integration/test_security.py",
    ("docs/sessions.md", "day: date                # a whole number, a date, or a time (days are those of UTC)"): (
        "tests/training/sessions"
    ),
}
