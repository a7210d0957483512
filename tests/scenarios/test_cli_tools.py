"""`ottla log dump`, `ottla bench` and the comparison of brokers, against a real broker."""

from __future__ import annotations

import sys
from pathlib import Path
from uuid import uuid4

import pytest
from cli_support import Ottla

from interop.process import BrokerProcess

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import comparing
import comparison
import page
import peers


@pytest.fixture
def ottla(ottla_server: BrokerProcess) -> Ottla:
    return Ottla(ottla_server.bootstrap)


@pytest.fixture
def topic() -> str:
    return f"cli-{uuid4().hex[:10]}"


def test_what_the_broker_wrote_can_be_dumped(ottla_process, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    broker = ottla_process({"log.segment.bytes": "1048576", "log.index.interval.bytes": "1000"})
    ottla = Ottla(broker.bootstrap)
    ottla("topic", "create", "t")
    text = "".join(f"message {i:06} {'.' * 200}\n" for i in range(20_000))
    ottla("produce", "t", "-X", "batch.num.messages=100", stdin=text.encode())
    assert broker.stop() == 0
    folder = broker.data / "t-0"
    segments = sorted(map(str, folder.glob("*.log")))
    assert len(segments) > 3
    batches = ottla("log", "dump", *segments, "--records", "--json").json_lines
    records = [record for batch in batches for record in batch["records"]]
    assert [record["value"] for record in records] == text.splitlines()
    assert [record["offset"] for record in records] == list(range(20_000))
    positions = {b["position"]: b for b in ottla("log", "dump", segments[0], "--json").json_lines}
    index = ottla("log", "dump", segments[0].replace(".log", ".index"), "--json").json_lines
    assert index
    for entry in index:
        assert positions[entry["position"]]["base_offset"] <= entry["offset"]
    assert ottla("log", "dump", segments[0].replace(".log", ".timeindex"), "--json").json_lines
    snapshots = sorted(map(str, folder.glob("*.snapshot")))
    kept = ottla("log", "dump", snapshots[-1], "--json").json_lines
    assert len({batch["producer_id"] for batch in kept}) == 1
    assert [batch["last_offset"] for batch in kept][-1] == 19_999
    assert len(kept) == 5
    whole = ottla("log", "dump", str(folder)).out
    headings = [line.removesuffix(":") for line in whole.splitlines() if line.startswith(str(folder))]
    assert set(segments) | set(snapshots) < set(headings) and headings == sorted(headings)
    assert str(folder / "partition.metadata") not in headings
    (tmp_path / "none").mkdir()
    assert "no log files" in ottla.fails(4, "log", "dump", str(tmp_path / "none")).err
    for name in ("recovery-point-offset-checkpoint", "t-0/leader-epoch-checkpoint"):
        ottla("log", "dump", str(broker.data / name))


def test_every_benchmark_runs(ottla: Ottla, ottla_server: BrokerProcess) -> None:
    produced = ottla("bench", "produce", "-n", "5000", "-p", "2", "--processes", "2", "--json").json
    assert (produced["messages"], produced["failed"]) == (5000, 0)
    assert produced["settings"] == {
        "partitions": 2, "size_bytes": 100, "acks": "1", "compression": "none", "linger_ms": 5,
    }  # fmt: skip
    assert "librdkafka" in produced["client"]
    assert "2 processes" in produced["client"]
    assert produced["broker_memory_mb"] > 10
    consumed = ottla("bench", "consume", "-n", "5000", "-p", "2", "--processes", "2", "--json").json
    assert (consumed["messages"], consumed["mb_per_s"] > 0) == (5000, True)
    latency = ottla("bench", "latency", "-r", "200", "-d", "0.5", "--warmup-s", "2", "--json").json
    # The warm-up is in none of the figures.
    assert latency["messages"] == 100 and 0.4 < latency["seconds"] < 2
    assert latency["settings"] == {"rate_per_s": 200, "size_bytes": 100, "acks": "1"}
    assert 0 < latency["latency_ms"]["p50"] <= latency["latency_ms"]["p99"] < 5000
    for api in ("produce", "metadata", "api-versions"):
        options = ["--api", api, "-c", "3", "-i", "2", "-d", "0.3", "--warmup-s", "0.1", "--processes", "2"]
        requests = ottla("bench", "requests", *options, "--json").json
        assert requests["requests"] > 10
        assert requests["failed"] == 0
        assert "raw sockets" in requests["client"]
    options = ["--beside", "produce", "-d", "0.3", "--warmup-s", "0.1", "--acks", "all"]
    neighbour = ottla("bench", "latency", *options, "--json").json
    assert neighbour["settings"] == {"connections": 2, "size_bytes": 100, "acks": "all"}
    assert neighbour["requests"] and neighbour["latency_ms"]["p50"] > 0
    # Small ones were measured, and large ones written meanwhile, whose cost is not taken for theirs.
    assert neighbour["mb_per_s"] < neighbour["beside"]["mb_per_s"]
    assert neighbour["beside"]["requests"] > 3 and neighbour["beside"]["failed"] == 0
    assert neighbour["broker_cpu_us_per_request"] is None
    options = ["--beside", "cold-reader", "-d", "0.3", "--warmup-s", "0.1"]
    neighbour = ottla("bench", "latency", *options, "--json").json
    assert neighbour["requests"] and neighbour["latency_ms"]["p50"] > 0
    assert neighbour["beside"]["test"] == "consume"
    assert neighbour["beside"]["requests"] > 3 and neighbour["beside"]["failed"] == 0
    assert "ottla-bench" not in ottla("topic", "list").out


def test_transactions_are_measured_beside_the_same_without_them(ottla: Ottla) -> None:
    options = ["-n", "2000", "-p", "2", "--piece", "100", "-d", "0.2", "--rounds", "1"]
    found = ottla("bench", "transactions", *options, "--json").json
    assert found["settings"] == {"messages": 2000, "size_bytes": 100, "partitions": 2, "rounds": 1}
    assert list(found["rows"]) == ["batches", "single", "consume", "process"]
    for row in found["rows"].values():
        # So little may cost nothing that could be seen: then there is no ratio.
        assert row["transactions"].keys() >= row["without"].keys() >= row["ratio"].keys()
        assert row["without"] and row["ratio"]
    single = found["rows"]["single"]["transactions"]
    assert 0 < single["commit_p50_ms"] < single["p50_ms"] <= single["p99_ms"] < 5000
    shown = ottla("bench", "transactions", "--only", "single", "-d", "0.2", "--rounds", "1").out
    assert "commit, p50 " in shown and "batches" not in shown
    assert "ottla-bench" not in ottla("topic", "list").out + ottla("group", "list").out


def test_a_benchmark_uses_the_topic_that_it_is_given(ottla: Ottla, topic: str) -> None:
    ottla("topic", "create", topic, "-p", "2")
    ottla("bench", "produce", "--topic", topic, "-n", "1000", "--size", "10")
    text = ottla("bench", "consume", "--topic", topic, "-n", "400").out
    assert "messages" in text
    assert len(ottla("consume", topic).out.splitlines()) == 1000
    ottla.fails(4, "bench", "produce", "--topic", f"{topic}-none")


def test_brokers_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "IDLE_S", 0.2)
    columns = (comparison.RATE, comparison.PER_MILLION)
    starting = next(step for step in comparison.plan(1) if step.against is comparison.Against.STARTED)
    small = comparison.bench("Small", ("produce", "-n", "1000"), columns)
    monkeypatch.setattr(comparing, "plan", lambda scale: [starting, small])
    ours = peers.PEERS[:1]
    options = comparing.parser().parse_args(["--runs", "2"])
    found = comparing.compare(
        comparing.Field(ours, ours, [], []), options, comparison.tools_of(None, 1), tmp_path
    )
    assert found.errors == {}
    results = {"runs": found.runs}
    for column in columns:
        assert len(page.values(results, "Small", "ottla", column)) == 2
    starts = page.values(results, starting.title, "ottla", comparison.START)
    assert len(starts) == 2 and all(0 < s < 20 for s in starts)
    assert not any(tmp_path.iterdir())
