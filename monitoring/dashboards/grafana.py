"""Dashboards in Grafana's JSON, by the builders of its Foundation SDK."""

from __future__ import annotations

import json

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from monitoring.dashboards.model import POINT, Dashboard, Panel, panel_id

DATASOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG = "leeway"
#: Where the runbooks are is known to who serves them; it can be changed on the dashboard.
RUNBOOKS = "docs/runbooks.md"

#: What is marked on the time axis of every dashboard: name, colour, expression, text.
ANNOTATIONS = (
    (
        "Alarms",
        "red",
        f"sum by (decision_point, monitor) (increase(leeway_drift_alarms_total{{{POINT}}}[1m])) > 0",
        "{{decision_point}}: alarm of {{monitor}}",
    ),
    (
        "Generations",
        "blue",
        f"max by (decision_point) (changes(leeway_policy_generation{{{POINT}}}[1m])) > 0",
        "{{decision_point}}: another generation serves",
    ),
)


def encoded(made: Dashboard) -> str:
    """Return a dashboard as the text of its file."""
    return JSONEncoder(sort_keys=True, indent=2).encode(build(made)) + "\n"


def build(made: Dashboard) -> dashboard.Dashboard:
    """Return a dashboard of the SDK."""
    board = (
        builders.Dashboard(made.title)
        .uid(made.uid)
        .description(made.description)
        .tags([TAG])
        .readonly()
        .timezone("browser")
        .time("now-3h", "now")
        .refresh("30s")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .link(
            builders.DashboardLink("Leeway")
            .type(dashboard.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .keep_time(True)
            .include_vars(True)
        )
    )
    for variable in _variables():
        board = board.with_variable(variable)
    for name, colour, expr, text in ANNOTATIONS:
        board = board.annotation(
            builders.AnnotationQuery()
            .name(name)
            .datasource(DATASOURCE)
            .icon_color(colour)
            .expr(expr)
            .title_format(text)
            .text_format(text)
            .step("60s")
        )
    for number, row in enumerate(made.rows):
        board = board.with_row(builders.Row(row.title).id(panel_id(number, 0) * 1_000))
        for place, panel in enumerate(row.panels):
            board = board.with_panel(_panel(panel).id(panel_id(number, place)))
    return board.build()


def _variables() -> list[builders.DatasourceVariable | builders.QueryVariable | builders.TextBoxVariable]:
    return [
        builders.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        _choice("job", "Job", 'label_values(up{job=~"leeway.*"}, job)', "leeway.*"),
        _choice("instance", "Instance", 'label_values(up{job=~"$job"}, instance)'),
        _choice("decision_point", "Decision point", "label_values(leeway_decisions_total, decision_point)"),
        builders.TextBoxVariable("runbooks")
        .label("Runbooks")
        .description("Where docs/runbooks.md can be read")
        .default_value(RUNBOOKS),
    ]


def _choice(name: str, label: str, query: str, everything: str = ".*") -> builders.QueryVariable:
    return (
        builders.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query(query)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(everything)
        .current(dashboard.VariableOption(selected=True, text="All", value="$__all"))
    )


def _panel(panel: Panel) -> timeseries.Panel | stat.Panel | heatmap.Panel:
    built: timeseries.Panel | stat.Panel | heatmap.Panel
    match panel.kind:
        case "timeseries":
            built = _timeseries(panel)
        case "stat":
            built = _stat(panel)
        case "heatmap":
            built = heatmap.Panel().calculate(False)
    built = (
        built.title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .datasource(DATASOURCE)
        .span(panel.width)
        .height(panel.height)
        .links(
            [
                builders.DashboardLink(f"Runbook: {alert}")
                .type(dashboard.DashboardLinkType.LINK)
                .url(f"${{runbooks}}#{alert.lower()}")
                .target_blank(True)
                for alert in panel.alerts
            ]
        )
    )
    for place, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(ord("A") + place))
        if panel.kind == "heatmap":
            target = target.format(PromQueryFormat.HEATMAP)
        built = built.with_target(target.datasource(DATASOURCE))
    return built


def _timeseries(panel: Panel) -> timeseries.Panel:
    legend = (
        common_builders.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    built = timeseries.Panel().legend(legend).fill_opacity(8).show_points(common.VisibilityMode.NEVER)
    # The bounds of an interval.
    dashes = dashboard.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [4, 6]})
    built = built.override_by_regexp("/ (low|high)$/", [dashes])
    if panel.low is not None:
        built = built.min(panel.low)
    if panel.high is not None:
        built = built.max(panel.high)
    if panel.limit is not None:
        built = built.thresholds(_limit(panel.limit)).thresholds_style(
            common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        )
    return built


def _stat(panel: Panel) -> stat.Panel:
    reduce = common_builders.ReduceDataOptions().calcs(["lastNotNull"])
    built = stat.Panel().graph_mode(common.BigValueGraphMode.AREA).reduce_options(reduce)
    return built if panel.limit is None else built.thresholds(_limit(panel.limit))


def _limit(value: float) -> builders.ThresholdsConfig:
    steps = [dashboard.Threshold(None, "green"), dashboard.Threshold(value, "red")]
    return builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)


def decoded(text: str) -> dict[str, object]:
    """Return what the SDK makes of a file that it reads and writes again."""
    again: dict[str, object] = json.loads(
        JSONEncoder(sort_keys=True, indent=2).encode(dashboard.Dashboard.from_json(json.loads(text)))
    )
    return again
