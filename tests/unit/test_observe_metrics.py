"""Each metric has a test that makes it move; all stand in docs/METRICS.md, and a scrape is what a parser
takes."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from observe_support import Scraped, collected, get, scrape, scrape_until
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from interop.raw import RawClient
from ottla.config import ConfigError
from ottla.config.node import StartError
from ottla.env.clock import SystemClock
from ottla.env.garbage import ShortCollections
from ottla.env.lag import LoopLag
from ottla.metadata.image import BrokerImage, ClusterImage, PartitionState, TopicImage
from ottla.metadata.measured import MeasuredStore
from ottla.metadata.store import StoreError
from ottla.observe.catalogue import METRICS
from ottla.observe.exposition import LINES_AT_ONCE, OPENMETRICS, PROMETHEUS, Page
from ottla.observe.labels import OTHERS, Labels
from ottla.observe.metric import Kind, counter, gauge, histogram
from ottla.observe.scrape import Scrape
from ottla.observe.subjects import cluster, partitions, process, store
from ottla.replication.isr import Leading
from ottla.testing import Broker

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker(topics={"orders": 3}, metrics=True, config={"broker.rack": 'r"1\\'}) as running:
        yield running


# ------------------------------------------------------------ the catalogue


def test_names_follow_prometheus() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert re.fullmatch(r"(ottla|process)_[a-z0-9_]+", metric.name), metric.name
        assert metric.name.endswith("_total") is (metric.kind is Kind.COUNTER), metric.name
        assert not metric.name.endswith(("_count", "_sum", "_bucket", "_ms", "_milliseconds", "_kb"))
        if metric.kind is Kind.HISTOGRAM:
            assert metric.name.endswith("_seconds"), metric.name
        assert metric.meaning.endswith(".") and metric.normal.endswith(".")
        assert not metric.action or metric.action.endswith(".")


def test_every_metric_is_documented() -> None:
    page = (ROOT / "docs" / "METRICS.md").read_text()
    missing = [metric.name for metric in METRICS if f"**`{metric.name}`**" not in page]
    assert not missing, f"make docs: {missing}"
    unknown = set(re.findall(r"`((?:ottla|process)_[a-z0-9_]+?)`", page)) - {
        metric.name for metric in METRICS
    }
    assert not unknown


def test_every_metric_has_a_test_that_makes_it_move() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_observe_*.py"))
    told = set(re.findall(r'"((?:ottla|process)_[a-z0-9_]+)"', text))
    told = {re.sub("_(bucket|sum|count)$", "", name) for name in told} | told
    missing = [metric.name for metric in METRICS if metric.name not in told]
    assert not missing


def test_scrapes_have_nothing_that_is_not_in_the_catalogue(broker: Broker) -> None:
    assert scrape(broker).names() <= {metric.name for metric in METRICS}
    assert scrape(broker).value("ottla_scrape_failures_total") == 0


# ------------------------------------------------------------ the text

COUNTED = counter("a_total", "Some \\ of\nthem.", "")
MEASURED = gauge("b_bytes", "B.", "", labels=("who", "what"))
TIMED = histogram("c_seconds", "C.", "", labels=("who",))
PLAIN = histogram("d_seconds", "D.", "")


def page() -> Page:
    made = Page()
    made.add(MEASURED, 1, 'quo"te\\', "new\nline")
    made.add(COUNTED, 7)
    made.add(MEASURED, 1.5, "x" * 1000, "ü")
    made.add_ranges(TIMED, (0.5, 1), (1, 0, 2), 9.25, "w")
    made.add_ranges(PLAIN, (0.5, 1), (0, 0, 0), 0)
    return made


def test_however_many_ask_one_look_is_taken_at_a_time(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, most, whole = 0, 0, Scrape.text

    async def text(self: Scrape, *, openmetrics: bool) -> bytes:
        nonlocal looking, most
        looking += 1
        most = max(most, looking)
        try:
            return await whole(self, openmetrics=openmetrics)
        finally:
            looking -= 1

    monkeypatch.setattr(Scrape, "text", text)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: get(broker.metrics_address, "/metrics"), range(8)))
    assert {answer.status for answer in answers} == {200} and most == 1


def test_prometheus_reads_its_format() -> None:
    text = b"".join(page().write((COUNTED, MEASURED, TIMED, PLAIN), openmetrics=False)).decode()
    found = Scraped(text)
    assert [family.type for family in found.families] == ["counter", "gauge", "histogram", "histogram"]
    assert found.families[0].documentation == "Some \\ of\nthem."
    assert found.value("a_total") == 7
    assert found.value("b_bytes", who='quo"te\\', what="new\nline") == 1
    assert found.value("b_bytes", who="x" * 199 + "…", what="ü") == 1.5
    assert [found.value("c_seconds_bucket", who="w", le=le) for le in ("0.5", "1.0", "+Inf")] == [1, 1, 3]
    assert (found.value("c_seconds_sum", who="w"), found.value("c_seconds_count", who="w")) == (9.25, 3)
    assert found.value("d_seconds_bucket", le="+Inf") == found.value("d_seconds_count") == 0


def test_many_lines_are_put_together_in_pieces() -> None:
    made = Page()
    for number in range(2 * LINES_AT_ONCE + 1):
        made.add(COUNTED, number)
    pieces = list(made.write((COUNTED,), openmetrics=False))
    assert [piece.count(b"a_total ") for piece in pieces] == [LINES_AT_ONCE + 2, LINES_AT_ONCE, 1]
    assert b"".join(pieces).count(b"# TYPE") == 1


def test_openmetrics_is_read_too() -> None:
    text = b"".join(page().write((COUNTED, MEASURED, TIMED, PLAIN), openmetrics=True)).decode()
    families = list(parse_openmetrics(text))
    assert [(one.name, one.type) for one in families] == [
        ("a", "counter"), ("b_bytes", "gauge"), ("c_seconds", "histogram"), ("d_seconds", "histogram"),
    ]  # fmt: skip
    assert text.endswith("# EOF\n")


def test_numbers_are_as_prometheus_writes_them() -> None:
    made = Page()
    for value in (float("inf"), float("-inf"), float("nan"), True, 10**20, 1e-9):
        made.add(COUNTED, value)
    (text,) = made.write((COUNTED,), openmetrics=False)
    values = [line.rpartition(" ")[2] for line in text.decode().splitlines()[2:]]
    assert values == ["+Inf", "-Inf", "NaN", "1", "100000000000000000000", "1e-09"]


def test_labels_are_bounded_and_stay() -> None:
    labels = Labels(2)
    assert [labels.of(name) for name in ("a", "b", "c", "a")] == ["a", "b", OTHERS, "a"]
    labels.keep({"b", "c", "d"})
    # Who has been among the others stays there; who is new takes the place of who is gone.
    assert [labels.of(name) for name in ("c", "d", "e", "b")] == [OTHERS, "d", OTHERS, "b"]
    assert Labels(5).of(OTHERS) == OTHERS


# ------------------------------------------------------------ what is served


def test_formats_and_compression(broker: Broker) -> None:
    address = broker.metrics_address
    plain = get(address, "/metrics")
    assert (plain.status, plain.headers["content-type"]) == (200, PROMETHEUS)
    packed = get(address, "/metrics", Accept_Encoding="gzip")
    assert packed.headers["content-encoding"] == "gzip"
    replicas = len(broker._node.services.replicas.partitions)
    assert b"ottla_replicas %d\n" % replicas in gzip.decompress(packed.body)
    asked = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
    other = get(address, "/metrics", Accept=asked)
    assert other.headers["content-type"] == OPENMETRICS
    assert {family.name for family in parse_openmetrics(other.body.decode())}
    assert get(address, "/metrics", "HEAD").body == b""
    assert get(address, "/").status == 404


def test_a_name_that_was_made_to_point_here_reads_nothing(broker: Broker) -> None:
    for path in ("/clients", "/metrics", "/readyz", "/nothing"):
        answer = get(broker.metrics_address, path, Host="rebound.example:9308")
        assert (answer.status, b"the header Host" in answer.body) == (403, True)
    assert get(broker.metrics_address, "/clients", Host="localhost:1").status == 200


def test_a_node_that_serves_is_healthy_and_ready(broker: Broker) -> None:
    assert get(broker.metrics_address, "/healthz").status == 200
    assert get(broker.metrics_address, "/readyz")[:2] == (200, b"ready\n")


def test_metrics_come_and_go_while_the_node_runs() -> None:
    def change(client: RawClient, address: str) -> None:
        config = {"name": "metrics.listener", "config_operation": 0, "value": address}
        resource = {"resource_type": 4, "resource_name": "1", "configs": [config]}
        answer = client.call("IncrementalAlterConfigs", 1, resources=[resource], validate_only=False)
        assert answer.responses[0].error_code == (0 if address != "9308" else 42)

    with Broker() as running, RawClient(running.bootstrap_servers) as client:
        with pytest.raises(RuntimeError, match="metrics=True"):
            _ = running.metrics_address
        node = running._node
        change(client, "127.0.0.1:0")
        while node.metrics_address is None:
            pass
        first = running.metrics_address
        assert get(first, "/healthz").status == 200
        change(client, "9308")
        change(client, running.bootstrap_servers)
        while node.metrics_address is not None:
            pass
        with pytest.raises(OSError):
            get(first, "/healthz")
        change(client, "127.0.0.1:0")
        while node.metrics_address is None:
            pass
        assert get(running.metrics_address, "/healthz").status == 200


def test_a_node_does_not_start_where_its_metrics_cannot_be_served(broker: Broker) -> None:
    taken = Broker(config={"metrics.listener": broker.metrics_address})
    with pytest.raises(StartError, match=f"metrics cannot be served at {broker.metrics_address}"):
        taken.start()
    with pytest.raises(ConfigError, match="it must be HOST:PORT"):
        Broker(config={"metrics.listener": "::1:9308"}).start()


def test_a_node_starts_without_the_address_for_metrics_that_it_was_given_while_it_ran(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Broker(data=tmp_path) as running:
        config = {"name": "metrics.listener", "config_operation": 0, "value": broker.metrics_address}
        resource = {"resource_type": 4, "resource_name": "1", "configs": [config]}
        with RawClient(running.bootstrap_servers) as client:
            client.call("IncrementalAlterConfigs", 1, resources=[resource], validate_only=False)
        running.restart()
        assert f"metrics cannot be served at {broker.metrics_address}" in caplog.text
        with RawClient(running.bootstrap_servers) as client:
            client.call("ApiVersions", 2)


# ------------------------------------------------------------ the process


def test_the_process_is_told_of(broker: Broker) -> None:
    found = scrape(broker)
    assert found.total("ottla_build_info") == 1
    assert found.total("ottla_node_info", rack='r"1\\', node_id="1") == 1
    assert found.value("process_start_time_seconds") > 1e9
    assert found.value("process_resident_memory_bytes") > 1e6
    assert 3 < found.value("process_open_fds") < found.value("process_max_fds")
    sum(range(1_000_000))
    later = scrape(broker)
    for name in ("process_cpu_seconds_total", "ottla_loop_cpu_seconds_total"):
        assert later.value(name) > found.value(name)


# ------------------------------------------------------------ partitions


def test_partitions_are_counted(broker: Broker) -> None:
    before = scrape(broker)
    broker.create_topic("more", 4)
    after = scrape_until(
        broker, lambda found: found.value("ottla_replicas") == before.value("ottla_replicas") + 4
    )
    assert after.value("ottla_leaders") == before.value("ottla_leaders") + 4


def test_offline_failed_and_unopened_partitions_make_a_node_unready(tmp_path: Path) -> None:
    with Broker(topics={"a": 2, "b": 1}, metrics=True, data=tmp_path) as running:
        node = running._node
        replicas = node.services.replicas
        one, other = replicas.partitions["a", 0], replicas.partitions["a", 1]
        one.state = replace(one.state, leader=-1)
        other.log.durability.fail(OSError(5, "no disk"))
        replicas.openings._refused["b", 0] = ("it cannot", 0)
        found = scrape(running)
        for name in ("ottla_offline_partitions", "ottla_failed_logs", "ottla_unopened_replicas"):
            assert found.value(name) == 1
        assert found.value("ottla_ready") == 0
        answer = get(running.metrics_address, "/readyz")
        assert answer.status == 503
        assert [json.loads(line) for line in answer.body.splitlines()] == [
            {"reason": "partitions are offline", "count": 1, "some": ["a-0"]},
            {"reason": "the disk has failed", "count": 1, "some": ["a-1"]},
            {"reason": "partitions cannot be opened", "count": 1},
        ]
        node.services.metadata.away_since_s = 0.0
        assert b'"the metadata store is away", "seconds": ' in get(running.metrics_address, "/readyz").body
        assert scrape(running).value("ottla_store_away_seconds") > 0
        parts = node._observation.observer.parts
        parts.membership = SimpleNamespace(lease=7, broker_epoch=3)
        assert b"the node's session may have ended" in get(running.metrics_address, "/readyz").body
        parts.membership = SimpleNamespace(lease=0, broker_epoch=-1)
        assert b'"registering again: the node is fenced' in get(running.metrics_address, "/readyz").body
        parts.membership = None
        node.services.replicas.active = False
        assert b'"joining"' in get(running.metrics_address, "/readyz").body
        node.services.replicas.stopping = True
        assert b'"stopping"' in get(running.metrics_address, "/readyz").body


# ------------------------------------------------------------ replicas, without other nodes


class Followed:
    """What there is of a partition that others follow."""

    def __init__(self, isr: tuple[int, ...], min_isr: int, *, adding: tuple[int, ...] = ()) -> None:
        state = PartitionState(1, 0, 0, (1, 2, 3), isr, adding)
        self.state = state
        self.removed = False
        self.leading = Leading(1, state, 10, 1_000)
        self.log = SimpleNamespace(
            log_end_offset=10, failed=None, config=SimpleNamespace(min_insync_replicas=min_isr)
        )
        self.commits, self.deletions = [0] * 2, [0]


def test_replicas_that_are_behind_are_told_of() -> None:
    whole, short, at_min = Followed((1, 2, 3), 1), Followed((1,), 2), Followed((1, 2), 2, adding=(3,))
    whole.leading.followers[2].fetched(10, 0, 1, 10, 4_000)
    whole.leading.followers[3].fetched(4, 0, 1, 10, 4_000)
    proposals = SimpleNamespace(shrinks=3, expands=2, failures=1)
    replicas = SimpleNamespace(
        partitions={("t", index): it for index, it in enumerate((whole, short, at_min))},
        openings=SimpleNamespace(refused_count=0),
        proposals=proposals,
    )
    clock = SimpleNamespace(monotonic_ms=lambda: 5_500)
    sessions = SimpleNamespace(waiting=9)
    parts = SimpleNamespace(services=SimpleNamespace(replicas=replicas, clock=clock, fetch_sessions=sessions))
    found = collected(partitions.collect, parts)
    counts = {
        "ottla_replicas": 3,
        "ottla_leaders": 3,
        # Not the one that is moved to a third node: it has as many in sync as before.
        "ottla_under_replicated_partitions": 1,
        "ottla_under_min_isr_partitions": 1,
        "ottla_at_min_isr_partitions": 1,
        "ottla_reassigning_partitions": 1,
        "ottla_isr_shrinks_total": 3,
        "ottla_isr_expands_total": 2,
        "ottla_isr_failed_updates_total": 1,
        "ottla_waiting_produces": 6,
        "ottla_waiting_deletions": 3,
        "ottla_waiting_fetches": 9,
    }
    assert {name: found.value(name) for name in counts} == counts
    assert found.value("ottla_follower_lag_messages", follower="3") == 10
    assert found.value("ottla_follower_lag_seconds", follower="3") == 4.5


# ------------------------------------------------------------ the cluster, and its store


def test_the_cluster_is_told_of(broker: Broker) -> None:
    found = scrape(broker)
    topics, revision = found.value("ottla_topics"), found.value("ottla_metadata_revision")
    took = found.value("ottla_store_request_seconds_count", operation="txn")
    broker.create_topic("another", 2)
    after = scrape_until(broker, lambda now: now.value("ottla_topics") == topics + 1)
    assert after.value("ottla_partitions") == found.value("ottla_partitions") + 2
    assert after.value("ottla_metadata_revision") > revision
    assert after.value("ottla_store_request_seconds_count", operation="txn") > took
    for name, value in {
        "ottla_ready": 1,
        "ottla_brokers": 1,
        "ottla_active_controller": 1,
        "ottla_cluster_offline_partitions": 0,
        "ottla_store_away_seconds": 0,
    }.items():
        assert after.value(name) == value


def test_changes_of_controllers_and_leaders_are_counted() -> None:
    image = ClusterImage(
        controller_id=2,
        brokers={1: BrokerImage(1, "h", 1, None, 1)},
        nodes={1: BrokerImage(1, "h", 1, None, 1), 2: BrokerImage(2, "h", 1, None, 1)},
        topics={"t": TopicImage("t", UUID(int=1), (PartitionState(-1, 0, 0, (1,), ()),), {})},
    )
    elections = SimpleNamespace(changes=5, losses=2, unclean=1)
    metadata = SimpleNamespace(image=image, controller_changes=4, elections=elections)
    services = SimpleNamespace(
        node_id=1,
        metadata=metadata,
        replicas=SimpleNamespace(
            stopping=False, active=True, partitions={}, openings=SimpleNamespace(refused_count=0)
        ),
    )
    parts = SimpleNamespace(
        services=services, membership=None, listeners=SimpleNamespace(servers=()),
        store_away_s=lambda: None,
    )  # fmt: skip
    found = collected(cluster.collect, parts)
    for name, value in {
        "ottla_active_controller": 0,
        "ottla_fenced_brokers": 1,
        "ottla_cluster_offline_partitions": 1,
        "ottla_controller_changes_total": 4,
        "ottla_leader_changes_total": 5,
        "ottla_leader_losses_total": 2,
        "ottla_unclean_leader_elections_total": 1,
    }.items():
        assert found.value(name) == value


def test_a_store_that_fails_is_counted() -> None:
    class Failing:
        async def get(self, key: str) -> None:
            raise StoreError("away")

    async def main() -> MeasuredStore:
        made = MeasuredStore(cast(Any, Failing()), SystemClock())
        with pytest.raises(StoreError):
            await made.get("k")
        return made

    made = asyncio.run(main())
    parts = SimpleNamespace(store=made, store_away_s=lambda: 1.5)
    found = collected(store.collect, parts)
    assert found.value("ottla_store_away_seconds") == 1.5
    assert found.value("ottla_store_request_failures_total", operation="get") == 1
    assert found.value("ottla_store_request_seconds_count", operation="get") == 1


# ------------------------------------------------------------ connections and memory


def test_connections_are_counted() -> None:
    with Broker(metrics=True, config={"max.connections": 2}) as running:
        where = ("127.0.0.1", running.port)
        with closing(socket.create_connection(where)), closing(socket.create_connection(where)) as other:
            scrape_until(running, lambda now: now.value("ottla_connections", listener="PLAINTEXT") == 2)
            with closing(socket.create_connection(where)) as late:
                assert late.recv(1) == b""
            # It announces more than a request may have.
            other.sendall(b"\x7f\xff\xff\xff")
            assert other.recv(1) == b""
        found = scrape_until(running, lambda now: now.value("ottla_connections", listener="PLAINTEXT") == 0)
        assert found.value("ottla_connections_accepted_total", listener="PLAINTEXT") == 2
        assert found.value("ottla_connections_closed_total", listener="PLAINTEXT") == 2
        assert found.value("ottla_connections_refused_total", listener="PLAINTEXT", limit="connections") == 1
        assert found.value("ottla_connections_ended_total", listener="PLAINTEXT", reason="request_bytes") == 1
        assert found.value("ottla_connections_delayed_total", listener="PLAINTEXT") == 0
        running._node._listeners.servers[0].counts.delayed += 1
        assert scrape(running).value("ottla_connections_delayed_total", listener="PLAINTEXT") == 1


def test_what_is_held_is_told_of(broker: Broker) -> None:
    services = broker._node.services
    before = scrape(broker)
    assert before.value("ottla_held_bytes_max", kind="requests") == services.memory.request_bytes_max
    services.memory.request_bytes += 10
    services.memory.unsent_bytes += 20
    services.memory._waiting[cast(Any, object())] = None
    services.fetch_sessions._sessions[1] = cast(Any, None)
    services.fetch_sessions.partitions += 7
    services.fetch_sessions.evicted += 1
    try:
        after = scrape(broker)
    finally:
        services.memory.request_bytes -= 10
        services.memory.unsent_bytes -= 20
        services.memory._waiting.clear()
        services.fetch_sessions._sessions.clear()
        services.fetch_sessions.partitions -= 7
    for name, labels, more in (
        ("ottla_held_bytes", {"kind": "requests"}, 10),
        ("ottla_held_bytes", {"kind": "responses"}, 20),
        ("ottla_clients_waiting_for_memory", {}, 1),
        ("ottla_fetch_sessions", {}, 1),
        ("ottla_fetch_session_partitions", {}, 7),
        ("ottla_fetch_sessions_evicted_total", {}, 1),
    ):
        assert after.value(name, **labels) == before.value(name, **labels) + more


# ------------------------------------------------------------ the event loop


def test_the_loop_and_collections_are_told_of() -> None:
    lag = LoopLag(
        SystemClock(),
        lambda: 0.0,
        thread_delay_ms=lambda: 2_500.0,
        collections=ShortCollections(lambda: 0.0),
    )
    lag.late.add(7)
    assert lag.collections is not None
    lag.collections.pauses.add(3)
    services = SimpleNamespace(
        node_id=1,
        config=SimpleNamespace(get=lambda name: None),
        metadata=SimpleNamespace(image=ClusterImage()),
        disk=SimpleNamespace(open_files_max=lambda: 100),
    )
    found = collected(process.collect, SimpleNamespace(services=services, lag=lag))
    assert found.value("ottla_loop_lag_seconds_bucket", le="0.01") == 1
    assert found.value("ottla_loop_lag_max_seconds") == 0.007
    assert found.value("ottla_loop_starved_seconds_total") == 2.5
    assert found.value("ottla_gc_pause_seconds_sum") == 0.003
