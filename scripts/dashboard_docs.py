"""Renders deploy/monitoring/ottla-dashboard.json, for Grafana 9 or newer, of dashboard_panels.py."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from dashboard_panels import ROWS, Panel

from ottla.observe.catalogue import METRICS

# Which nodes: what is chosen at the top of the page. A label `cluster` need not be there.
CHOSEN = 'job="$job", cluster=~"$cluster", instance=~"$instance"'
RATE = "$__rate_interval"
SOURCE = {"type": "prometheus", "uid": "${source}"}
# Of 24 columns.
WIDTHS = {"stat": 4, "timeseries": 8}
HEIGHTS = {"stat": 4, "timeseries": 8}
COLUMNS = 24

_BY_NAME = {metric.name: metric for metric in METRICS}


def render() -> str:
    """The dashboard."""
    panels, y = [], 0
    for row in ROWS:
        panels.append(_placed({"type": "row", "title": row.title, "collapsed": False}, 0, y, COLUMNS, 1))
        y += 1
        x = 0
        height = 0
        for panel in row.panels:
            width, height = WIDTHS[panel.kind], HEIGHTS[panel.kind]
            if x + width > COLUMNS:
                x, y = 0, y + height
            panels.append(_placed(_panel(panel), x, y, width, height))
            x += width
        y += height
    for number, made in enumerate(panels, 1):
        made["id"] = number
    dashboard = {
        "uid": "ottla",
        "title": "Ottla",
        "tags": ["ottla", "kafka"],
        "schemaVersion": 36,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": list(_variables())},
        "panels": panels,
    }
    return json.dumps(dashboard, indent=1, ensure_ascii=False) + "\n"


def query(text: str) -> str:
    """A query as Grafana is given it."""
    chosen = re.sub(r"\{(?!\{)([^{}]*)\}", lambda found: "{" + _joined(CHOSEN, found[1]) + "}", text)
    return chosen.replace("[RATE]", f"[{RATE}]")


def _joined(*conditions: str) -> str:
    return ", ".join(condition for condition in conditions if condition)


def _placed(panel: dict[str, Any], x: int, y: int, width: int, height: int) -> dict[str, Any]:
    return {**panel, "gridPos": {"x": x, "y": y, "w": width, "h": height}}


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    yield _variable("job", "label_values(ottla_ready, job)", several=False)
    yield _variable("cluster", 'label_values(ottla_ready{job="$job"}, cluster)', several=True)
    nodes = 'label_values(ottla_ready{job="$job", cluster=~"$cluster"}, instance)'
    yield _variable("instance", nodes, several=True)


def _variable(name: str, values: str, *, several: bool) -> dict[str, Any]:
    made = {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": values, "refId": name},
        "refresh": 2,
        "sort": 1,
    }
    if several:
        everything = {"text": "All", "value": "$__all"}
        made |= {"includeAll": True, "multi": True, "allValue": ".*", "current": everything}
    return made


def _panel(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit}
    if panel.kind == "stat":
        defaults["thresholds"] = {"mode": "absolute", "steps": _steps(panel.thresholds)}
        options: dict[str, Any] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background"}
    else:
        defaults["min"] = 0
        defaults["custom"] = {
            "fillOpacity": 10,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none"},
        }
        options = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": _description(panel),
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": SOURCE, "expr": query(text), "legendFormat": name}
            for number, (name, text) in enumerate(panel.queries)
        ],
    }


def _steps(thresholds: tuple[float, float] | None) -> list[dict[str, Any]]:
    if thresholds is None:
        return [{"color": "blue", "value": None}]
    first, second = thresholds
    if second < first:
        steps = [{"color": "red", "value": None}, {"color": "orange", "value": second}]
        return [*steps, {"color": "green", "value": first}]
    steps = [{"color": "green", "value": None}, {"color": "red", "value": second}]
    return steps if first == second else [steps[0], {"color": "orange", "value": first}, steps[1]]


def _description(panel: Panel) -> str:
    """What docs/METRICS.md says of the metric that is named first."""
    (_, text), *_ = panel.queries
    for name in re.findall(r"[a-z_][a-z0-9_]*", text):
        metric = _BY_NAME.get(re.sub(r"_(bucket|sum|count)$", "", name))
        if metric is not None:
            action = f" If not: {metric.action}" if metric.action else ""
            return f"{metric.meaning}\n\nNormal: {metric.normal}{action}\n\n{metric.name}"
    return "Sent by clients, where a subscription asks them for it: docs/METRICS.md."
