"""kcat, from Debian: librdkafka 2.0.2, which picks its message format by the ApiVersions we list.

That version falls back to message formats before magic 2 unless Produce and Fetch are listed from versions
that old brokers had (KAFKA-18659); a broker that refuses those formats then looks broken to it.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from interop.process import wait_until

FORMAT = "%p|%o|%k|%s|%h|%T\\n"


def kcat(bootstrap: str, *args: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
    command = ["kcat", "-b", bootstrap, *args]
    done = subprocess.run(command, check=False, input=stdin, capture_output=True, text=True, timeout=60)
    assert not check or done.returncode == 0, done.stderr
    return done


def test_list(bootstrap: str, make_topic: Callable[..., str]) -> None:
    topic = make_topic(3)
    shown = json.loads(kcat(bootstrap, "-L", "-J", "-t", topic).stdout)
    (found,) = shown["topics"]
    node = shown["brokers"][0]["id"]
    assert shown["brokers"] == [{"id": node, "name": bootstrap}]
    assert shown["controllerid"] == node
    assert found["topic"] == topic
    ids = [{"id": node}]
    assert found["partitions"] == [
        {"partition": i, "leader": node, "replicas": ids, "isrs": ids} for i in range(3)
    ]
    assert topic in [entry["topic"] for entry in json.loads(kcat(bootstrap, "-L", "-J").stdout)["topics"]]


def test_list_unknown_topic(bootstrap: str, name: str) -> None:
    shown = json.loads(kcat(bootstrap, "-L", "-J", "-t", name, "-X", "allow.auto.create.topics=false").stdout)
    (found,) = shown["topics"]
    assert "Unknown topic" in found["error"]


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_produce_and_consume(bootstrap: str, make_topic: Callable[..., str], codec: str, acks: str) -> None:
    topic = make_topic()
    lines = "".join(f"k{i}:value {i}\n" for i in range(200))
    before_ms = int(time.time() * 1000)
    config = ["-z", codec, "-X", f"acks={acks}", "-H", "a=1", "-H", "b=2"]
    kcat(bootstrap, "-P", "-t", topic, "-K:", *config, stdin=lines)
    after_ms = int(time.time() * 1000)
    got = kcat(bootstrap, "-C", "-t", topic, "-o", "beginning", "-c", "200", "-f", FORMAT).stdout
    for i, line in enumerate(got.splitlines()):
        partition, offset, key, value, headers, timestamp_ms = line.split("|")
        assert (partition, offset, key, value) == ("0", str(i), f"k{i}", f"value {i}")
        assert headers == "a=1,b=2"
        assert before_ms <= int(timestamp_ms) <= after_ms


def test_records_are_of_magic_2(bootstrap: str, make_topic: Callable[..., str]) -> None:
    """Headers exist only there; the client's log says which features it derived from our version list."""
    topic = make_topic()
    done = kcat(bootstrap, "-P", "-t", topic, "-X", "debug=feature,protocol", "-H", "h=1", stdin="v\n")
    enabled = [line for line in done.stderr.splitlines() if "Feature MsgVer2" in line]
    assert enabled
    assert not [line for line in enabled if "not supported" in line.lower()]
    assert kcat(bootstrap, "-C", "-t", topic, "-c1", "-f", "%h").stdout == "h=1"


def test_idempotent_producer(bootstrap: str, make_topic: Callable[..., str]) -> None:
    topic = make_topic()
    values = "".join(f"{i}\n" for i in range(1000))
    kcat(bootstrap, "-P", "-t", topic, "-X", "enable.idempotence=true", stdin=values)
    assert kcat(bootstrap, "-C", "-t", topic, "-c", "1000", "-q").stdout == values


def test_null_values_and_keys(bootstrap: str, make_topic: Callable[..., str]) -> None:
    topic = make_topic()
    kcat(bootstrap, "-P", "-t", topic, "-K:", "-Z", stdin="key:\n:value\n")
    out = kcat(bootstrap, "-C", "-t", topic, "-c2", "-J", "-q").stdout
    got = [json.loads(line) for line in out.splitlines()]
    assert [(record["key"], record["payload"]) for record in got] == [("key", None), (None, "value")]


def test_offsets_and_times(bootstrap: str, make_topic: Callable[..., str]) -> None:
    topic = make_topic()
    kcat(bootstrap, "-P", "-t", topic, stdin="".join(f"{i}\n" for i in range(10)))
    query = f"{topic}:0:"
    assert kcat(bootstrap, "-Q", "-t", query + "-2").stdout.strip() == f"{topic} [0] offset 0"
    assert kcat(bootstrap, "-Q", "-t", query + "-1").stdout.strip() == f"{topic} [0] offset 10"
    assert kcat(bootstrap, "-Q", "-t", query + "1").stdout.strip() == f"{topic} [0] offset 0"
    late = int(time.time() * 1000) + 60_000
    assert kcat(bootstrap, "-Q", "-t", f"{query}{late}").stdout.strip() == f"{topic} [0] offset -1"

    def read(*args: str) -> list[str]:
        return kcat(bootstrap, "-C", "-t", topic, "-p", "0", "-q", "-e", *args).stdout.split()

    assert read("-o", "7") == ["7", "8", "9"]
    assert read("-o", "-2") == ["8", "9"]
    assert read("-o", "s@1") == [str(i) for i in range(10)]
    assert read("-o", f"s@{late}") == []


def test_balanced_consumers(
    bootstrap: str, admin: AdminClient, make_topic: Callable[..., str], name: str
) -> None:
    """Two `kcat -G` share a topic; together they read every record once."""
    topic = make_topic(4)
    config = ["-X", "auto.offset.reset=earliest", "-X", "heartbeat.interval.ms=200", "-u", "-f", "%p %s\\n"]
    command = ["kcat", "-b", bootstrap, "-G", name, *config, topic]
    members: list[Any] = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    try:

        def state() -> bool:
            found = admin.describe_consumer_groups([name])[name].result(60).members
            return len(found) == 2 and all(len(m.assignment.topic_partitions) == 2 for m in found)

        wait_until(state, what="both members have two partitions")
        for partition in range(4):
            values = "".join(f"{partition}-{i}\n" for i in range(25))
            kcat(bootstrap, "-P", "-t", topic, "-p", str(partition), stdin=values)
        read: list[list[str]] = []
        for member in members:
            read.append([member.stdout.readline().strip() for _ in range(50)])
    finally:
        for member in members:
            member.terminate()
            member.communicate(timeout=60)
    every = [line.split()[1] for lines in read for line in lines]
    assert sorted(every) == sorted(f"{p}-{i}" for p in range(4) for i in range(25))
    for lines in read:
        for partition in {line.split()[0] for line in lines}:
            mine = [line.split()[1] for line in lines if line.split()[0] == partition]
            assert mine == [f"{partition}-{i}" for i in range(25)]
