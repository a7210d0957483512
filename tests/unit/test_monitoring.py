"""What is installed to watch a cluster: its names are those that nodes have, Prometheus reads it, and alerts
fire when they have to and at no other time."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from alert_cases import CASES, Series
from kustomize_support import build
from observe_support import get

from ottla.observe.catalogue import METRICS
from ottla.observe.metric import Kind
from ottla.testing import Broker
from prometheus_support import MONITORING, ROOT, RULES, promtool, rules, selected

DOCS = ROOT / "docs"
DASHBOARD = MONITORING / "ottla-dashboard.json"
BY_NAME = {metric.name: metric for metric in METRICS}
# Labels that Prometheus adds, and metrics.
OF_TARGETS = {"job", "instance", "cluster"}
OF_PROMETHEUS = {"up"}
RECORDED = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}
ALERTS = [rule for rule in rules() if "alert" in rule]
# What clients send is theirs; of these Kafka's documents say that clients have them (KIP-714).
OF_CLIENTS = {
    "kafka_client_producer_node_request_latency_avg",
    "kafka_client_producer_record_queue_time_avg",
    "kafka_client_consumer_node_request_latency_avg",
    "kafka_client_consumer_poll_idle_ratio_avg",
    "kafka_client_consumer_coordinator_commit_latency_avg",
    "kafka_client_consumer_fetch_manager_records_lag_max",
}
LABELS_OF_CLIENTS = {"client_id", "client_instance_id", "client_software_name", "client_software_version"}


def labels_of(name: str) -> set[str]:
    """The labels that samples of this name have; AssertionError where there are none."""
    if name in OF_PROMETHEUS:
        return OF_TARGETS
    if name in OF_CLIENTS:
        return OF_TARGETS | LABELS_OF_CLIENTS
    if name in RECORDED:
        return selected(RECORDED[name]).grouped
    metric = BY_NAME.get(name)
    if metric is None:
        family, _, part = name.rpartition("_")
        metric = BY_NAME.get(family)
        assert metric is not None and metric.kind is Kind.HISTOGRAM, f"no metric: {name}"
        assert part in ("bucket", "sum", "count"), name
        return {*metric.labels, *OF_TARGETS} | ({"le"} if part == "bucket" else set())
    assert metric.kind is not Kind.HISTOGRAM, f"of a histogram, its buckets, sum or count: {name}"
    return {*metric.labels, *OF_TARGETS}


def check(expression: str) -> set[str]:
    """All names in an expression are there; which labels its metrics have."""
    found = selected(expression)
    assert found.metrics, expression
    everything: set[str] = set()
    for name, labels in found.metrics:
        assert labels <= labels_of(name), f"{name} is not told by {labels - labels_of(name)}"
        everything |= labels_of(name)
    assert found.grouped <= everything, expression
    for function, name in re.findall(r"\b(\w+)\(([\w:]+)[^()]*\[", expression):
        metric = BY_NAME.get(name)
        counts = name.endswith(("_bucket", "_sum", "_count")) or (
            metric is not None and metric.kind is Kind.COUNTER
        )
        assert function == "changes" or counts is (function in ("rate", "increase")), expression
    return everything


def queries() -> Iterator[str]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


# ------------------------------------------------------------ names


def test_expressions_are_taken_apart() -> None:
    assert selected('sum by (a, b) (rate(x_total{c="d{}", e=~"f, g"}[5m])) / on (h) (y > 1.5e3 or z:w)') == (
        [("x_total", {"c", "e"}), ("y", set()), ("z:w", set())],
        {"a", "b", "h"},
    )
    with pytest.raises(AssertionError, match="no metric"):
        check("ottla_nothing > 1")
    with pytest.raises(AssertionError, match="not told by"):
        check('ottla_replicas{api="Fetch"}')
    with pytest.raises(AssertionError, match="by"):
        check("sum by (api) (ottla_replicas)")
    with pytest.raises(AssertionError, match="of a histogram"):
        check("ottla_loop_lag_seconds")
    with pytest.raises(AssertionError, match="rate"):
        check("rate(ottla_replicas[5m])")


@pytest.mark.parametrize("rule", list(rules()), ids=lambda rule: rule.get("alert", rule.get("record")))
def test_rules_look_at_what_nodes_tell(rule: dict[str, Any]) -> None:
    check(rule["expr"])


def test_the_dashboard_looks_at_what_nodes_tell() -> None:
    for text in queries():
        check(text)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_alerts_say_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    told = rule["annotations"]
    assert told.keys() == {"summary", "description", "runbook_url"}
    # It is the value and labels that are there that they speak of.
    known = selected(rule["expr"]).grouped or check(rule["expr"])
    text = told["summary"] + told["description"]
    assert set(re.findall(r"\$labels\.(\w+)", text)) <= known
    page, _, anchor = told["runbook_url"].partition("#")
    assert f'<a id="{anchor}"></a>' in (ROOT / page).read_text()
    for name in re.findall(r"`((?:ottla|process)_[a-z_]+)`", text):
        assert name in BY_NAME, name
    for command in re.findall(r"`ottla ([a-z]+ [a-z][a-z-]+)", text):
        assert f"### ottla {command}\n" in (DOCS / "CLI.md").read_text(), command
    for document in re.findall(r"\bdocs/\w+\.md", text):
        assert (ROOT / document).exists()


def test_what_is_said_to_ask_prometheus_for_is_there() -> None:
    found = re.findall(r"^\| .* \| `(.*)` \|$", (DOCS / "METRICS.md").read_text(), re.M)
    assert found
    for expression in found:
        check(expression)


@pytest.mark.parametrize("page", ["OPERATING.md", "MONITORING.md"])
def test_documents_name_what_nodes_tell(page: str) -> None:
    text = (DOCS / page).read_text()
    named = set(re.findall(r"`((?:ottla|process)_[a-z_]+)`", text))
    assert named and named <= BY_NAME.keys()
    assert set(re.findall(r"`(Ottla[A-Z]\w+)`", text)) <= {rule["alert"] for rule in ALERTS}


# ------------------------------------------------------------ what Prometheus says


def test_prometheus_reads_the_rules(tmp_path: Path) -> None:
    assert f"SUCCESS: {len(list(rules()))} rules found" in promtool("check", "rules", RULES)
    promtool("check", "config", MONITORING / "prometheus.yaml")
    # As docs/MONITORING.md has it.
    text = re.sub("runbook_url: docs/", "runbook_url: https://docs.example.com/ottla/", RULES.read_text())
    assert text.count("https://") == len(ALERTS)


def test_prometheus_reads_the_dashboards_queries(tmp_path: Path) -> None:
    made = [
        {"record": f"q{number}", "expr": text.replace("$__rate_interval", "1m")}
        for number, text in enumerate(queries())
    ]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": made}]}))
    assert f"SUCCESS: {len(made)} rules found" in promtool("check", "rules", file)


def test_prometheus_finds_nothing_odd_in_a_scrape() -> None:
    with Broker(topics=["t"], metrics=True) as broker:
        scrape = get(broker.metrics_address, "/metrics").body
    promtool("check", "metrics", stdin=scrape)


def test_every_alert_has_a_case() -> None:
    assert {case.alert for case in CASES} == {rule["alert"] for rule in ALERTS}


def firing(alert: str, minutes: int, series: Series, *, seldom: bool) -> dict[str, Any]:
    """A test for promtool: whether an alert fires at some time until then; if it is to fire, not at once."""
    fires = f'ALERTS{{alertname="{alert}", alertstate="firing"}}'
    ever = f"clamp_max(sum(count_over_time({fires}[1d])), 1) or vector(0)"
    expected = {minutes: 0} if seldom else {0: 0, minutes: 1}
    return {
        "name": f"{alert}: {series}",
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": ever, "eval_time": f"{at}m", "exp_samples": [{"labels": "{}", "value": value}]}
            for at, value in expected.items()
        ],
    }


def test_alerts_fire_when_they_have_to_and_at_no_other_time(tmp_path: Path) -> None:
    files = []
    for number, case in enumerate(CASES):
        # It alone, and what is recorded: each minute of each series all rules are looked at.
        chosen = [rule for rule in rules() if rule.get("alert", case.alert) == case.alert]
        (tmp_path / f"rules{number}.yaml").write_text(
            yaml.safe_dump({"groups": [{"name": "one", "rules": chosen}]})
        )
        tests = [firing(case.alert, case.minutes, case.fires, seldom=False)]
        tests += [firing(case.alert, case.minutes, series, seldom=True) for series in case.quiet]
        file = tmp_path / f"alerts{number}.yaml"
        file.write_text(
            yaml.safe_dump(
                {"rule_files": [f"rules{number}.yaml"], "evaluation_interval": "1m", "tests": tests}
            )
        )
        files.append(file)
    promtool("test", "rules", *files)


# ------------------------------------------------------------ the dashboard, and how all is installed


def test_panels_have_places_and_names_of_their_own() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24
        taken |= cells
    for key in ("id", "title"):
        found = [panel[key] for panel in dashboard["panels"]]
        assert len(set(found)) == len(found)
    variables = {one["name"] for one in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", DASHBOARD.read_text())) - {"__all", "__rate_interval"}
    assert used == variables


def test_the_operators_rules_are_these(tmp_path: Path) -> None:
    """docs/MONITORING.md's command makes an object of the rules' file."""
    (block,) = re.findall(
        r"^\{\n(.*?)^\} \| kubectl apply", (DOCS / "MONITORING.md").read_text(), re.M | re.S
    )
    made = subprocess.run(["sh", "-c", block], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = yaml.safe_load(made)
    assert (found["kind"], found["metadata"]["name"]) == ("PrometheusRule", "ottla")
    assert found["spec"] == yaml.safe_load(RULES.read_text())


def test_what_is_scraped_is_what_nodes_serve() -> None:
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    (scraped,) = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())["scrape_configs"]
    assert scraped["job_name"] == "ottla"
    served = [
        f"{name}:{argument.rpartition(':')[2]}"
        for name, one in compose.items()
        for argument in one.get("command", ())
        if argument.startswith("--metrics=")
    ]
    assert served == scraped["static_configs"][0]["targets"]
    monitor = yaml.safe_load((MONITORING / "podmonitor.yaml").read_text())["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    pods = 0
    for (kind, name), one in build(ROOT / "deploy" / "kubernetes" / "plain").items():
        if kind != "StatefulSet" or name == "etcd":
            continue
        pod = one["spec"]["template"]
        (container,) = pod["spec"]["containers"]
        (port,) = [p["containerPort"] for p in container["ports"] if p["name"] == endpoint["port"]]
        assert f"--metrics 0.0.0.0:{port}" in container["args"][0]
        assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(port)
        assert monitor["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        pods += 1
    assert pods == 3


def test_compose_mounts_what_there_is() -> None:
    services = yaml.safe_load((MONITORING / "compose.yaml").read_text())["services"]
    inside = {}
    for name, one in services.items():
        for volume in one["volumes"]:
            source, target, *_ = volume.split(":")
            inside[name, target] = source
            assert not source.startswith(".") or (ROOT / "deploy" / source).is_file(), source
    config = next(a.partition("=")[2] for a in services["prometheus"]["command"] if "config.file" in a)
    assert inside["prometheus", config].endswith("/prometheus.yaml")
    (provider,) = yaml.safe_load((MONITORING / "grafana-dashboards.yaml").read_text())["providers"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.rpartition("/")[0] == provider["options"]["path"]
    assert inside["grafana", home].endswith("/ottla-dashboard.json")
    (source,) = yaml.safe_load((MONITORING / "grafana-source.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090" and "prometheus" in services
