"""Prometheus' rules as an object of Kubernetes: ``python -m deploy.rules`` writes it from ``deploy/prometheus/rules``.

Kustomize reads nothing outside its own folders, so the rules stand there a second time; a test holds the two together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parent
RULES = DEPLOY / "prometheus" / "rules"
TARGET = DEPLOY / "kubernetes" / "components" / "monitoring" / "rules.yaml"


def prometheus_rule() -> dict[str, Any]:
    """Return the groups of all rule files as one ``PrometheusRule``."""
    groups = [group for path in sorted(RULES.glob("*.yml")) for group in yaml.safe_load(path.read_text())["groups"]]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "leeway"},
        "spec": {"groups": groups},
    }


if __name__ == "__main__":
    head = "# Written by: python -m deploy.rules\n"
    TARGET.write_text(head + yaml.safe_dump(prometheus_rule(), sort_keys=False, width=120))
