"""Write every dashboard into ``deploy/grafana/dashboards``."""

from __future__ import annotations

from monitoring.dashboards.boards import DASHBOARDS, FOLDER
from monitoring.dashboards.grafana import encoded

if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for made in DASHBOARDS:
        (FOLDER / f"{made.uid}.json").write_text(encoded(made), encoding="utf-8")
