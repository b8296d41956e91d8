"""All dashboards, in the order in which they are shown."""

from __future__ import annotations

from pathlib import Path

from monitoring.dashboards.drift import DRIFT
from monitoring.dashboards.generations import GENERATIONS
from monitoring.dashboards.join import JOIN
from monitoring.dashboards.overview import OVERVIEW
from monitoring.dashboards.policy import POLICY
from monitoring.dashboards.serving import SERVING

DASHBOARDS = (OVERVIEW, DRIFT, POLICY, GENERATIONS, JOIN, SERVING)
#: Where their files lie; each is named after its uid.
FOLDER = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards"
