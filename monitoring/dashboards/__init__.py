"""Grafana dashboards as code, and previews of them; ``python -m monitoring.dashboards`` writes ``deploy/grafana``."""
