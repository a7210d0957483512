"""Debian's Prometheus watches three nodes by the rules of deploy/monitoring: alerts come when a node dies, a
group falls behind and a disk runs full, and go when all is well again.

All times of the rules are 120 times as short, and nothing else of them is another: a minute is half a second.
"""

from __future__ import annotations

import json
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_support import QUIET, Cluster, free_port
from confluent_kafka import Consumer, Producer, TopicPartition

from interop.process import wait_until
from measuring import HANG_S
from prometheus_support import MONITORING, RULES, program

FASTER = 120
_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000}
# A node whose disk has 1,000 bytes, of which are free as many as a file says.
FREE_OF_1000 = """
import os, types
def statvfs(path):
    with open({file!r}) as file:
        return types.SimpleNamespace(f_frsize=1, f_blocks=1000, f_bavail=int(file.read()))
os.statvfs = statvfs
from ottla.cli.main import main
main()
"""
# What fires below, and about which node where it is about one.
OF_THE_DEAD = {
    "OttlaNodeDown", "OttlaNodeFenced", "OttlaPartitionsOffline", "OttlaUnderMinIsr", "OttlaUnderReplicated",
}  # fmt: skip
EXPECTED = OF_THE_DEAD | {"OttlaGroupLagGrows", "OttlaDiskNearlyFull"}
# Panels of what does not happen here.
EMPTY = re.compile("kafka_client_|ottla_request_errors_total|ottla_throttle|ottla_connections_refused")


def hastened(text: str) -> str:
    """Rules with all their times shortened: of `for`, and those over which they look back."""

    def shorter(duration: str) -> str:
        return f"{int(duration[:-1]) * _UNITS_MS[duration[-1]] // FASTER}ms"

    found = yaml.safe_load(text)
    for group in found["groups"]:
        for rule in group["rules"]:
            rule["expr"] = re.sub(r"\[(\w+)\]", lambda match: f"[{shorter(match[1])}]", rule["expr"])
            if "for" in rule:
                rule["for"] = shorter(rule["for"])
    return yaml.safe_dump(found)


class Watched:
    """A cluster and the Prometheus that watches it."""

    def __init__(self, cluster: Cluster, free: Path, url: str) -> None:
        self.cluster = cluster
        self.free_of_last = free
        self._url = url

    def ask(self, path: str, **parameters: str) -> Any:
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=HANG_S) as answer:
                return json.load(answer)["data"]
        except ConnectionRefusedError:
            return None
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {parameters}: {error.read().decode()}") from error
        except urllib.error.URLError:
            return None

    def up(self) -> int:
        """Nodes that it has scraped."""
        found = self.ask("query", query='sum(up{job="ottla"})') or {"result": []}
        return sum(int(one["value"][1]) for one in found["result"])

    def firing(self) -> dict[str, dict[str, Any]]:
        """Alerts by their names."""
        found = self.ask("alerts")["alerts"]
        return {one["labels"]["alertname"]: one for one in found if one["state"] == "firing"}


@contextmanager
def prometheus(folder: Path, targets: list[str]) -> Iterator[str]:
    """Its URL. deploy/monitoring's configuration, with these nodes, and less time."""
    folder.mkdir()
    config = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
    config["global"] = dict.fromkeys(config["global"], "500ms")
    config["scrape_configs"][0]["static_configs"][0]["targets"] = targets
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    (folder / RULES.name).write_text(hastened(RULES.read_text()))
    address = f"127.0.0.1:{free_port()}"
    command = [program("prometheus"), "--config.file=prometheus.yaml", "--storage.tsdb.path=data"]
    command += [f"--web.listen-address={address}", "--log.level=warn"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()
        print((folder / "log").read_text())


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    cluster = Cluster(folder)
    targets = []
    for node in cluster.nodes.values():
        targets.append(f"127.0.0.1:{free_port()}")
        node.arguments = (*node.arguments, "--metrics", targets[-1])
        free = folder / f"free-{node.node_id}"
        free.write_text("900")
        node.program = ("-c", FREE_OF_1000.format(file=str(free)))
    try:
        with prometheus(folder / "prometheus", targets) as url:
            # It waits five seconds for who is to be scraped, whatever its configuration.
            yield Watched(cluster.start(), free, url)
    finally:
        cluster.stop()
        print(cluster.logs())


class Load:
    """Records for a topic, acknowledged."""

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self._producer = Producer({"bootstrap.servers": cluster.bootstrap, "linger.ms": 5, **QUIET})
        self._topic = topic
        self.count = 0

    def go_on(self, count: int) -> None:
        for _ in range(count):
            self._producer.produce(self._topic, b"x")
        assert self._producer.flush(HANG_S) == 0
        self.count += count


def commit(cluster: Cluster, group: str, topic: str, offset: int) -> None:
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": group, **QUIET})
    consumer.commit(offsets=[TopicPartition(topic, 0, offset)], asynchronous=False)
    consumer.close()


def test_alerts_come_and_go(watched: Watched) -> None:
    cluster = watched.cluster
    cluster.create("orders")
    cluster.create("strict", configs={"min.insync.replicas": "3"})
    cluster.create("alone", replicas=[2])
    load = Load(cluster, "orders")
    load.go_on(12_000)
    commit(cluster, "g", "orders", 0)
    wait_until(lambda: watched.up() == 3, what="three nodes scraped")
    wait_until(lambda: watched.firing().keys().isdisjoint(EXPECTED), what="no alert before anything happens")

    cluster.nodes[2].kill()
    watched.free_of_last.write_text("40")
    seen: dict[str, dict[str, Any]] = {}

    def missing() -> set[str]:
        load.go_on(100)
        seen.update(watched.firing())
        return EXPECTED - seen.keys()

    wait_until(lambda: not missing(), what=f"an alert of {EXPECTED}", pause_s=0.1)
    addresses = {number: node.arguments[-1] for number, node in cluster.nodes.items()}
    assert seen["OttlaNodeDown"]["labels"]["instance"] == addresses[2]
    assert seen["OttlaDiskNearlyFull"]["labels"]["instance"] == addresses[3]
    assert seen["OttlaDiskNearlyFull"]["annotations"]["summary"].endswith(f"{addresses[3]} has 4% left")
    assert seen["OttlaPartitionsOffline"]["annotations"]["summary"] == "1 partitions have no leader"
    lag = seen["OttlaGroupLagGrows"]["labels"]
    assert (lag["group"], lag["topic"], lag["cluster"]) == ("g", "orders", "ottla")

    cluster.nodes[2].start()
    watched.free_of_last.write_text("900")
    commit(cluster, "g", "orders", load.count)
    wait_until(lambda: watched.firing().keys().isdisjoint(EXPECTED), what="all alerts gone")


def test_panels_show_something(watched: Watched) -> None:
    """All queries of the dashboard are answered, and with numbers, where such things happen here."""
    for panel in json.loads((MONITORING / "ottla-dashboard.json").read_text())["panels"]:
        for target in panel.get("targets", ()):
            text = target["expr"].replace("$__rate_interval", "1m").replace("$job", "ottla")
            text = re.sub(r"\$\w+", ".*", text)
            found = watched.ask("query", query=text)["result"]
            assert found or EMPTY.search(text), text
            for one in found:
                named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
                assert named <= one["metric"].keys(), text
